"""What rounding does to a program: a proven bound, on parts of the domain, without running it.

On a box of inputs every register is ``v + sum_j c_j d_j + rest``: v is its value in real
arithmetic, d_j in [-1, 1] the j-th rounding in units of the most that it can be, c_j the derivative
of the register with respect to it, and the rest is of second order.  v, its derivative by x and
all c_j are enclosed by balls (affine arithmetic with interval coefficients: first order as sharp
as the boxes are small, so a self-correcting iteration is seen to correct itself).  Boxes are split
where the bound is well above what it is at their middle.

Sources: L. H. de Figueiredo and J. Stolfi, Affine arithmetic, Numerical Algorithms 37 (2004);
A. Solovyev et al., Rigorous estimation of floating-point round-off errors with symbolic Taylor
expansions, ACM TOPLAS 41 (2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from odp.approximations.fixed_point.balls import Ball
from odp.approximations.fixed_point.program import FixedPointProgram, Step

__all__ = ["RoundingAnalysis", "analyse"]

Array = NDArray[np.float64]

_BOXES = 128
_SPLIT = 4
_ROUNDS = 8
_MOST_BOXES = 16384
# A bound this much above what the middle of its box has is worth splitting.
_SHARP = 1.02
_UP = 1 + 2.0**-40


@dataclass(frozen=True)
class RoundingAnalysis:
    """What was proven of a program for all of its inputs.

    Attributes:
        absolute: largest |program - expression|.
        relative: largest |program - expression| / |expression|; infinite where that may be zero.
        bits: bits, with the sign, of the widest intermediate; see `FixedPointProgram.bits`.
        boxes: parts of the domain at the end.
    """

    absolute: float
    relative: float
    bits: int
    boxes: int


def analyse(program: FixedPointProgram, *, relative: bool = False) -> RoundingAnalysis | None:
    """Bounds of the rounding errors and of the size of all intermediates.

    Also the proof that no divisor, as it is rounded, is zero for any input of the program.

    Args:
        program: for the inputs that it was made for.
        relative: whether the relative bound is to be sharp; the other one holds, but may be coarse.

    Returns:
        The bounds; None where nothing is proven: a divisor may be zero, or the errors grow beyond
        what a first-order analysis can hold.

    >>> from odp.approximations import Interval, variable
    >>> from odp.approximations.fixed_point import lower_expression
    >>> x = variable("x")
    >>> square = lower_expression(x * x, Interval(-1, 1), scale=8)
    >>> round(analyse(square).absolute * 2**9, 3)
    1.0
    """
    unit = 2.0**-program.input_scale
    if max(abs(program.lowest), abs(program.highest)) >= 2**52:
        return None
    lo, hi = program.lowest * unit, program.highest * unit
    left, right = _initial(lo, hi)
    absolute = ratio = 0.0
    bits = boxes = 0
    for round_number in range(_ROUNDS + 1):
        part = _Boxes(program, left, right)
        # What no splitting can improve: the same bounds for the middles of the boxes alone.
        middle = _Boxes(program, part.middle, part.middle)
        if not np.isfinite(middle.absolute).all():
            return None
        if relative:
            settled = part.relative <= _SHARP * max(ratio, _largest(middle.relative))
            settled |= np.isinf(middle.relative) & np.isfinite(part.absolute)
        else:
            settled = part.absolute <= _SHARP * max(absolute, _largest(middle.absolute))
        last = round_number == _ROUNDS or 4 * int((~settled).sum()) > _MOST_BOXES
        if last:
            settled = np.ones_like(settled)
        if settled.any():
            # Not Python's max, which would drop what is not a number.
            absolute = float(np.maximum(absolute, part.absolute[settled].max()))
            ratio = float(np.maximum(ratio, part.relative[settled].max()))
            widest = float(part.bits[settled].max())
            if not (math.isfinite(absolute) and math.isfinite(widest)):
                return None
            bits = max(bits, int(widest))
            boxes += int(settled.sum())
        if settled.all():
            break
        left, right = _split(left[~settled], right[~settled])
    return RoundingAnalysis(absolute * _UP, ratio * _UP, bits, boxes)


def _largest(values: Array) -> float:
    """The largest finite one."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0


