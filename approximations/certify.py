"""Proven error bounds: Taylor models in ball arithmetic with adaptive bisection.

On a box ``m + r t``, -1 <= t <= 1, the error ``expression - function`` is its Taylor polynomial in
t, whose range the Bernstein coefficients enclose, plus a remainder that the last series coefficient
over the whole box encloses.  Boxes whose bound is above the goal are halved.  No box may contain a
zero of a divisor, so a finished proof is also the proof that no divisor vanishes on the domain.

Source: S. Chevillard, J. Harrison, M. Joldes, C. Lauter, Efficient and accurate computation of
upper bounds of approximation errors, Theoretical Computer Science 412 (2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.expression import Expression
from odp.approximations.function import Function
from odp.approximations.interval import Interval

__all__ = ["Certificate", "certify"]

_ORDER = 11
_BERNSTEIN_DEGREE = 16
_TOLERANCE = 0.01
# 0.1 to 0.2 s: a box of an expression of 20 operations takes 0.1 to 0.25 ms.
_WORK = 40_000
# Rounding of the float64 part: the sum of at most 17 products, far below this share of their size.
_ROUNDING = 2.0**-44
_TINY = 1e-300


@dataclass(frozen=True)
class Certificate:
    """What was proven of an expression on a domain: the bounds, and that no divisor vanishes.

    Attributes:
        absolute: upper bound of |expression - function|.
        relative: upper bound of |expression / function - 1|; None if not asked for.
        boxes: number of Taylor models that the proof took.
    """

    absolute: float
    relative: float | None
    boxes: int


def certify(
    expression: Expression,
    function: Function,
    domain: Interval,
    *,
    absolute: float,
    relative: float | None = None,
    limit: float = math.inf,
    work: int = _WORK,
) -> Certificate | None:
    """Prove upper bounds of the error of an expression on a domain, in real arithmetic.

    Args:
        expression: in the variable ``x``; its constants are taken exactly.
        function: a registered function, or a power.
        domain: finite, within the function's natural domain.
        absolute: largest absolute error seen: the goal is a bound within 1 % of it.  A wrong value
            costs time or sharpness, never correctness.
        relative: likewise relative; None if no relative bound is wanted.
        limit: a bound on the error asked for (the relative one if `relative` is given and
            smaller) to stay below where the largest error seen does.
        work: box evaluations times operations after which to give up.

    Returns:
        The proven bounds, or None: python-flint is not installed, the function has no ball
        evaluator, a divisor vanishes, or the work was used up.  None says nothing about the error.

    >>> from odp.approximations import approximate
    >>> a = approximate("exp", (-1, 0), error=1e-3)
    >>> proof = certify(a.expression, a.function, a.domain, absolute=a.absolute_error)
    >>> proof is None or proof.absolute <= 1.02 * a.absolute_error
    True
    """
    try:
        import flint
    except ImportError:
        return None
    from odp.approximations.arb_evaluation import PRECISION, arb_evaluator

    evaluator = arb_evaluator(function)
    if evaluator is None or not math.isfinite(absolute):
        return None
    # python-flint's precision and series length are global.
    precision, cap = flint.ctx.prec, flint.ctx.cap
    flint.ctx.prec, flint.ctx.cap = PRECISION, _ORDER + 1
    try:
        proof = _Proof(expression, function, evaluator, absolute, relative, limit)
        return proof.run(domain, work)
    finally:
        flint.ctx.prec, flint.ctx.cap = precision, cap


def _goal(measured: float, limit: float) -> float:
    """A bound to reach: 1 % above what was seen, but within the limit if that is possible."""
    # An exact expression differs from its function by float64's rounding only.
    goal = max(measured, 2.0**-50) * (1 + _TOLERANCE)
    return limit if measured * (1 + 1e-4) <= limit < goal else goal


def _raised(goal: float, error: Any) -> float:
    """The goal, or one above it if this error at a point shows that it cannot be reached."""
    seen = float(error.abs_lower())
    return seen * (1 + _TOLERANCE) if seen > goal else goal


class _Proof:
    """Bisection of one domain."""

    def __init__(
        self,
        expression: Expression,
        function: Function,
        evaluator: Callable[[Any], Any],
        absolute: float,
        relative: float | None,
        limit: float,
    ) -> None:
        from odp.approximations.arb_evaluation import ArbExpression

        self.expression, self.function, self.evaluator = (
            ArbExpression(expression),
            function,
            evaluator,
        )
        self.cost = len(expression.nodes()) + 20
        self.absolute_goal = _goal(absolute, limit)
        self.relative_goal = None if relative is None else _goal(relative, limit)
        self.through_zero = relative is not None and function.parity == "odd"

    def run(self, domain: Interval, work: int) -> Certificate | None:
        """Halve boxes until all are within the goals, or the work is used up."""
        boxes = [(domain.lo, domain.hi)]
        if self.through_zero and domain.lo < 0 < domain.hi:
            # The quotient by an odd function is expanded at 0 itself.
            rho = min(-domain.lo, domain.hi)
            boxes = [(-rho, rho)]
            boxes += [(domain.lo, -rho)] if -domain.lo > rho else []
            boxes += [(rho, domain.hi)] if domain.hi > rho else []
        absolute = relative = 0.0
        count = 0
        while boxes:
            lo, hi = boxes.pop()
            count += 1
            if count * self.cost > work:
                return None
            bounds = self._bounds(lo, hi)
            if bounds is not None and bounds[0] <= self.absolute_goal:
                if self.relative_goal is None:
                    absolute = max(absolute, bounds[0])
                    continue
                if bounds[1] <= self.relative_goal:
                    absolute, relative = max(absolute, bounds[0]), max(relative, bounds[1])
                    continue
            parts = _split(lo, hi, around_zero=self.through_zero)
            if not parts:
                return None
            boxes.extend(parts)
        return Certificate(absolute, None if self.relative_goal is None else relative, count)

    def _bounds(self, lo: float, hi: float) -> tuple[float, float] | None:
        """Bounds of the absolute and relative error on a box; None where nothing is proven."""
        from flint import arb, arb_series

        from odp.approximations.arb_evaluation import NoEnclosure

        middle = lo + (hi - lo) / 2
        radius = math.nextafter(max(hi - middle, middle - lo), math.inf)
        try:
            whole = arb_series([arb(middle, radius), radius], _ORDER + 1)
            value, exact = self.expression(whole), self.evaluator(whole)
            error = value - exact
            point = arb_series([arb(middle), radius], _ORDER)
            value_at, exact_at = self.expression(point), self.evaluator(point)
            error_at = value_at - exact_at
            bound = _range(error_at, error, 0)
            if bound > self.absolute_goal:
                self.absolute_goal = _raised(self.absolute_goal, error_at[0])
            if self.relative_goal is None or not math.isfinite(bound):
                return bound, math.inf
            if self.through_zero and middle == 0.0:
                return bound, self._at_zero(error_at, error, exact_at, exact)
            if exact[0].contains(0):
                return bound, math.inf
            ratio = error_at / exact_at
            relative = _range(ratio, error / exact, 0)
            if relative > self.relative_goal:
                self.relative_goal = _raised(self.relative_goal, ratio[0])
            return bound, relative
        except (NoEnclosure, ValueError, ZeroDivisionError):
            return self._without_series(lo, hi)

    def _at_zero(self, error_at: Any, error: Any, exact_at: Any, exact: Any) -> float:
        """The relative error around a common zero at 0: both series divided by x."""
        if not (error_at[0].is_zero() and exact_at[0].is_zero()):
            return math.inf
        numerator = _range(error_at, error, 1)
        slope = exact_at[1].abs_lower()
        variation = sum(
            (exact_at[k].abs_upper() for k in range(2, _ORDER)), exact[_ORDER].abs_upper()
        )
        smallest = math.nextafter(float((slope - variation).lower()), -math.inf)
        return math.nextafter(numerator / smallest, math.inf) if smallest > 0 else math.inf

    def _without_series(self, lo: float, hi: float) -> tuple[float, float] | None:
        """Next to a branch point at the end of the natural domain: values only."""
        from flint import arb

        from odp.approximations.arb_evaluation import NoEnclosure, enclosure

        try:
            exact = enclosure(self.function, lo, hi)
            value = self.expression(arb(lo).union(arb(hi)))
        except NoEnclosure:
            return None
        error = value - exact
        bound = _up(error.abs_upper())
        if self.relative_goal is None or exact.contains(0):
            return bound, math.inf
        return bound, _up((error / exact).abs_upper())


def _split(lo: float, hi: float, *, around_zero: bool) -> list[tuple[float, float]]:
    """Halves of a box, by the geometric mean where its ends are far apart; [] if there are none."""
    if around_zero and lo == -hi:
        rho = hi / 2
        return [(lo, -rho), (rho, hi), (-rho, rho)] if rho > _TINY else []
    if lo > 0 and hi > 4 * lo:
        middle = math.sqrt(lo) * math.sqrt(hi)
    elif hi < 0 and lo < 4 * hi:
        middle = -math.sqrt(-lo) * math.sqrt(-hi)
    else:
        middle = lo + (hi - lo) / 2
    return [(lo, middle), (middle, hi)] if lo < middle < hi else []


@lru_cache(maxsize=8)
def _bernstein(terms: int, degree: int) -> NDArray[np.float64]:
    """Bernstein coefficients on [-1, 1] of the monomials t^0 ... t^(terms - 1)."""
    from fractions import Fraction

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
    balls = [at[k] for k in range(first, _ORDER)]
    middle = np.array([float(ball) for ball in balls])
    # A midpoint is rounded to float64 once; its relative error is within _ROUNDING.
    radius = math.fsum(float(ball.rad()) for ball in balls)
    size = float(np.abs(middle).sum())
    largest = float(np.abs(_bernstein(len(balls), _BERNSTEIN_DEGREE) @ middle).max())
    bound = largest + radius + _up(over[_ORDER].abs_upper())
    bound = bound * (1 + _ROUNDING) + size * _ROUNDING + _TINY
    return bound if math.isfinite(bound) else math.inf


def _up(ball: Any) -> float:
    value = float(ball.upper())
    return math.nextafter(value, math.inf) if math.isfinite(value) else math.inf
