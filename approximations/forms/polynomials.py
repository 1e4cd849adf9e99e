"""Polynomials as expressions: coefficients and forms of evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import ArrayLike, NDArray

from odp.approximations.arithmetic import FLOAT32, CoefficientRangeError
from odp.approximations.expression import Expression, constant

__all__ = [
    "Variable",
    "chebyshev_nodes",
    "clenshaw",
    "coefficient",
    "full_length",
    "horner",
    "interpolate",
]

Array = NDArray[np.float64]


def coefficient(value: float | Fraction) -> Expression:
    """The constant `value` as it is; the search rounds it for the arithmetic of the target.

    Raises:
        CoefficientRangeError: if it is not finite.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise CoefficientRangeError(f"{value:g} cannot be a coefficient")
    return constant(value)


def horner(coefficients: Sequence[float | Fraction], t: Expression) -> Expression:
    """The polynomial with ascending `coefficients` in `t` by Horner's rule.

    Costs one multiplication per degree, one less where the leading coefficient is 1.
    """
    result = coefficient(coefficients[-1])
    for following in reversed(coefficients[:-1]):
        result = result * t + coefficient(following)
    return result


def clenshaw(coefficients: Sequence[float | Fraction], t: Expression) -> Expression:
    """The Chebyshev series with these `coefficients` in `t` by Clenshaw's recurrence.

    As many multiplications as Horner and twice the additions, but the coefficients stay small:
    in float32 the monomial basis on [-1, 1] loses a digit about every third degree.
    """
    if len(coefficients) == 1:
        return coefficient(coefficients[0])
    double = t + t
    later = constant(0)
    current = coefficient(coefficients[-1])
    for following in reversed(coefficients[1:-1]):
        current, later = double * current - later + coefficient(following), current
    return t * current - later + coefficient(coefficients[0])


@lru_cache(maxsize=128)
def chebyshev_nodes(count: int) -> Array:
    """The `count` Chebyshev points of the first kind on [-1, 1]."""
    nodes: Array = np.cos((2 * np.arange(count) + 1) * (math.pi / (2 * count)))
    return nodes


@lru_cache(maxsize=128)
def _cosine_transform(count: int) -> Array:
    angles = (2 * np.arange(count) + 1) * (math.pi / (2 * count))
    matrix = np.cos(np.outer(np.arange(count), angles)) * (2.0 / count)
    matrix[0] /= 2
    return matrix


def interpolate(values: Array) -> Array:
    """Chebyshev coefficients of the interpolant of `values` at `chebyshev_nodes(len(values))`."""
    return _cosine_transform(len(values)) @ values


@dataclass(frozen=True)
class Variable:
    """The variable of a polynomial, ``x`` or ``x * x``, and the range it has on the domain.

    Attributes:
        base: the variable as an expression in x.
        lo: smallest value of `base`.
        hi: largest value of `base`.
    """

    base: Expression
    lo: float
    hi: float

    def points(self, t: Array) -> Array:
        """The values of `base` at normalised points `t` in [-1, 1]."""
        return np.clip((self.lo + self.hi) / 2 + (self.hi - self.lo) / 2 * t, self.lo, self.hi)

    def normalised(self) -> tuple[Expression, tuple[float, float]]:
        """An affine function of `base` to about [-1, 1], and the exact range that it has.

        Slope and shift are rounded to float32, so the range differs from [-1, 1] by a rounding.
        A multiplication by a power of two is not needed in floating point where the range is
        symmetric: the coefficients absorb it without another rounding.
        """
        slope = 2.0 / (self.hi - self.lo)
        shift = -(self.lo + self.hi) / (self.hi - self.lo)
        a, b = (constant(FLOAT32.nearest(coefficient(c).value)) for c in (slope, shift))
        bounds = (float(a.value * Fraction(x) + b.value) for x in (self.lo, self.hi))
        lo, hi = bounds
        return self.base * a + b, (lo, hi)

    def monomials(self, coefficients: Array) -> Array:
        """Ascending coefficients in `base` of a Chebyshev series in the normalised variable."""
        series = Chebyshev(coefficients, domain=[self.lo, self.hi])
        return full_length(series.convert(kind=Polynomial).coef, len(coefficients))

    def raw(self, coefficients: Array) -> Expression:
        """The Chebyshev series as Horner in `base` itself: no multiplication to normalise."""
        return horner(self.monomials(coefficients).tolist(), self.base)

    def horner(self, coefficients: Array) -> Expression:
        """The Chebyshev series as Horner in the normalised variable."""
        t, bounds = self.normalised()
        series = Chebyshev(coefficients, domain=bounds).convert(kind=Polynomial)
        return horner(full_length(series.coef, len(coefficients)).tolist(), t)

    def clenshaw(self, coefficients: Array) -> Expression:
        """The Chebyshev series by Clenshaw's recurrence in the normalised variable."""
        t, bounds = self.normalised()
        series = Chebyshev(coefficients, domain=bounds).convert(kind=Chebyshev, domain=[-1, 1])
        return clenshaw(full_length(series.coef, len(coefficients)).tolist(), t)


def full_length(coefficients: ArrayLike, count: int) -> Array:
    """Coefficients with the trailing zeros that numpy.polynomial drops put back."""
    given = np.asarray(coefficients, dtype=np.float64)
    return np.concatenate([given, np.zeros(count - len(given))])
