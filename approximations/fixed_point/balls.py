"""Balls of float64 arrays: midpoints and radii that enclose every real value they stand for.

Each operation adds to the radius what its own float64 rounding may cost, so enclosures stay proven
(S. M. Rump, Fast and parallel interval arithmetic, BIT 39, 1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ball"]

Array = NDArray[np.float64]

# The midpoint is rounded once, 2^-53 of its size; a radius is computed with at most 8 roundings.
_MIDPOINT = 2.0**-52
_RADIUS = 1 + 2.0**-48
_TINY = 1e-290


@dataclass(frozen=True)
class Ball:
    """Real numbers within `radius` of `middle`, elementwise; an infinite radius says nothing.

    Attributes:
        middle: midpoints, float64.
        radius: radii, float64 of the same shape.
    """

    middle: Array
    radius: Array

    @staticmethod
    def exact(value: Fraction, shape: tuple[int, ...]) -> Ball:
        """A rational number in every element."""
        middle = float(value)
        error = abs(value - Fraction(middle))
        radius = 0.0 if error == 0 else abs(middle) * _MIDPOINT + _TINY
        return Ball(np.full(shape, middle), np.full(shape, radius))

    @property
    def magnitude(self) -> Array:
        """Upper bound of the absolute values."""
        return (np.abs(self.middle) + self.radius) * _RADIUS

    @property
    def smallest(self) -> Array:
        """Lower bound of the absolute values; 0 where the ball may contain 0."""
        gap = np.abs(self.middle) * (1 - 2.0**-51) - self.radius * _RADIUS
        return np.where(gap > 0, gap, 0.0)

    def __add__(self, other: Ball) -> Ball:
        return _rounded(self.middle + other.middle, self.radius + other.radius)

    def __sub__(self, other: Ball) -> Ball:
        return _rounded(self.middle - other.middle, self.radius + other.radius)

    def __neg__(self) -> Ball:
        return Ball(-self.middle, self.radius)

    def __mul__(self, other: Ball) -> Ball:
        a, b = np.abs(self.middle), np.abs(other.middle)
        radius = a * other.radius + (b + other.radius) * self.radius
        return _rounded(self.middle * other.middle, radius)

    def __truediv__(self, other: Ball) -> Ball:
        gap = other.smallest
        with np.errstate(all="ignore"):
            middle = self.middle / other.middle
            radius = (self.radius + np.abs(middle) * other.radius) / gap
            radius = np.where(gap > 0, radius + np.abs(middle) * 2 * _MIDPOINT, np.inf)
        return _rounded(np.where(gap > 0, middle, 0.0), radius)

    def widened(self, radius: Array) -> Ball:
        """The same midpoints with larger radii."""
        return _rounded(self.middle, self.radius + radius)

    def narrower(self, other: Ball) -> Ball:
        """Elementwise the smaller of two balls for the same values."""
        first = self.radius <= other.radius
        return Ball(
            np.where(first, self.middle, other.middle), np.where(first, self.radius, other.radius)
        )

    def scaled(self, exponent: int) -> Ball:
        """Times ``2^exponent``, exactly."""
        return Ball(np.ldexp(self.middle, exponent), np.ldexp(self.radius, exponent))


def _rounded(middle: Array, radius: Array) -> Ball:
    grown = radius * _RADIUS + np.abs(middle) * _MIDPOINT + _TINY
    nothing = ~(np.isfinite(middle) & np.isfinite(grown))
    if nothing.any():
        return Ball(np.where(nothing, 0.0, middle), np.where(nothing, np.inf, grown))
    return Ball(middle, grown)
