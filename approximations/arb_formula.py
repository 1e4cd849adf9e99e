"""Ball arithmetic for formulas: their values on series, at points and on intervals.

A quotient of two series with a common zero c (sin(x)/x at 0) is taken after both have been divided
by ``x - c``: the coefficients of ``g(x)/(x - c)`` on an interval that contains c lie in the next
coefficients of g there, because ``g(c + s)/s`` is the mean of ``g'(c + s t)`` over 0 < t < 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from typing import Any

import flint
from flint import arb, arb_series

from odp.approximations.arb_elementary import (
    ELEMENTARY,
    NoEnclosure,
    Series,
    exact,
    power_evaluator,
    quotient,
)
from odp.approximations.formula_program import Operation, program

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
    from odp.approximations.parsing import parse

    return ArbFormula(parse(source))


def constant_ball(constant: Any) -> Any:
    """A ball around a sympy expression without a variable; NaN if it is not real."""
    with _precision(_PRECISION, 1):
        try:
            return _constants(program(constant), _PRECISION)[-1]
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
        if not (self._extra and self._touches_zero(x[0])):
            return self._last(x)
        terms = x.prec
        if x[1].is_zero():
            # A point: any direction shows the value there.
            return arb_series([self(arb_series([x[0], arb(1)], max(terms, 2)))[0]], terms)
        # Every division by x - c takes a coefficient.
        with _precision(flint.ctx.prec, terms + self._extra):
            longer = self._last(arb_series([x[0], x[1]], terms + self._extra))
            return arb_series([longer[k] for k in range(terms)], terms)

    def at(self, points: Sequence[float]) -> list[float]:
        """The values at float64 points to within an ulp; NaN where the formula is not real."""
        results = [math.nan] * len(points)
        left = list(range(len(points)))
        for precision in _PRECISIONS:
            unclear = []
            with _precision(precision, 2):
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

        for precision in _DIGIT_PRECISIONS:
            with _precision(precision, 2):
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
        results = _Run(self._operations, self._zeros, arb(lo).union(arb(hi)), (lo, hi)).results()
        if not results[-1].is_finite():
            raise NoEnclosure(f"the values on [{lo}, {hi}] are not finite")
        return results[-1]

    def _at(self, point: Any) -> Any:
        try:
            return _Run(self._operations, self._zeros, point).results()[-1]
        except NoEnclosure:
            if not self._touches_zero(point):
                return None
        try:
            return self(arb_series([point, arb(1)], 2))[0]
        except NoEnclosure:
            return None

    def _last(self, x: Series) -> Series:
        value = _Run(self._operations, self._zeros, x).results()[-1]
        return value if isinstance(value, arb_series) else arb_series([value], x.prec)

    def _touches_zero(self, ball: Any) -> bool:
        return any(ball.contains(exact(c)) for orders in self._zeros.values() for c in orders)


class _Run:
    """One run through the operations, on a point, an interval (both ``arb``) or a series."""

    def __init__(
        self,
        operations: tuple[Operation, ...],
        zeros: dict[int, dict[Fraction, int]],
        x: Any,
        ends: tuple[float, float] | None = None,
    ) -> None:
        self.operations, self.zeros, self.x, self.ends = operations, zeros, x, ends
        self.is_series = isinstance(x, arb_series)

    def results(self, count: int | None = None) -> list[Any]:
        """The results of the first `count` operations."""
        constants = _constants(self.operations, flint.ctx.prec)
        values: list[Any] = []
        for index, operation in enumerate(self.operations[:count]):
            if not operation.varies:
                values.append(constants[index])
                continue
            operands = [values[i] for i in operation.operands]
            values.append(self.result(index, operation, operands))
        return values

    def result(self, index: int, operation: Operation, operands: list[Any]) -> Any:
        """The result of one operation on those of its operands."""
        kind = operation.kind
        if kind == "sum":
            return sum(operands[1:], operands[0])
        if kind == "product":
            result = operands[0]
            for factor in operands[1:]:
                result = result * factor
            return result
        if kind == "variable":
            return self.x
        if kind == "number":
            return exact(operation.value)
        if kind == "constant":
            return arb.pi() if operation.name == "pi" else arb.const_e()
        if kind == "quotient":
            return self._quotient(index, *operands)
        if operation.name in ("Max", "Min", "Abs"):
            return _extremum(operation.name, operands)
        if isinstance(operands[0], arb_series):
            if kind == "power":
                return power_evaluator(operation.value)(operands[0])
            return ELEMENTARY[operation.name](operands[0])
        return self._of_ball(operation, operands[0])

    def _quotient(self, index: int, a: Any, b: Any) -> Any:
        if self.is_series and index in self.zeros:
            for zero, order in self.zeros[index].items():
                if self.x[0].contains(exact(zero)):
                    return quotient(_shifted(a, order), _shifted(b, order))
        if isinstance(b, arb_series) and not isinstance(a, arb_series):
            a = arb_series([a], b.prec)
        return quotient(a, b)

    def _of_ball(self, operation: Operation, a: Any) -> Any:
        function = _scalar(operation)
        value = function(a)
        if value.is_finite():
            return value
        if self.ends is None or not operation.varies or not _is_monotone(operation):
            raise NoEnclosure("the ball may contain a pole or a branch point")
        # Monotone up to the end of its domain: the values at the ends of the interval enclose.
        argument = operation.operands[0]
        lo, hi = self.ends
        line = arb_series([self.x, arb(1)], 2)
        along = _Run(self.operations, self.zeros, line).results(argument + 1)[argument]
        # A maximum may be a constant there, outside of what the function takes.
        if not isinstance(along, arb_series) or not (along[1] >= 0 or along[1] <= 0):
            raise NoEnclosure("the argument of a function with a branch point turns round")
        at = [
            function(_Run(self.operations, self.zeros, arb(end)).results(argument + 1)[argument])
            for end in (lo, hi)
        ]
        if not (at[0].is_finite() and at[1].is_finite()):
            raise NoEnclosure("the interval leaves the domain of a function")
        return at[0].union(at[1])


@lru_cache(maxsize=256)
def _constants(operations: tuple[Operation, ...], precision: int) -> list[Any]:
    """The results of the operations without the variable; None in the place of the others."""
    run = _Run(operations, {}, arb.nan())
    values: list[Any] = []
    for index, operation in enumerate(operations):
        operands = [values[i] for i in operation.operands]
        values.append(None if operation.varies else run.result(index, operation, operands))
    return values


def _shifted(series: Any, order: int) -> Any:
    """The series divided by ``(x - c)^order``, where its first coefficients vanish at c."""
    return arb_series([series[k] for k in range(order, series.prec)], series.prec - order)


def _extremum(name: str, operands: list[Any]) -> Any:
    result = operands[0]
    if name == "Abs":
        operands = [result, -result]
    for other in operands[1:]:
        if not isinstance(result, arb_series) and not isinstance(other, arb_series):
            result = result.min(other) if name == "Min" else result.max(other)
            continue
        difference = (result - other)[0]
        if not (difference >= 0 or difference <= 0):
            raise NoEnclosure("the ball may contain a kink")
        result = result if bool(difference >= 0) != (name == "Min") else other
    return result


def _is_monotone(operation: Operation) -> bool:
    if operation.kind == "power":
        return operation.value > 0
    return operation.name in ("asin", "acos", "acosh")


def _scalar(operation: Operation) -> Callable[[Any], Any]:
    """The function of an operation on ``arb``; NaN where it is not real."""
    if operation.kind == "power":
        exponent = operation.value
        if exponent.denominator == 1:
            return lambda a: a ** int(exponent)
        if exponent == Fraction(1, 2):
            return lambda a: a.sqrt()
        return lambda a: a if a.is_zero() and exponent > 0 else (a.log() * exact(exponent)).exp()
    if operation.name == "loggamma":
        return lambda a: a.lgamma() if a > 0 else arb.nan()
    name = operation.name

    def call(a: Any) -> Any:
        return getattr(a, name)()

    return call


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
) -> tuple[dict[int, dict[Fraction, int]], bool]:
    """For each quotient its common zeros with their orders; whether a pole is left.

    That a coefficient vanishes is proven by exact arithmetic: its ball is the number 0 itself.
    """
    zeros: dict[int, dict[Fraction, int]] = {}
    pole = False
    terms = 2 * _MOST_ZEROS
    with _precision(_PRECISION, terms):
        for index, operation in enumerate(operations):
            if operation.kind != "quotient" or not operations[operation.operands[1]].varies:
                continue
            for zero in candidates:
                point = arb_series([exact(zero), arb(1)], terms)
                if not point[0].is_exact():
                    continue
                try:
                    values = _Run(operations, zeros, point).results(index)
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
    while order < _MOST_ZEROS and value[order].is_zero():
        order += 1
    return order


@contextmanager
def _precision(bits: int, terms: int) -> Iterator[None]:
    """Set flint's precision and series length, which are global."""
    previous = flint.ctx.prec, flint.ctx.cap
    flint.ctx.prec, flint.ctx.cap = bits, terms
    try:
        yield
    finally:
        flint.ctx.prec, flint.ctx.cap = previous
