"""Taylor models of many boxes at once: float64 polynomials with rigorous error radii.

On the box ``m + r t``, -1 <= t <= 1, a model is a polynomial in t and a radius: the quantity that
it stands for differs from the polynomial by at most that, for all t.  Every operation adds to the
radius what it drops of the polynomial and what float64 may have rounded away, so the radius needs
no derivative over the box and no change of numpy's rounding mode.  One numpy operation works on the
same coefficient of all boxes.

Sources: K. Makino, M. Berz, Taylor models and other validated functional inclusion methods,
Int. J. Pure Appl. Math. 4 (2003); M. Joldes, Rigorous polynomial approximations and applications,
thesis, ENS Lyon (2011); N. Higham, Accuracy and stability of numerical algorithms, section 3.1
(the sum of n products has a relative error of at most n u / (1 - n u) of the sum of magnitudes).
"""

from __future__ import annotations

import math
import operator
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["RAISE", "TERMS", "UNIT_ROUNDOFF", "ModelAlgebra", "TaylorModels"]

Array = NDArray[np.float64]

TERMS = 14
"""Coefficients that a model keeps."""

UNIT_ROUNDOFF = 2.0**-53
"""Largest relative error of one float64 operation."""

RAISE = 1 + 2.0**-42
"""Makes a computed sum or product of a few hundred positive numbers an upper bound."""

# Covers all underflow: a product of numbers below 1e-154 is off by at most 2^-1075.
_UNDERFLOW = 1e-290
_STEP = 2.0**-4
_ABSCISSAE = np.linspace(-1.0, 1.0, 33)


