"""Spellings of elementary functions: by name, as method, in place, in blocks, as part of others."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from .spellings import Spelling, one_pattern

__all__ = ["ELEMENTARY"]

Tensor = torch.Tensor

POSITIVE = (0.0625, 4.0)
BELOW_ONE = (-0.5, 0.5)
ABOVE_ONE = (1.125, 4.0)


def _quiet(x: Tensor) -> Tensor:
    with torch.no_grad():
        inside = torch.sigmoid(x)
    return inside + x


def _autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return torch.tanh(torch.matmul(x, x.mT) * 0.125)


def _view(x: Tensor) -> Tensor:
    whole = x.clone()
    whole[..., :4].sigmoid_()
    return whole


def _rotary(x: Tensor) -> Tensor:
    frequencies = torch.tensor([1.0, 0.5, 0.25, 0.125])
    return torch.cat([(x[..., :1] * frequencies).cos(), (x[..., :1] * frequencies).sin()], -1)


def _unary(
    name: str, domain: tuple[float, float] = (-3.0, 3.0), alias: str | None = None
) -> list[Spelling]:
    """An elementary function, by its name and by another one."""
    spelled = [one_pattern(name, "function", getattr(torch, name), domain=domain)]
    if alias is not None:
        other = getattr(torch.special, alias, None) or getattr(torch, alias)
        spelled.append(one_pattern(name, alias, other, domain=domain))
    return spelled


def _variants(name: str, domain: tuple[float, float]) -> list[Spelling]:
    """An elementary function as method and as operator in place."""

    def in_place(x: Tensor) -> Tensor:
        return getattr(x.clone(), f"{name}_")()

    return [
        one_pattern(name, "method", lambda x: getattr(x, name)(), domain=domain),
        one_pattern(name, "in_place", in_place, domain=domain),
    ]


ELEMENTARY = [
    *_unary("exp"),
    *_unary("log", POSITIVE),
    *_unary("sqrt", POSITIVE),
    *_unary("rsqrt", POSITIVE),
    *_unary("sigmoid", alias="expit"),
    *_unary("tanh"),
    *_unary("erf"),
    *_unary("sin"),
    *_unary("cos"),
    *_unary("tan", (-1.0, 1.0)),
    *_unary("sinh"),
    *_unary("cosh"),
    *_unary("asin", BELOW_ONE, "arcsin"),
    *_unary("acos", BELOW_ONE, "arccos"),
    *_unary("atan", alias="arctan"),
    *_unary("asinh", alias="arcsinh"),
    *_unary("acosh", ABOVE_ONE, "arccosh"),
    *_unary("atanh", BELOW_ONE, "arctanh"),
    *_variants("exp", (-3.0, 3.0)),
    *_variants("rsqrt", POSITIVE),
    *_variants("sigmoid", (-3.0, 3.0)),
    one_pattern("exp", "exp2", torch.exp2),
    one_pattern("exp", "expm1", torch.expm1),
    one_pattern("log", "log1p", torch.log1p, domain=POSITIVE),
    one_pattern("log", "log2", torch.log2, domain=POSITIVE),
    one_pattern("log", "log10", torch.log10, domain=POSITIVE),
    one_pattern("erf", "erfc", torch.erfc),
    one_pattern("sqrt", "hypot", lambda x: torch.hypot(x, x + 1.0)),
    Spelling("sqrt", "norm", lambda x: x.norm(dim=-1), {"reduce_l2": 1}),
    Spelling("sqrt", "vector_norm", torch.linalg.vector_norm, {"reduce_l2": 1}),
    Spelling("sqrt", "normalize", lambda x: F.normalize(x, dim=-1), {"reduce_l2": 1}),
    one_pattern("sqrt", "deviation", lambda x: x.std(-1)),
    one_pattern(
        "rsqrt",
        "quotient",
        lambda x: 1.0 / torch.sqrt(x),
        domain=POSITIVE,
        calls=frozenset({"sqrt"}),
    ),
    one_pattern(
        "rsqrt",
        "reciprocal_of_root",
        lambda x: x.sqrt().reciprocal(),
        domain=POSITIVE,
        calls=frozenset({"sqrt"}),
    ),
    Spelling(
        "rsqrt",
        "division_by_root",
        lambda x: (x + 1.0) / x.sqrt(),
        {"division_by_sqrt": 1},
        domain=POSITIVE,
        calls=frozenset({"sqrt"}),
    ),
    one_pattern("pow", "number", lambda x: x**0.3, domain=POSITIVE),
    one_pattern("pow", "root", lambda x: x**0.5, domain=POSITIVE),
    one_pattern("pow", "inverse_root", lambda x: x**-0.5, domain=POSITIVE),
    one_pattern("pow", "of_number", lambda x: torch.pow(2.5, x)),
    one_pattern("pow", "tensors", lambda x: torch.pow(x, x * 0.5), domain=POSITIVE),
    one_pattern("sigmoid", "no_grad", _quiet),
    one_pattern("sigmoid", "view", _view),
    one_pattern("sigmoid", "glu", lambda x: F.glu(x, -1)),
    one_pattern("tanh", "autocast", _autocast),
    Spelling(
        "rope",
        "dynamic",
        _rotary,
        {"rope_cos": 1, "rope_sin": 1},
        calls=frozenset({"sin", "cos"}),
    ),
]
