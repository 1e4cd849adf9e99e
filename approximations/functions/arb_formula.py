"""Ball arithmetic for formulas: their values on series, at points and on intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import flint
from flint import arb, arb_series

from odp.approximations.functions.arb_elementary import NoEnclosure, Series, coefficients, exact
from odp.approximations.functions.arb_program import BallRun, Zeros, constants
from odp.approximations.functions.ball_precision import ball_precision
from odp.approximations.functions.formula_program import Operation, program

__all__ = ["ArbFormula", "arb_formula", "constant_ball"]

_MOST_ZEROS = 6
_PRECISION = 128
# exp(x) - 1 at 1e-300 needs 1000 bits to show 53.
_PRECISIONS = (96, 384, 1536, 4608)
_ENOUGH_BITS = 55
_DIGIT_PRECISIONS = (192, 768)
_DIGIT_BITS = 140
_DIGIT_RADIUS = 2.0**-160
_LARGEST = 1e300
_TINY = 2.0**-1060


@lru_cache(maxsize=256)
def arb_formula(source: str) -> ArbFormula:
    """The ball evaluator of a formula; made once for each source."""
    from odp.approximations.functions.parsing import parse

    return ArbFormula(parse(source))


def constant_ball(constant: Any) -> Any:
    """A ball around a sympy expression without a variable; NaN if it is not real."""
    with ball_precision(_PRECISION, 1):
        try:
            return constants(program(constant), _PRECISION)[-1]
        except NoEnclosure:
            return arb.nan()


class ArbFormula:
    """A formula, ready to be evaluated in ball arithmetic.

    Args:
        expression: in the variable ``x``, as `parsing.parse` makes it.
    """

    def __init__(self, expression: Any) -> None:
        self._operations = program(expression)
        self._zeros, pole = _common_zeros(self._operations, _candidates(expression))
        if pole:
            # 1/x - 1/sin(x) has no pole at 0, which one quotient shows.
            import sympy

            together = program(sympy.together(expression))
            zeros, pole = _common_zeros(together, _candidates(expression))
            if not pole:
                self._operations, self._zeros = together, zeros
        self._extra = sum(max(orders.values()) for orders in self._zeros.values())

    def __call__(self, x: Series) -> Series:
        """The series of the formula along ``x = m + r t``.

        Args:
            x: an ``arb_series`` whose first two coefficients are m and r, and that is exactly this
                line.

        Raises:
            NoEnclosure: if the ball may touch a pole or a branch point.
        """
        if x[1].is_zero():
            value = self._at(x[0])
            if value is None:
                raise NoEnclosure("the point may be a pole or a branch point")
            return arb_series([value], x.prec)
        if not (self._extra and self._touches_zero(x[0])):
            return self._last(x)
        # Every division by x - c takes a coefficient.
        terms = x.prec
        with ball_precision(flint.ctx.prec, terms + self._extra):
            longer = self._last(arb_series([x[0], x[1]], terms + self._extra))
            return arb_series(coefficients(longer, terms), terms)

    def at(self, points: Sequence[float]) -> list[float]:
        """The values at float64 points to within an ulp; NaN where the formula is not real."""
        results = [math.nan] * len(points)
        left = list(range(len(points)))
        for bits in _PRECISIONS:
            unclear = []
            with ball_precision(bits, 2):
                for index in left:
                    ball = self._at(arb(points[index]))
                    if ball is None or not ball.is_finite():
                        unclear.append(index)
                    elif ball.rel_accuracy_bits() >= _ENOUGH_BITS:
                        results[index] = float(ball)
                    elif ball.abs_upper() < _TINY:
                        results[index] = 0.0
                    else:
                        unclear.append(index)
            left = unclear
        return results

    def digits(self, point: float) -> Any:
        """The value at a point as an mpmath number of 40 digits; None where that is not to be had.

        Unlike mpmath's own functions, balls answer at once where numbers are too large for that.
        """
        import mpmath

        for bits in _DIGIT_PRECISIONS:
            with ball_precision(bits, 2):
                ball = self._at(arb(point))
                if ball is None or not ball.is_finite() or not ball.abs_upper() < _LARGEST:
                    continue
                if ball.rel_accuracy_bits() >= _DIGIT_BITS or ball.rad() < _DIGIT_RADIUS:
                    mantissa, exponent = ball.mid().man_exp()
                    return mpmath.mpf((int(mantissa), int(exponent)))
        return None

    def values(self, lo: float, hi: float) -> Any:
        """A ball around all values on ``[lo, hi]``, which may end in a branch point.

        Raises:
            NoEnclosure: if the values cannot be enclosed.
        """
        results = BallRun(self._operations, self._zeros, arb(lo).union(arb(hi)), (lo, hi)).results()
        if not results[-1].is_finite():
            raise NoEnclosure(f"the values on [{lo}, {hi}] are not finite")
        return results[-1]

    def _at(self, point: Any) -> Any:
        try:
            return BallRun(self._operations, self._zeros, point).results()[-1]
        except NoEnclosure:
            if not self._touches_zero(point):
                return None
        try:
            return self(arb_series([point, arb(1)], 2))[0]
        except NoEnclosure:
            return None

    def _last(self, x: Series) -> Series:
        value = BallRun(self._operations, self._zeros, x).results()[-1]
        return value if isinstance(value, arb_series) else arb_series([value], x.prec)

    def _touches_zero(self, ball: Any) -> bool:
        return any(ball.contains(exact(c)) for orders in self._zeros.values() for c in orders)


def _candidates(expression: Any) -> list[Fraction]:
    """Where numerators and denominators may vanish together: 0, 1, -1 and rational roots."""
    import sympy

    x = next(iter(expression.free_symbols))
    found = {Fraction(0), Fraction(1), Fraction(-1)}
    for part in sympy.preorder_traversal(expression):
        if part.is_Add and part.is_polynomial(x) and sympy.degree(part, x) <= _MOST_ZEROS:
            roots = sympy.Poly(part, x).ground_roots()
            found |= {Fraction(int(r.p), int(r.q)) for r in roots if r.is_Rational}
    return sorted(found)


def _common_zeros(
    operations: tuple[Operation, ...], candidates: list[Fraction]
) -> tuple[Zeros, bool]:
    """For each quotient its common zeros with their orders; whether a pole is left.

    That a coefficient vanishes is proven by exact arithmetic: its ball is the number 0 itself.
    """
    zeros: Zeros = {}
    pole = False
    terms = 2 * _MOST_ZEROS
    with ball_precision(_PRECISION, terms):
        for index, operation in enumerate(operations):
            if operation.kind != "quotient" or not operations[operation.operands[1]].varies:
                continue
            for zero in candidates:
                point = arb_series([exact(zero), arb(1)], terms)
                if not point[0].is_exact():
                    continue
                try:
                    values = BallRun(operations, zeros, point).results(index)
                except NoEnclosure:
                    continue
                above, below = (_order(values[i]) for i in operation.operands)
                if below and above >= below:
                    zeros.setdefault(index, {})[zero] = below
                pole = pole or above < below
    return zeros, pole


def _order(value: Any) -> int:
    """How many leading coefficients are exactly zero."""
    if not isinstance(value, arb_series):
        return 0
    order = 0
    while order < min(_MOST_ZEROS, value.prec) and value[order].is_zero():
        order += 1
    return order
