"""Terms on torch tensors: what runs without a GPU, and what tests compare kernels with."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from odp.kernels.term import Term, nodes

__all__ = ["evaluate"]

_ROOT_HALF = math.sqrt(0.5)


def evaluate(
    roots: Sequence[Term],
    operands: Mapping[str, Any],
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> list[torch.Tensor]:
    """The values of terms.

    Args:
        roots: what to compute.
        operands: by name: tensors of `shape` for elements, `shape[-1:]` for columns,
            `(*shape[:-1], 1)` for rows; numbers for scalars.
        shape: of an element-wise tensor; the last extent is that of a row.
        dtype: float32, in which kernels compute too, or float64.

    Returns:
        Tensors that broadcast to `shape`; those of rows have a last extent of 1.
    """
    device = next((x.device for x in operands.values() if isinstance(x, torch.Tensor)), None)
    values: dict[Term, Any] = {}
    for term in nodes(roots):
        if term.op == "constant":
            values[term] = float(term.value)
        elif term.op in ("elements", "column", "row"):
            values[term] = operands[term.name].to(dtype)
        elif term.op in ("row_integer", "scalar", "scalar_integer"):
            values[term] = operands[term.name]
        elif term.op == "columns":
            values[term] = float(shape[-1])
        elif term.op == "column_index":
            values[term] = torch.arange(shape[-1], device=device)
        elif term.op == "row_in_group":
            extent = shape[-2] if len(shape) > 1 else 1
            values[term] = torch.arange(extent, device=device)[:, None]
        else:
            values[term] = _OPERATIONS[term.op](*(values[operand] for operand in term.operands))
    return [
        value if isinstance(value, torch.Tensor) else torch.full((1,), value, dtype=dtype)
        for value in (values[root] for root in roots)
    ]


def _extreme(which: str) -> Callable[[Any, Any], Any]:
    of_tensors: Any = getattr(torch, f"{which}imum")
    clamp: Any = torch.clamp_min if which == "max" else torch.clamp_max

    def extreme(a: Any, b: Any) -> Any:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return of_tensors(a, b)
        return clamp(a, b) if isinstance(a, torch.Tensor) else clamp(b, a)

    return extreme


def _where(condition: Any, a: Any, b: Any) -> Any:
    return torch.where(condition, a, b)


def _scaled(a: Any, power: torch.Tensor) -> torch.Tensor:
    # torch.ldexp calls pow; a power of two is an exponent and nothing else.
    if power.dtype == torch.float64:
        factor = ((power.to(torch.int64) + 1023) << 52).view(torch.float64)
    else:
        factor = ((power.to(torch.int32) + 127) << 23).view(torch.float32)
    scaled: torch.Tensor = factor * a
    return scaled


def _split(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Significand in [sqrt(1/2), sqrt(2)) and exponent."""
    half, power = torch.frexp(a)
    low = half < _ROOT_HALF
    return torch.where(low, 2 * half, half) + (a - a), (power - low.to(power.dtype)).to(a.dtype)


def _split_by_four(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Significand in [1, 4) and half of the exponent."""
    half, power = torch.frexp(a)
    fourth = torch.div(power - 1, 2, rounding_mode="floor")
    fourth = fourth.to(a.dtype)
    return _scaled(half, power.to(a.dtype) - 2 * fourth) + (a - a), fourth


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "max": _extreme("max"),
    "min": _extreme("min"),
    "greater": operator.gt,
    "equal": operator.eq,
    "abs": torch.abs,
    "where": _where,
    "round": torch.round,
    "scale_by_power": _scaled,
    "significand": lambda a: _split(a)[0],
    "exponent": lambda a: _split(a)[1],
    "half_significand": lambda a: _split_by_four(a)[0],
    "half_exponent": lambda a: _split_by_four(a)[1],
    "row_sum": lambda a: a.sum(-1, keepdim=True),
    "row_max": lambda a: a.amax(-1, keepdim=True),
}
