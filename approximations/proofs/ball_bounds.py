"""Bounds of the error of an expression on one box, in ball arithmetic of 128 bits.

For the boxes that float64 cannot decide: where the error is lost in its rounding, around a common
zero of expression and function, and next to a branch point.  The error is its Taylor polynomial on
the box, whose range its Bernstein coefficients enclose, plus a remainder that the last coefficient
of the series over the whole box encloses.

Source: S. Chevillard, J. Harrison, M. Joldes, C. Lauter, Efficient and accurate computation of
upper bounds of approximation errors, Theoretical Computer Science 412 (2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odp.approximations.expression import Expression
from odp.approximations.functions.function import Function

__all__ = ["ORDER", "BallBounds", "BoxErrors", "PointErrors"]

ORDER = 11
"""Degree at which a series of errors is cut off."""

_BERNSTEIN_DEGREE = 16
# Rounding of the float64 part: the sum of at most 17 products, far below this share of their size.
_ROUNDING = 2.0**-44
_TINY = 1e-300


class PointErrors(NamedTuple):
    """Lower bounds of the errors at a point; relative 0 where the function may vanish."""

    absolute: float
    relative: float


class BoxErrors(NamedTuple):
    """The errors on a box; what could not be proven is infinite, or 0 for a lower bound.

    Attributes:
        absolute: upper bound of the absolute error.
        relative: upper bound of the relative error.
        smallest: lower bound of the function's magnitude.
        middle: lower bounds of the errors in the middle.
    """

    absolute: float
    relative: float
    smallest: float
    middle: PointErrors


_NOTHING = PointErrors(0.0, 0.0)


class BallBounds:
    """The errors of an expression on boxes, one at a time.

    Args:
        expression: in the variable ``x``.
        function: what it stands for.
        evaluator: the function on series.
        relative: whether relative errors are wanted.
    """

    def __init__(
        self,
        expression: Expression,
        function: Function,
        evaluator: Callable[[Any], Any],
        *,
        relative: bool,
    ) -> None:
        from odp.approximations.proofs.arb_evaluation import ArbExpression

        self.expression, self.function, self.evaluator = (
            ArbExpression(expression),
            function,
            evaluator,
        )
        self.relative = relative

    def __call__(self, lo: float, hi: float) -> BoxErrors:
        """The errors on a box; relative ones are infinite unless they were wanted."""
        from flint import arb, arb_series

        from odp.approximations.functions.arb_elementary import NoEnclosure, coefficients

        middle = lo + (hi - lo) / 2
        radius = math.nextafter(max(hi - middle, middle - lo), math.inf)
        try:
            whole = arb_series([arb(middle, radius), radius], ORDER + 1)
            exact = self.evaluator(whole)
            if not coefficients(exact, ORDER + 1)[-1].is_finite():
                return self._without_series(lo, hi)
            error = self.expression(whole) - exact
            point = arb_series([arb(middle), radius], ORDER)
            exact_at = self.evaluator(point)
            error_at = self.expression(point) - exact_at
            bound = _range(error_at, error, 0)
            smallest = _down(exact[0].abs_lower())
            seen = PointErrors(_down(error_at[0].abs_lower()), 0.0)
            if not self.relative or not math.isfinite(bound):
                return BoxErrors(bound, math.inf, smallest, seen)
            if middle == 0.0 and self.function.parity == "odd":
                relative, least = _at_zero(error_at, error, exact_at, exact)
                return BoxErrors(bound, relative, 0.0, PointErrors(seen.absolute, least))
            if exact[0].contains(0):
                return BoxErrors(bound, math.inf, 0.0, seen)
            ratio = error_at / exact_at
            seen = PointErrors(seen.absolute, _down(ratio[0].abs_lower()))
            return BoxErrors(bound, _range(ratio, error / exact, 0), smallest, seen)
        except (NoEnclosure, ValueError, ZeroDivisionError):
            return self._without_series(lo, hi)

    def at(self, x: float) -> PointErrors:
        """The errors at a point: lower bounds that are sharp."""
        from flint import arb, arb_series

        from odp.approximations.functions.arb_elementary import NoEnclosure

        try:
            exact = self.evaluator(arb_series([arb(x)], 1))[0]
            error = self.expression(arb(x)) - exact
        except (NoEnclosure, ValueError, ZeroDivisionError):
            return _NOTHING
        if not error.is_finite():
            return _NOTHING
        relative = 0.0 if exact.contains(0) else _down((error / exact).abs_lower())
        return PointErrors(_down(error.abs_lower()), relative)

    def at_most(self, x: float) -> float:
        """Upper bound of the absolute error at a point; infinite where a divisor vanishes there."""
        from flint import arb, arb_series

        from odp.approximations.functions.arb_elementary import NoEnclosure

        try:
            exact = self.evaluator(arb_series([arb(x)], 1))[0]
            return _up((self.expression(arb(x)) - exact).abs_upper())
        except (NoEnclosure, ValueError, ZeroDivisionError):
            return math.inf

    def _without_series(self, lo: float, hi: float) -> BoxErrors:
        """Next to a branch point at the end of the natural domain: values only."""
        from flint import arb

        from odp.approximations.functions.arb_elementary import NoEnclosure
        from odp.approximations.functions.arb_functions import enclosure

        try:
            exact = enclosure(self.function, lo, hi)
            value = self.expression(arb(lo).union(arb(hi)))
        except NoEnclosure:
            return BoxErrors(math.inf, math.inf, 0.0, _NOTHING)
        error = value - exact
        bound = _up(error.abs_upper())
        if not self.relative or exact.contains(0):
            return BoxErrors(bound, math.inf, _down(exact.abs_lower()), _NOTHING)
        relative = _up((error / exact).abs_upper())
        return BoxErrors(bound, relative, _down(exact.abs_lower()), _NOTHING)


def _at_zero(error_at: Any, error: Any, exact_at: Any, exact: Any) -> tuple[float, float]:
    """The relative error around a common zero at 0, both series divided by x: bounded and at 0."""
    if not (error_at[0].is_zero() and exact_at[0].is_zero()):
        return math.inf, 0.0
    numerator = _range(error_at, error, 1)
    slope = exact_at[1].abs_lower()
    variation = sum((exact_at[k].abs_upper() for k in range(2, ORDER)), exact[ORDER].abs_upper())
    smallest = _down(slope - variation)
    if smallest <= 0:
        return math.inf, 0.0
    upper = math.nextafter(numerator / smallest, math.inf)
    return upper, _down((error_at[1] / exact_at[1]).abs_lower())


@lru_cache(maxsize=8)
def _bernstein(terms: int, degree: int) -> NDArray[np.float64]:
    """Bernstein coefficients on [-1, 1] of the monomials t^0 ... t^(terms - 1)."""
    # t = 2 s - 1; s^j has the Bernstein coefficients C(i, j)/C(degree, j).
    matrix = np.zeros((degree + 1, terms))
    for k in range(terms):
        for i in range(degree + 1):
            total = sum(
                Fraction(
                    math.comb(k, j) * 2**j * (-1) ** (k - j) * math.comb(i, j), math.comb(degree, j)
                )
                for j in range(k + 1)
            )
            matrix[i, k] = float(total)
    return matrix


def _range(at: Any, over: Any, first: int) -> float:
    """Upper bound of |sum of at[k] t^(k - first)| plus the remainder, for |t| <= 1."""
    from odp.approximations.functions.arb_elementary import coefficients

    balls = coefficients(at, ORDER)[first:]
    remainder = coefficients(over, ORDER + 1)[-1]
    middle = np.array([float(ball) for ball in balls])
    # A midpoint is rounded to float64 once; its relative error is within _ROUNDING.
    radius = math.fsum(float(ball.rad()) for ball in balls)
    size = float(np.abs(middle).sum())
    largest = float(np.abs(_bernstein(len(balls), _BERNSTEIN_DEGREE) @ middle).max())
    bound = largest + radius + _up(remainder.abs_upper())
    bound = bound * (1 + _ROUNDING) + size * _ROUNDING + _TINY
    return bound if math.isfinite(bound) else math.inf


def _up(ball: Any) -> float:
    value = float(ball.upper())
    return math.nextafter(value, math.inf) if math.isfinite(value) else math.inf


def _down(ball: Any) -> float:
    value = float(ball.lower())
    return max(math.nextafter(value, -math.inf), 0.0) if math.isfinite(value) else 0.0
