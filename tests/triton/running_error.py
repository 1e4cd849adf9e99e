"""Running error analysis of kernels: how far float32 may be from exact arithmetic.

Every term is carried as its value in float64 and a bound on the error of whoever computes it in
float32: the interpreter, a GPU, or torch on a CPU.  What a term decides (a rounding to integers, an
exponent, a comparison) is decided as in float32; where that could go either way, the bound grows by
what the other way would give, or becomes infinite.  The error of a sum is followed with its sign
through what is made of the sum (affine arithmetic): Horner's rule at a mean square would otherwise
add up what cancels.  No constant in here is fitted to a result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from odp.kernels.kernel import Kernel
from odp.kernels.term import Term
from odp.kernels.torch_evaluation import evaluate

__all__ = ["Bound", "exact", "kernel_bounds", "stored"]

UNIT = 2.0**-24
"""Largest relative error of one rounding to float32."""
_TINIEST = 2.0**-149
_SMALLEST_NORMAL = 2.0**-126

# NumPy, and with it Triton's interpreter, adds up to 128 numbers in 8 sums of 16, and these sums in
# a tree; torch adds 16 a level in up to 4 levels, and then 8 lanes of 4 sums.  A looped kernel adds
# a number a block first, of which there are few here.
_LONGEST_CHAIN = 96

# A quotient by Newton's steps: 0.12^8 = 4.3e-8 of the reciprocal, three roundings in its last step
# (of b * seed and 2 - b * seed, whose errors count fully, and of the product), one of the quotient.
_DIVISION_ERROR = {"full": UNIT, "newton": 4.4e-8 + 4 * UNIT}


@dataclass(frozen=True)
class Bound:
    """A tensor in float64, and a bound on the absolute error of every element in float32.

    Attributes:
        value: in exact arithmetic, up to float64.
        error: of what is computed in float32; without the parts below in here.
        shared: whether everyone computes it by the same roundings, so that its float32 is known.
        parts: errors in proportion to that of a sum over a row, at its largest, by that sum.
    """

    value: torch.Tensor
    error: torch.Tensor
    shared: bool = False
    parts: Mapping[Term, torch.Tensor] = field(default_factory=dict)

    @property
    def whole(self) -> Bound:
        """With one error."""
        return Bound(self.value, self.error + self.proportional, self.shared)

    @property
    def proportional(self) -> torch.Tensor:
        """The sum of the parts."""
        return _size(self.parts)

    @property
    def largest(self) -> torch.Tensor:
        """Magnitude with the error."""
        return self.value.abs() + self.error


def exact(x: torch.Tensor) -> Bound:
    """An operand as it is."""
    wide = x.detach().double()
    return Bound(wide, torch.zeros_like(wide), shared=True)


def stored(bound: Bound, dtype: torch.dtype, truncated: bool = False) -> Bound:
    """A result in the type in which it is stored.

    Args:
        bound: of the number that is stored.
        dtype: in which.
        truncated: whether bfloat16 is cut off instead of rounded, as the interpreter does.
    """
    if dtype == torch.float32:
        return bound
    if not dtype.is_floating_point:
        return Bound(bound.value, bound.error)
    limits = torch.finfo(dtype)
    unit = limits.eps / (1 if truncated and dtype == torch.bfloat16 else 2)
    # Half of the distance of subnormal numbers, or all of it.
    smallest = limits.smallest_normal * unit
    return Bound(bound.value, bound.error + torch.clamp_min(unit * bound.largest, smallest))


def kernel_bounds(
    kernel: Kernel,
    operands: Mapping[str, Bound | float | torch.Tensor],
    shape: Sequence[int],
    division: str = "full",
) -> dict[str, Bound]:
    """Value and error of every output of a kernel before it is stored.

    Args:
        kernel: what is computed.
        operands: by name; `Bound` for tensors of numbers (those of rows without a last extent),
            tensors of integers, and scalars.
        shape: of an element-wise result.
        division: ``full`` or ``newton``.
    """
    analysis = _Analysis(kernel, operands, tuple(shape), division)
    found = {}
    for output in kernel.outputs:
        bound = analysis.bounds[output.term].whole
        extent = (*shape[:-1], 1) if output.kind == "row" else tuple(shape)
        value, error = bound.value.expand(extent), bound.error.expand(extent)
        if output.kind == "row":
            bound = Bound(value[..., 0], error[..., 0], bound.shared)
        elif output.kind == "column_sum":
            rows = [x.reshape(-1, shape[-1]) for x in (value, error, value.abs())]
            bound = _sum(*rows, axis=0)
            bound = Bound(bound.value[0], bound.error[0])
        else:
            bound = Bound(value, error, bound.shared)
        found[output.name] = bound
    return found


def _sum(value: torch.Tensor, error: torch.Tensor, size: torch.Tensor, axis: int) -> Bound:
    chain = min(max(value.shape[axis] - 1, 0), _LONGEST_CHAIN)
    total = value.sum(axis, keepdim=True)
    errors = error.sum(axis, keepdim=True)
    growth = chain * UNIT / (1 - chain * UNIT)
    return Bound(total, errors + growth * (size.sum(axis, keepdim=True) + errors))


class _Analysis:
    def __init__(
        self, kernel: Kernel, operands: Mapping[str, Any], shape: tuple[int, ...], division: str
    ) -> None:
        self.operands = operands
        self.shape = shape
        self.division = division
        leaves = {
            name: self._in_float32(given, kernel.operands.get(name, ""))
            for name, given in operands.items()
        }
        # What `shared` terms are in float32, and with them what is decided.
        values = evaluate(kernel.terms, leaves, shape, torch.float32)
        self.float32 = dict(zip(kernel.terms, values, strict=True))
        self.bounds: dict[Term, Bound] = {}
        for term in kernel.terms:
            bound = self._bound(term)
            # Nothing times a bound that is infinite.
            missing = torch.isnan(bound.error) & ~torch.isnan(bound.value)
            error = torch.where(missing, torch.inf, bound.error)
            self.bounds[term] = Bound(bound.value, error, bound.shared, bound.parts)

    def _in_float32(self, given: Any, kind: str) -> Any:
        x = given.value.float() if isinstance(given, Bound) else given
        return x[..., None] if kind.startswith("row") else x

    def _leaf(self, term: Term) -> Bound:
        if term.op in ("elements", "column"):
            return self.operands[term.name]
        if term.op == "row":
            bound = self.operands[term.name]
            return Bound(bound.value[..., None], bound.error[..., None], bound.shared)
        if term.op == "constant":
            given = float(term.value)
        elif term.op in ("scalar", "scalar_integer"):
            given = float(self.operands[term.name])
        elif term.op == "row_integer":
            return exact(self.operands[term.name][..., None])
        else:
            # Numbers of rows and columns.
            (value,) = evaluate([term], {}, self.shape, torch.float64)
            return exact(value)
        rounded = torch.tensor(given, dtype=torch.float32).double()
        value = torch.full((1,), given, dtype=torch.float64)
        return Bound(value, (rounded - given).abs().expand(1), shared=True)

    def _bound(self, term: Term) -> Bound:
        if not term.operands:
            return self._leaf(term)
        a = [self.bounds[operand] for operand in term.operands]
        shared = all(x.shared for x in a) and term.op != "row_sum"
        shared = shared and (term.op != "div" or self.division == "full")
        found = self._smooth(term, a)
        if found is None:
            value, error = self._operation(term, [x.whole for x in a])
            found = Bound(value, error)
        return Bound(found.value, found.error, shared, found.parts)

    def _smooth(self, term: Term, a: list[Bound]) -> Bound | None:
        """Operations that keep errors in proportion."""
        x, y = a[0], a[-1]
        p, q = x.proportional, y.proportional
        match term.op:
            case "add" | "sub":
                sign = 1 if term.op == "add" else -1
                value = x.value + sign * y.value
                parts = _combined(x, 1.0, y, sign)
                error = _rounded(value, x.error + y.error, p + q)
            case "mul":
                value = x.value * y.value
                parts = _combined(x, y.value, y, x.value)
                grown = x.value.abs() * y.error + y.value.abs() * x.error
                error = _rounded(value, grown + (x.error + p) * (y.error + q), _size(parts))
            case "div":
                value = x.value / y.value
                parts = _combined(x, 1 / y.value, y, -value / y.value)
                room = torch.clamp_min(y.value.abs() - y.error - q, 0)
                grown = (x.error + value.abs() * y.error) / y.value.abs()
                second = (grown + _size(parts)) * (y.error + q) / room
                unit = _DIVISION_ERROR[self.division]
                error = _rounded(value, grown + second, _size(parts), unit)
            case "row_sum":
                value, error = x.value.expand(self.shape), x.error.expand(self.shape)
                bound = _sum(value, error + p, value.abs(), axis=-1)
                return Bound(bound.value, torch.zeros_like(bound.error), parts={term: bound.error})
            case "scale_by_power":
                factor = torch.pow(2.0, y.value)
                value = x.value * factor
                parts = {term: part * factor for term, part in x.parts.items()}
                # Exact but for subnormal numbers.
                below = torch.where(value.abs() < 2 * _SMALLEST_NORMAL, _TINIEST, 0.0)
                error = torch.where(y.error + q > 0, torch.inf, x.error * factor + below)
            case "significand" | "half_significand":
                if x.shared:
                    ratio = self.float32[term.operands[0]].double() / self.float32[term].double()
                    power, undecided = torch.log2(ratio).round(), torch.zeros(1).bool()
                else:
                    power, undecided = _power(term.op, x.whole)
                factor = torch.pow(2.0, -power)
                value = x.value * factor
                parts = {term: part * factor for term, part in x.parts.items()}
                error = torch.where(undecided, torch.inf, x.error * factor)
            case _:
                return None
        return Bound(value, error, parts=parts)

    def _operation(self, term: Term, a: list[Bound]) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = a[0], a[-1]
        match term.op:
            case "max" | "min":
                extreme = torch.maximum if term.op == "max" else torch.minimum
                low, value, high = (
                    extreme(x.value + sign * x.error, y.value + sign * y.error)
                    for sign in (-1, 0, 1)
                )
                return value, torch.maximum(high - value, value - low)
            case "abs":
                return x.value.abs(), x.error
            case "greater" | "equal":
                found = self.float32[term].bool()
                open_to_doubt = (x.value - y.value).abs() <= x.error + y.error
                undecided = open_to_doubt & ~torch.tensor(x.shared and y.shared)
                return found, torch.where(undecided, torch.inf, 0.0)
            case "where":
                condition, x, y = a
                value = torch.where(condition.value.bool(), x.value, y.value)
                error = torch.where(condition.value.bool(), x.error, y.error)
                other = (x.value - y.value).abs() + torch.maximum(x.error, y.error)
                return value, torch.where(condition.error > 0, other, error)
            case "row_max":
                low, value, high = (
                    (x.value + sign * x.error).amax(-1, keepdim=True) for sign in (-1, 0, 1)
                )
                return value, torch.maximum(high - value, value - low)
            case _:
                return self._discrete(term, x)

    def _discrete(self, term: Term, x: Bound) -> tuple[torch.Tensor, torch.Tensor]:
        """Roundings to integers and exponents: as float32 decides, if that is known."""
        if x.shared:
            found = self.float32[term].double()
            return found, torch.zeros_like(found)
        if term.op == "round":
            value = x.value.round()
            undecided = ((x.value - value).abs() - 0.5).abs() <= x.error
            return value, undecided.double()
        power, undecided = _power(term.op, x)
        value = power / (2 if term.op == "half_exponent" else 1)
        return value, torch.where(undecided, torch.inf, 0.0)


def _power(op: str, x: Bound) -> tuple[torch.Tensor, torch.Tensor]:
    """The binary exponent that a significand leaves, and where it could be another one."""
    ends = []
    for end in (x.value - x.error, x.value, x.value + x.error):
        if op.startswith("half"):
            ends.append(2 * torch.floor(torch.floor(torch.log2(end)) / 2))
        else:
            ends.append(torch.floor(torch.log2(end / math.sqrt(0.5))))
    return ends[1], (ends[0] != ends[2]) | (x.value <= x.error)


def _combined(x: Bound, by: Any, y: Bound, also_by: Any) -> dict[Term, torch.Tensor]:
    """Parts of `x * by + y * also_by`."""
    found = {term: part * by for term, part in x.parts.items()}
    for term, part in y.parts.items():
        found[term] = found[term] + part * also_by if term in found else part * also_by
    return found


def _size(parts: Mapping[Term, torch.Tensor]) -> torch.Tensor:
    return sum((part.abs() for part in parts.values()), torch.zeros(1).double())


def _rounded(
    value: torch.Tensor, grown: torch.Tensor, parts: torch.Tensor, unit: float = UNIT
) -> torch.Tensor:
    """The error of an operation: what its operands bring, and its own rounding."""
    # Integers and their kin: exact operands and a float32 as the result.
    unrounded = (grown == 0) & (parts == 0) & (value == value.float().double())
    if unit != UNIT:
        unrounded = torch.zeros_like(unrounded)
    return torch.where(unrounded, 0.0, grown + unit * (value.abs() + grown + parts) + _TINIEST)
