"""Rotary position embeddings as exact tables: positions are whole numbers, and there are few.

The cosines and sines of every position are computed once by the module itself, and looked up
afterwards: no approximation, no error, and the same for any order of positions, which a key-value
cache asks for.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from odp.approximations.choose import approximate
from odp.backends.torch.rational_class import Rational, become, original_class
from odp.rewriter.rewrite_pass import Pass

__all__ = ["RotaryTable", "tabulate"]

_LARGEST = 32768
"""Positions of a table unless the user asks for more: 33 MB for 128 channels in float32."""


class RotaryTable(Rational):
    """A rotary embedding that looks cosines and sines up.

    Its forward takes what the original takes, with `position_ids` of any shape (int64), and returns
    the cosine and the sine in the type of `x`.  A position beyond the table is an IndexError.
    """

    odp_tables: dict[Any, tuple[torch.Tensor, torch.Tensor]]

    @classmethod
    def odp_forward(cls, original: Callable[..., Any]) -> Callable[..., Any]:
        del original
        return _look_up

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # To another device, but never to another type: bfloat16 cannot tell angles apart.
        self.odp_tables = {
            key: tuple(table.to(fn(table).device) for table in pair)  # type: ignore[misc]
            for key, pair in self.odp_tables.items()
        }
        return self


def tabulate(module: torch.nn.Module, rope: Pass) -> int | None:
    """Turn a rotary embedding into a table, if its results depend on nothing but the position.

    Args:
        module: called as `module(x, position_ids, ...)`, returns cosine and sine.
        rope: the pass.  Its option `positions` says how many there are; without it there are those
            that the configuration allows, at most 32,768.  With a scheme or a formula the table
            holds what that makes of the angles, reduced to [-pi, pi].

    Returns:
        The number of positions, or None if the module is no such embedding and was left alone.
    """
    parameters = list(inspect.signature(original_class(module).forward).parameters)
    if parameters[1:3] != ["x", "position_ids"]:
        return None
    count: int = getattr(rope, "positions", None) or min(_supported(module), _LARGEST)
    tables = {}
    for variant in _variants(module):
        table = _table(module, count, variant)
        if table is None:
            return None
        spelled_out = rope.scheme is not None or rope.formula is not None
        tables[variant] = _approximated(table, rope) if spelled_out else table
    become(module, RotaryTable)
    assert isinstance(module, RotaryTable)
    module.odp_tables = tables
    return count


def _look_up(
    self: RotaryTable, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    cosine, sine = self.odp_tables[layer_type]
    return cosine[position_ids].to(x.dtype), sine[position_ids].to(x.dtype)


def _approximated(
    table: tuple[torch.Tensor, torch.Tensor], rope: Pass
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the expressions of a scheme make of the angles of a table.

    For comparison with others' choices: no expression is as good as the table itself.
    """
    cosine, sine = (part.double() for part in table)
    angle, scale = torch.atan2(sine, cosine), torch.hypot(cosine, sine)
    parameters: dict[str, Any] = dict(rope.scheme_parameters())
    found = []
    for name, part, parity in (("cos", table[0], 0), ("sin", table[1], 1)):
        if "degree" in parameters:
            # The highest coefficient of an even function in an odd degree is zero.
            degree = int(rope.scheme_parameters()["degree"])
            parameters["degree"] = degree - (degree + parity) % 2
        approximant = approximate(
            name,
            (-math.pi, math.pi),
            error=math.inf if rope.error is None else rope.error,
            scheme=rope.scheme,
            formula=rope.formula,
            **parameters,
        )
        values = torch.from_numpy(np.asarray(approximant(angle.cpu().numpy())))
        found.append((values.to(scale) * scale).to(part))
    return found[0], found[1]


def _supported(module: torch.nn.Module) -> int:
    config = getattr(module, "config", None)
    return int(getattr(config, "max_position_embeddings", 0) or 2048)


def _variants(module: torch.nn.Module) -> list[str | None]:
    """The layer types that the module tells apart (Gemma 3 has two sets of frequencies)."""
    if "layer_type" not in inspect.signature(original_class(module).forward).parameters:
        return [None]
    types = getattr(module, "layer_types", None) or getattr(module.config, "layer_types", None)
    return sorted(set(types)) if types else [None]


def _table(
    module: torch.nn.Module, count: int, variant: str | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Cosine and sine, (positions, channels) in float32, or None if they do not fit."""
    device = next((b.device for b in module.buffers()), torch.device("cpu"))
    x = torch.zeros(1, 1, dtype=torch.float32, device=device)
    extra = () if variant is None else (variant,)

    def compute(position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return original_class(module).forward(module, x, position_ids, *extra)  # type: ignore[no-any-return]

    with torch.no_grad():
        whole = compute(torch.arange(count, device=device)[None])
        if not _is_pair(whole, (1, count)):
            return None
        table = whole[0][0].clone(), whole[1][0].clone()
        # Frequencies that depend on the length of the text (dynamic scaling), or anything else
        # that is no function of the position alone, shows on other positions.
        probe = torch.tensor([[count - 1, 0, 3 % count], [1 % count, count // 2, 0]], device=device)
        for ids in (probe, probe[:1, :1]):
            found = compute(ids)
            if not _is_pair(found, tuple(ids.shape)):
                return None
            if not all(torch.equal(a, b[ids]) for a, b in zip(found, table, strict=True)):
                return None
    return table


def _is_pair(result: Any, leading: tuple[int, ...]) -> bool:
    return (
        isinstance(result, tuple)
        and len(result) == 2
        and all(isinstance(r, torch.Tensor) and tuple(r.shape[:-1]) == leading for r in result)
    )
