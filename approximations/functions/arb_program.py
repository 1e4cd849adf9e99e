"""Runs through the operations of a formula in ball arithmetic: on points, intervals and series.

A quotient of two series with a common zero c (sin(x)/x at 0) is taken after both have been divided
by ``x - c``: the coefficients of ``g(x)/(x - c)`` on an interval that contains c lie in the next
coefficients of g there, because ``g(c + s)/s`` is the mean of ``g'(c + s t)`` over 0 < t < 1.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import flint
from flint import arb, arb_series

from odp.approximations.functions.arb_elementary import (
    ELEMENTARY,
    NoEnclosure,
    exact,
    power_evaluator,
    quotient,
)
from odp.approximations.functions.formula_program import Operation

__all__ = ["BallRun", "Zeros", "constants"]

Zeros = dict[int, dict[Fraction, int]]
"""Of quotients, by the number of the operation: common zeros, with the order of the divisor."""


class BallRun:
    """One run through the operations, on a point, an interval (both ``arb``) or a series."""

    def __init__(
        self,
        operations: tuple[Operation, ...],
        zeros: Zeros,
        x: Any,
        ends: tuple[float, float] | None = None,
    ) -> None:
        self.operations, self.zeros, self.x, self.ends = operations, zeros, x, ends
        self.is_series = isinstance(x, arb_series)

    def results(self, count: int | None = None) -> list[Any]:
        """The results of the first `count` operations."""
        known = constants(self.operations, flint.ctx.prec)
        values: list[Any] = []
        for index, operation in enumerate(self.operations[:count]):
            if not operation.varies:
                values.append(known[index])
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
        along = BallRun(self.operations, self.zeros, line).results(argument + 1)[argument]
        # A maximum may be a constant there, outside of what the function takes.
        if not isinstance(along, arb_series) or not (along[1] >= 0 or along[1] <= 0):
            raise NoEnclosure("the argument of a function with a branch point turns round")
        at = [
            function(BallRun(self.operations, self.zeros, arb(end)).results(argument + 1)[argument])
            for end in (lo, hi)
        ]
        if not (at[0].is_finite() and at[1].is_finite()):
            raise NoEnclosure("the interval leaves the domain of a function")
        return at[0].union(at[1])


@lru_cache(maxsize=256)
def constants(operations: tuple[Operation, ...], bits: int) -> list[Any]:
    """The results of the operations without the variable; None in the place of the others."""
    run = BallRun(operations, {}, arb.nan())
    values: list[Any] = []
    for index, operation in enumerate(operations):
        operands = [values[i] for i in operation.operands]
        values.append(None if operation.varies else run.result(index, operation, operands))
    return values


def _shifted(series: Any, order: int) -> Any:
    """The series divided by ``(x - c)^order``, where its first coefficients vanish at c."""
    if series.prec <= order:
        raise NoEnclosure("the series is too short")
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
        # Not >=: abs(x)/x would be 1 at 0, seen from one side.
        if not (difference > 0 or difference < 0):
            raise NoEnclosure("the ball may contain a kink")
        result = result if bool(difference > 0) != (name == "Min") else other
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