def _initial(lo: float, hi: float) -> tuple[Array, Array]:
    if lo > 0 and hi > 4 * lo:
        ends = np.geomspace(lo, hi, _BOXES + 1)
    elif hi < 0 and lo < 4 * hi:
        ends = -np.geomspace(-lo, -hi, _BOXES + 1)
    else:
        ends = np.linspace(lo, hi, _BOXES + 1)
    ends[0], ends[-1] = lo, hi
    return ends[:-1], ends[1:]


def _split(left: Array, right: Array) -> tuple[Array, Array]:
    shares = np.linspace(0.0, 1.0, _SPLIT + 1)
    ends = left[:, None] + (right - left)[:, None] * shares
    ends[:, -1] = right
    return ends[:, :-1].ravel(), ends[:, 1:].ravel()


@dataclass
class _Register:
    """One register on all boxes.

    Attributes:
        value: what it is in real arithmetic, anywhere in the box.
        centre: what it is at the middle of the box.
        slope: its derivative by x, anywhere in the box.
        noise: its derivatives by all roundings times their sizes, shape (roundings, boxes).
        rest: bound of what those leave out.
        error: bound of the noise together with the rest.
    """

    value: Ball
    centre: Ball
    slope: Ball
    noise: Ball
    rest: Array
    error: Array

    def scaled(self, exponent: int) -> _Register:
        """The same integers read at another scale: all values times ``2^exponent``."""
        if exponent == 0:
            return self
        balls = (self.value, self.centre, self.slope, self.noise)
        value, centre, slope, noise = (ball.scaled(exponent) for ball in balls)
        rest, error = np.ldexp(self.rest, exponent), np.ldexp(self.error, exponent)
        return _Register(value, centre, slope, noise, rest, error)