class TaylorModels:
    """One Taylor model for each box.

    Attributes:
        coefficients: of t^k in row k, one column for each box (or one column for all).
        truncation: radius from dropped terms and remainders, one for each box.
        rounding: radius from float64's rounding, one for each box; the model's radius is the sum.
    """

    def __init__(self, coefficients: Array, truncation: Array, rounding: Array) -> None:
        self.coefficients = coefficients
        self.truncation = truncation
        self.rounding = rounding

    @staticmethod
    def constant(value: Fraction) -> TaylorModels:
        """An exact constant, on any number of boxes."""
        try:
            nearest = float(value)
        except OverflowError:
            return TaylorModels(np.array([[math.inf]]), np.zeros(1), np.array([math.inf]))
        distance = float(abs(Fraction(nearest) - value)) * RAISE
        if nearest != value:
            distance += _UNDERFLOW
        return TaylorModels(np.array([[nearest]]), np.zeros(1), np.array([distance]))

    @staticmethod
    def variable(middle: Array, radius: Array) -> TaylorModels:
        """The variable: ``middle + radius t`` exactly."""
        return TaylorModels(np.stack([middle, radius]), np.zeros(1), np.zeros(1))

    @cached_property
    def tails(self) -> Array:
        """Sums of the magnitudes of the coefficients from each row on."""
        return np.cumsum(np.abs(self.coefficients[::-1]), axis=0)[::-1]

    @property
    def norm(self) -> Array:
        """Sum of the magnitudes of the coefficients: a bound of the polynomial."""
        return np.asarray(self.tails[0])

    @property
    def radius(self) -> Array:
        """Bound of the distance between the polynomial and what it stands for."""
        return (self.truncation + self.rounding) * RAISE

    def __add__(self, other: TaylorModels) -> TaylorModels:
        return self._sum(other, 1.0)

    def __sub__(self, other: TaylorModels) -> TaylorModels:
        return self._sum(other, -1.0)

    def _sum(self, other: TaylorModels, sign: float) -> TaylorModels:
        a, b = self.coefficients, other.coefficients
        rows = max(len(a), len(b))
        result = np.zeros((rows, max(a.shape[1], b.shape[1])))
        result[: len(a)] = a
        if sign > 0:
            result[: len(b)] += b
        else:
            result[: len(b)] -= b
        shared = min(len(a), len(b))
        lost = np.abs(result[:shared]).sum(axis=0) * UNIT_ROUNDOFF
        rounding = (self.rounding + other.rounding + lost) * RAISE
        return TaylorModels(result, (self.truncation + other.truncation) * RAISE, rounding)

    def __mul__(self, other: TaylorModels) -> TaylorModels:
        product, dropped, lost = _product(self, other)
        # (a + e)(b + d) = a b + a d + b e + e d
        a, b = self.norm + self.radius, other.norm
        truncation = dropped + a * other.truncation + b * self.truncation
        rounding = lost + a * other.rounding + b * self.rounding
        return TaylorModels(product, truncation * RAISE, rounding * RAISE + _UNDERFLOW)

    def __truediv__(self, other: TaylorModels) -> TaylorModels:
        inverse = other.reciprocal()
        c = self.coefficients
        one = c.shape == (1, 1) and c[0, 0] == 1.0 and not self.radius.any()
        return inverse if one else self * inverse

    def reciprocal(self) -> TaylorModels:
        """The models of 1 / self; the radius is infinite where self may vanish.

        Any polynomial g may be tried: ``self g = 1 + e`` with ``|e| < 1`` proves both that self has
        no zero on the box and that ``|1/self - g| <= |g| |e| / (1 - |e|)``.
        """
        b = self.coefficients
        rows = 1 if len(b) == 1 else TERMS
        g = np.empty((rows, b.shape[1]))
        g[0] = 1.0 / b[0]
        scaled = b[1:] * -g[0]
        for k in range(1, rows):
            terms = min(k, len(b) - 1)
            g[k] = np.einsum("jb,jb->b", scaled[:terms], g[k - terms : k][::-1])
        zero = np.zeros(1)
        inverse = TaylorModels(g, zero, zero)
        product, dropped, lost = _product(self, inverse)
        product[0] -= 1.0
        lost = lost + np.abs(product).sum(axis=0) + UNIT_ROUNDOFF
        norm = inverse.norm
        truncation = dropped + self.truncation * norm
        rounding = (lost + self.rounding * norm) * RAISE + _UNDERFLOW
        # RAISE**2 covers the subtraction, which is exact up to 2^-53 where it matters.
        factor = norm / (1 - (truncation + rounding) * RAISE**2) * RAISE**2
        proven = (factor > 0) & np.isfinite(factor)
        factor = np.where(proven, factor, math.inf)
        return TaylorModels(
            g,
            np.where(proven, truncation * factor, math.inf),
            np.where(proven, rounding * factor, math.inf),
        )

    def values(self) -> Array:
        """The polynomials at 33 equidistant t: within `slack` of the polynomial between them."""
        return _abscissa_powers(len(self.coefficients)) @ self.coefficients

    def slack(self) -> Array:
        """How far the model may leave the range of two neighbouring `values` between them.

        A function leaves its chord by at most h^2/8 times its largest second derivative.
        """
        rows = len(self.coefficients)
        weights = np.array([k * (k - 1) * _STEP**2 / 8 + 64 * UNIT_ROUNDOFF for k in range(rows)])
        bend = weights @ np.abs(self.coefficients)
        return np.asarray((bend + self.truncation + self.rounding) * RAISE)


def _product(a: TaylorModels, b: TaylorModels) -> tuple[Array, Array, Array]:
    """The product of two polynomials, a bound of the terms it lacks, and one of its rounding."""
    if len(a.coefficients) > len(b.coefficients):
        a, b = b, a
    p, q = a.coefficients, b.coefficients
    rows = min(len(p) + len(q) - 1, TERMS)
    result = np.zeros((rows, max(p.shape[1], q.shape[1])))
    dropped = np.zeros(1)
    for j in range(len(p)):
        count = min(len(q), rows - j)
        result[j : j + count] += p[j] * q[:count]
        if count < len(q):
            dropped = dropped + np.abs(p[j]) * b.tails[count]
    lost = a.norm * b.norm * ((len(p) + 2) * UNIT_ROUNDOFF)
    return result, dropped, lost


@lru_cache(maxsize=TERMS)
def _abscissa_powers(rows: int) -> Array:
    return np.stack([_ABSCISSAE**k for k in range(rows)], axis=1)


class ModelAlgebra:
    """Evaluates expressions on Taylor models: ``expression.emit(ModelAlgebra(), x=models)``."""

    constant = staticmethod(TaylorModels.constant)
    add = staticmethod(operator.add)
    sub = staticmethod(operator.sub)
    mul = staticmethod(operator.mul)
    div = staticmethod(operator.truediv)
