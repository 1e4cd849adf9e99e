"""Attention in float64, and how far kernels may be from it: nothing here is fitted to a result.

An error e of exp in proportion, proven, and roundings u of float32 make the power of a score one of

    |p' / p - 1| <= eta = (1 + e) (1 + r) exp(delta) - 1,

with r the roundings of the expression (a running error analysis on a grid) and delta those of the
score, which is a sum of as many products as there are channels.  Its weight p / sum(p) is then
within omega = (1 + eta) / (1 - eta) - 1 of the true one, in proportion; a sum of n adds n u.
An expression behind a clip has an absolute error instead, and is 0 where exp is below its domain.
Everything after that is the product rule.  Products whose operands are rounded to 16 bits add half
an ulp of those, and results half an ulp of their type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from odp.approximations.expression import Expression
from odp.kernels.functions import KernelFunction

__all__ = ["Bounded", "assert_within", "attention_bounds", "attention_reference"]

# Powers are clipped at 2^-120, which a hidden key has, and divided by a sum of at least 1/2.
_LEAST_WEIGHT = 2.0**-119
# Half of the smallest number of float16; a power is divided by a sum of at least 1/2.
_HALF_SMALLEST = 2.0**-25
# Roundings of a score after its products are added: factor, mask, shift, clip and the fraction.
_SCORE_ROUNDINGS = 16
# Of a weight after its power: the reciprocal within 4 u, and products.
_WEIGHT_ROUNDINGS = 8


@dataclass(frozen=True)
class Bounded:
    """A tensor in float64, and how far every element of a result may be from it."""

    value: torch.Tensor
    error: torch.Tensor


def assert_within(found: torch.Tensor, bounded: Bounded, what: str) -> None:
    """Compare element by element."""
    assert bounded.error.isfinite().all(), f"{what}: no bound"
    assert found.shape == bounded.value.shape
    difference = (found.detach().double() - bounded.value).abs()
    ratio = float((difference / bounded.error).nan_to_num(0.0).max())
    assert (difference <= bounded.error).all(), f"{what}: {ratio:.3g} times what is allowed"


def attention_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    """Weights of attention in float64; 0 in rows that see no key."""
    scores = _masked(q, k, mask, causal, scale)
    largest = scores.amax(-1, keepdim=True)
    powers = (scores - torch.where(largest == -math.inf, 0.0, largest)).exp()
    total = powers.sum(-1, keepdim=True)
    return torch.where(total > 0, powers / torch.where(total > 0, total, 1.0), 0.0)


def attention_bounds(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    d_o: torch.Tensor,
    exp: KernelFunction,
    *,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    narrow: bool = False,
    unit: float = 2.0**-24,
) -> Mapping[str, Bounded]:
    """``o``, ``d_q``, ``d_k`` and ``d_v``.

    Args:
        q: and k, v, d_o: as the kernel gets them.
        k: likewise.
        v: likewise.
        d_o: likewise.
        exp: how it is computed.
        mask: numbers or booleans.
        causal: as in the operator.
        scale: likewise.
        narrow: whether operands of products are rounded to the type of q.
        unit: largest relative error of one rounding.
    """
    stored = max(torch.finfo(q.dtype).eps / 2, unit)
    rounded = stored if narrow else 0.0
    smallest = _HALF_SMALLEST if q.dtype == torch.float16 else 0.0
    rounded_smallest = smallest if narrow else 0.0
    group, channels, keys = q.shape[1] // k.shape[1], q.shape[3], k.shape[2]
    scale = 1 / math.sqrt(channels) if scale is None else scale
    weights = attention_reference(q, k, mask, causal, scale)
    queries_heads = q.shape[2] * group
    k, v = (x.double().repeat_interleave(group, 1) for x in (k, v))
    q, d_o = q.double(), d_o.double()

    relative, absolute = _of_exp(exp, unit)
    size = scale * (q.abs() @ k.abs().mT)
    if mask is not None and mask.dtype != torch.bool:
        size = size + torch.where(mask.isfinite(), mask.double().abs(), 0.0)
    largest = torch.where(weights > 0, size, 0.0).amax(-1, keepdim=True)
    delta_score = (channels + _SCORE_ROUNDINGS) * unit * largest
    eta = (1 + relative) * delta_score.exp() - 1
    omega = (1 + eta) / (1 - eta) * (1 + (keys + _WEIGHT_ROUNDINGS) * unit) - 1
    lowest = 0.5 - keys * absolute
    assert lowest > 0 and (eta < 1).all()
    e_weights = omega * weights + absolute * (1 + keys * weights) / lowest
    e_weights = torch.where(weights > 0, e_weights, absolute / lowest) + _LEAST_WEIGHT

    o = weights @ v
    e_o = e_weights @ v.abs() + ((keys + 2) * unit + rounded) * (weights @ v.abs())
    e_o = e_o + 2 * rounded_smallest * v.abs().sum(-2, keepdim=True)
    e_o = e_o + stored * (o.abs() + e_o) + smallest

    d_p = d_o @ v.mT
    delta = (o * d_o).sum(-1, keepdim=True)
    size_p = d_o.abs() @ v.abs().mT
    size_delta = (o.abs() * d_o.abs()).sum(-1, keepdim=True)
    e_delta = (e_o * d_o.abs()).sum(-1, keepdim=True) + (channels + 1) * unit * size_delta
    difference = d_p - delta
    e_difference = (channels + 3) * unit * size_p + e_delta + 3 * unit * size_delta
    d_s = weights * difference
    e_s = e_weights * difference.abs() + (weights + e_weights) * e_difference
    e_s = e_s + rounded * (d_s.abs() + e_s) + rounded_smallest

    e_v = e_weights + rounded * (weights + e_weights) + rounded_smallest
    by_keys = (queries_heads + 2) * unit
    found = {
        "d_q": (d_s @ k, e_s @ k.abs() + (keys + 2) * unit * (d_s.abs() @ k.abs())),
        "d_k": (d_s.mT @ q, e_s.mT @ q.abs() + by_keys * (d_s.abs().mT @ q.abs())),
        "d_v": (weights.mT @ d_o, e_v.mT @ d_o.abs() + by_keys * (weights.mT @ d_o.abs())),
    }
    bounds = {"o": Bounded(o, e_o)}
    for name, (value, error) in found.items():
        factor = 1.0 if name == "d_v" else scale
        value, error = factor * value, factor * (1 + 2 * unit) * error
        if name != "d_q":
            value, error = (x.unflatten(1, (-1, group)).sum(2) for x in (value, error))
        bounds[name] = Bounded(value, error + stored * (value.abs() + error) + smallest)
    return bounds


def _masked(
    q: torch.Tensor,
    k: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float | None,
) -> torch.Tensor:
    shared = k.double().repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = (q.double() @ shared.mT) * (1 / math.sqrt(q.shape[3]) if scale is None else scale)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask.double()
    if causal:
        query, key = (torch.arange(n) for n in scores.shape[-2:])
        hidden = key > query[:, None] + scores.shape[-1] - scores.shape[-2]
        scores = scores.masked_fill(hidden, -math.inf)
    return scores


def _of_exp(exp: KernelFunction, unit: float) -> tuple[float, float]:
    """Relative and absolute error of exp, roundings included; one of them is 0."""
    assert exp.certified
    values, roundings = _running_error(exp.expression, np.linspace(exp.low, exp.high, 20_001), unit)
    if exp.reduction == "clip":
        assert exp.absolute_error is not None
        return 0.0, max(exp.absolute_error + float(roundings.max()), math.exp(exp.low))
    assert exp.relative_error is not None
    rounding = float((roundings / values).max())
    return (1 + exp.relative_error) * (1 + rounding) - 1, 0.0


def _running_error(
    expression: Expression, x: np.ndarray, unit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Values at x, and what all roundings can add up to; a division rounds 4 times."""
    known: dict[Expression, tuple[np.ndarray, np.ndarray]] = {}
    for node in expression.nodes():
        if node.op == "variable":
            known[node] = (x, np.zeros_like(x))
            continue
        if node.op == "constant":
            value = np.full_like(x, float(node.value))
            known[node] = (value, unit * abs(value))
            continue
        (a, e_a), (b, e_b) = (known[operand] for operand in node.operands)
        if node.op in ("add", "sub"):
            value, error = (a + b if node.op == "add" else a - b), e_a + e_b
        elif node.op == "mul":
            value, error = a * b, abs(a) * e_b + abs(b) * e_a + e_a * e_b
        else:
            value = a / b
            error = (e_a + abs(value) * e_b) / (abs(b) - e_b) + 3 * unit * abs(value)
        known[node] = (value, error + unit * (abs(value) + error))
    return known[expression]