class _Boxes:
    """All registers of a program on boxes of inputs, and what follows from them."""

    def __init__(self, program: FixedPointProgram, left: Array, right: Array) -> None:
        self.middle = left + (right - left) / 2
        # Both differences are rounded.
        self.radius = np.maximum(right - self.middle, self.middle - left) * (1 + 2.0**-50)
        self.shape = left.shape
        self.roundings = sum(step.rounds for step in program.steps)
        self.next_rounding = 0
        self.scales = [step.scale for step in program.steps]
        self.bits = np.zeros(self.shape)
        self.registers: list[_Register] = []
        with np.errstate(all="ignore"):
            for step in program.steps:
                self.registers.append(self._step(step))
            result = self.registers[-1]
            self.absolute = result.error
            smallest = result.value.smallest
            self.relative = np.where(smallest > 0, result.error / smallest, np.inf)

    def _step(self, step: Step) -> _Register:
        if step.op == "input":
            return self._input(step)
        if step.op == "constant":
            return self._constant(step)
        a, b = self.registers[step.left], self.registers[step.right]
        a_scale, b_scale = self.scales[step.left], self.scales[step.right]
        if step.op == "round":
            self._fits(a, a_scale + step.left_shift)
            moved = a.scaled(a_scale + step.left_shift - step.right_shift - step.scale)
            return self._rounded(moved, step) if step.rounds else moved
        if step.op in ("add", "sub"):
            left = a.scaled(a_scale + step.left_shift - step.scale)
            right = b.scaled(b_scale + step.right_shift - step.scale)
            self._fits(left, step.scale)
            self._fits(right, step.scale)
            result = self._sum(left, right, negative=step.op == "sub")
        elif step.op == "mul":
            product = np.ldexp(_size(a) * _size(b), a_scale + b_scale)
            self.bits = np.maximum(self.bits, _width(product + 2.0 ** (step.right_shift - 1)))
            moved = a.scaled(a_scale + b_scale - step.right_shift - step.scale)
            result = self._product(moved, b)
        else:
            # The nearest quotient is the floor of (2 a + b) / (2 b).
            dividend = np.ldexp(_size(a), a_scale + step.left_shift + 1)
            divisor = np.ldexp(_size(b), b_scale + step.right_shift + 1)
            self.bits = np.maximum(self.bits, _width(dividend + divisor + 1))
            exponent = a_scale + step.left_shift - b_scale - step.right_shift - step.scale
            result = self._division(a.scaled(exponent), b)
        result = self._rounded(result, step) if step.rounds else result
        self._fits(result, step.scale)
        return result

    def _fits(self, register: _Register, scale: int) -> None:
        self.bits = np.maximum(self.bits, _width(np.ldexp(_size(register), scale) + 1))

    def _input(self, step: Step) -> _Register:
        ball = Ball(self.middle, self.radius)
        point = Ball(self.middle, np.zeros(self.shape))
        result = _Register(ball, point, self._one(), self._silence(), self._zero(), self._zero())
        self._fits(result, step.scale)
        return result

    def _constant(self, step: Step) -> _Register:
        value = Ball.exact(step.value * Fraction(2) ** -step.scale, self.shape)
        zero = Ball(self._zero(), self._zero())
        self.bits = np.maximum(self.bits, step.value.bit_length() + 1)
        return _Register(value, value, zero, self._silence(), self._zero(), self._zero())

    def _zero(self) -> Array:
        return np.zeros(self.shape)

    def _one(self) -> Ball:
        return Ball(np.ones(self.shape), self._zero())

    def _silence(self) -> Ball:
        empty = np.zeros((self.roundings, *self.shape))
        return Ball(empty, empty)

    def _enclosed(self, naive: Ball, centre: Ball, slope: Ball) -> Ball:
        """The better of the natural enclosure and the mean-value form."""
        return naive.narrower(centre.widened(slope.magnitude * self.radius))

    def _register(
        self, naive: Ball, centre: Ball, slope: Ball, noise: Ball, rest: Array
    ) -> _Register:
        value = self._enclosed(naive, centre, slope)
        error = (noise.magnitude.sum(axis=0) + rest) * _UP
        return _Register(value, centre, slope, noise, rest, error)

    def _sum(self, a: _Register, b: _Register, *, negative: bool) -> _Register:
        def join(p: Ball, q: Ball) -> Ball:
            return p - q if negative else p + q

        return self._register(
            join(a.value, b.value),
            join(a.centre, b.centre),
            join(a.slope, b.slope),
            join(a.noise, b.noise),
            (a.rest + b.rest) * _UP,
        )

    def _product(self, a: _Register, b: _Register) -> _Register:
        rest = a.value.magnitude * b.rest + b.value.magnitude * a.rest + a.error * b.error
        return self._register(
            a.value * b.value,
            a.centre * b.centre,
            a.slope * b.value + a.value * b.slope,
            a.noise * b.value + b.noise * a.value,
            rest * _UP,
        )

    def _division(self, a: _Register, b: _Register) -> _Register:
        gap = b.value.smallest * (1 - 2.0**-50) - b.error * _UP
        safe = gap > 0
        # (a + ea)/(b + eb) - a/b = (ea - q eb)/b - (ea - q eb) eb / (b (b + eb)).
        naive = a.value / b.value
        quotient = self._enclosed(naive, a.centre / b.centre, (a.slope - naive * b.slope) / b.value)
        slope = (a.slope - quotient * b.slope) / b.value
        noise = (a.noise - b.noise * quotient) / b.value
        size = quotient.magnitude
        bound = a.error + size * b.error
        rest = (a.rest + size * b.rest) / b.value.smallest
        rest = rest + bound * b.error / (b.value.smallest * gap)
        rest = np.where(safe, rest, np.inf)
        return self._register(quotient, a.centre / b.centre, slope, noise, rest * _UP)

    def _rounded(self, register: _Register, step: Step) -> _Register:
        """One rounding to nearest: half a unit of the step's scale."""
        half = 2.0 ** -(step.scale + 1)
        middle, radius = register.noise.middle.copy(), register.noise.radius.copy()
        middle[self.next_rounding] += half
        self.next_rounding += 1
        noise = Ball(middle, radius)
        error = (noise.magnitude.sum(axis=0) + register.rest) * _UP
        return _Register(
            register.value, register.centre, register.slope, noise, register.rest, error
        )


def _size(register: _Register) -> Array:
    """Bound of the register's magnitude as it is computed."""
    return (register.value.magnitude + register.error) * _UP


def _width(size: Array) -> Array:
    """Bits of an integer of this magnitude with its sign; infinite where there is no bound."""
    with np.errstate(all="ignore"):
        return np.where(
            np.isfinite(size), np.floor(np.log2(np.maximum(size, 1.0)) + 1e-9) + 2, np.inf
        )
