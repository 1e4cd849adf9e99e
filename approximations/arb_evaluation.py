"""Ball arithmetic: expressions and functions on power series with rigorous error bounds.

A point is an ``arb_series`` of python-flint: ``m + r t`` with real balls as coefficients.  On an
exact ``m`` the series of a function is its Taylor polynomial; on a ball around ``m`` its last
coefficient encloses the remainder of that polynomial (F. Johansson, Arb: efficient
arbitrary-precision midpoint-radius interval arithmetic, IEEE Trans. Computers 66, 2017).

flint takes 0.15 s to import, so this module is imported where a proof is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from flint import arb, arb_series, fmpq

from odp.approximations.expression import Expression
from odp.approximations.function import Function
from odp.approximations.functions import FUNCTIONS, power

__all__ = ["PRECISION", "ArbExpression", "NoEnclosure", "arb_evaluator", "enclosure"]

PRECISION = 128
"""Bits of the midpoints: float64 would lose the digits in which f and its expression agree."""

Series = Any


class NoEnclosure(ArithmeticError):
    """The values on this ball cannot be enclosed: it may contain a pole or a branch point."""


class ArbExpression:
    """An expression in one variable, ready to be evaluated on many balls or series.

    Args:
        expression: in at most one variable.
    """

    def __init__(self, expression: Expression) -> None:
        nodes = expression.nodes()
        number = {node: index for index, node in enumerate(nodes)}
        self._rows: list[tuple[str, int, int, Any]] = []
        for node in nodes:
            left, right = (number[operand] for operand in node.operands or (node, node))
            self._rows.append((node.op, left, right, _exact(node.value)))

    def __call__(self, x: Series) -> Series:
        """The value at `x`, an ``arb`` or an ``arb_series``.

        Raises:
            NoEnclosure: if a divisor may be zero.  That it does not raise is the proof that no
                divisor vanishes on the ball.
        """
        values: list[Any] = []
        for op, left, right, value in self._rows:
            if op == "mul":
                values.append(values[left] * values[right])
            elif op == "add":
                values.append(values[left] + values[right])
            elif op == "sub":
                values.append(values[left] - values[right])
            elif op == "div":
                values.append(_quotient(values[left], values[right]))
            else:
                values.append(value if op == "constant" else x)
        return values[-1]


def _exact(value: Fraction) -> Any:
    return arb(fmpq(value.numerator, value.denominator))


def _quotient(a: Series, b: Series) -> Series:
    leading = b[0] if isinstance(b, arb_series) else b
    if not leading.is_finite() or leading.contains(0):
        raise NoEnclosure("a divisor may vanish")
    return a / b


def arb_evaluator(function: Function) -> Callable[[Series], Series] | None:
    """How to evaluate a registered function on series; None for a function of the user's own.

    The evaluator raises NoEnclosure, or gives non-finite coefficients, where the ball touches a
    point at which the function is not analytic.
    """
    if function.exponent is not None:
        known = FUNCTIONS.get(function.name) or power(function.exponent)
        return _power(function.exponent) if known == function else None
    return _EVALUATORS.get(function.name) if FUNCTIONS.get(function.name) == function else None


def enclosure(function: Function, lo: float, hi: float) -> Any:
    """A ball around all values on ``[lo, hi]``, for functions monotone up to a branch point.

    Raises:
        NoEnclosure: if the function is not known to be monotone there.
    """
    if function.exponent is not None and function.exponent > 0 and lo >= 0:
        exponent = arb(fmpq(function.exponent.numerator, function.exponent.denominator))
        ends = [arb(0) if x == 0 else (arb(x).log() * exponent).exp() for x in (lo, hi)]
    elif function.name in _MONOTONE and arb_evaluator(function) is not None:
        ends = [_MONOTONE[function.name](arb(x)) for x in (lo, hi)]
    else:
        raise NoEnclosure(f"{function.name} has no enclosure on [{lo}, {hi}]")
    hull = ends[0].union(ends[1])
    if not hull.is_finite():
        raise NoEnclosure(f"{function.name} is not finite on [{lo}, {hi}]")
    return hull


def _power(exponent: Fraction) -> Callable[[Series], Series]:
    if exponent == -1:
        return lambda x: _quotient(arb_series([1], x.prec), x)
    if exponent == Fraction(1, 2):
        return lambda x: _positive(x).sqrt()
    if exponent == Fraction(-1, 2):
        return lambda x: _positive(x).rsqrt()
    if exponent.denominator == 1:
        return lambda x: _whole_power(x, exponent.numerator)
    # Not before it is used: the precision is that of the moment.
    return lambda x: (_positive(x).log() * _exact(exponent)).exp()


def _whole_power(x: Series, n: int) -> Series:
    result = x
    for bit in bin(abs(n))[3:]:
        result = result * result
        if bit == "1":
            result = result * x
    return result if n > 0 else _quotient(arb_series([1], x.prec), result)


def _positive(x: Series) -> Series:
    if not x[0] > 0:
        raise NoEnclosure("the ball is not within the positive numbers")
    return x


def _integral(derivative: Series, x: Series, start: Any) -> Series:
    """The function of `x` with this derivative along `x`, and the value `start` at its centre."""
    return (derivative * x.derivative()).integral() + start


def _sigmoid(x: Series) -> Series:
    # x occurs once: no dependency widens the ball.
    return _quotient(arb_series([1], x.prec), (-x).exp() + 1)


def _tanh(x: Series) -> Series:
    return 1 - _quotient(arb_series([2], x.prec), (2 * x).exp() + 1)


def _normal_cdf(x: Series) -> Series:
    # Through erfc: 1 + erf cancels for negative x.
    return (-x * arb(fmpq(1, 2)).sqrt()).erfc() / 2


def _softplus_tail(x: Series) -> Series:
    return _integral(-_sigmoid(-x), x, (-x[0]).exp().log1p())


def _mish_gate(x: Series) -> Series:
    w = x.exp()
    return _quotient(arb_series([1], x.prec), _quotient(arb_series([2], x.prec), w * (w + 2)) + 1)


def _sinh(x: Series) -> Series:
    w = x.exp()
    return (w - (-x).exp()) / 2


def _cosh(x: Series) -> Series:
    return (x.exp() + (-x).exp()) / 2


def _asinh(x: Series) -> Series:
    return _integral((x * x + 1).rsqrt(), x, x[0].asinh())


def _acosh(x: Series) -> Series:
    # (x - 1)(x + 1) keeps its digits next to 1, and 1 - x^2 below likewise.
    return _integral(_positive((x - 1) * (x + 1)).rsqrt(), x, x[0].acosh())


def _atanh(x: Series) -> Series:
    slope = _quotient(arb_series([1], x.prec), _positive((1 - x) * (1 + x)))
    return _integral(slope, x, x[0].atanh())


def _asin(x: Series) -> Series:
    return _integral(_positive((1 - x) * (1 + x)).rsqrt(), x, x[0].asin())


def _acos(x: Series) -> Series:
    return _integral(-_positive((1 - x) * (1 + x)).rsqrt(), x, x[0].acos())


def _tan(x: Series) -> Series:
    if not x[0].cos() > 0:
        raise NoEnclosure("the ball may contain a pole of tan")
    return x.tan()


_EVALUATORS: dict[str, Callable[[Series], Series]] = {
    "exp": lambda x: x.exp(),
    "log": lambda x: _positive(x).log(),
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "erf": lambda x: x.erf(),
    "normal_cdf": _normal_cdf,
    "softplus_tail": _softplus_tail,
    "mish_gate": _mish_gate,
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
    "tan": _tan,
    "sinh": _sinh,
    "cosh": _cosh,
    "asin": _asin,
    "acos": _acos,
    "atan": lambda x: x.atan(),
    "asinh": _asinh,
    "acosh": _acosh,
    "atanh": _atanh,
}

_MONOTONE: dict[str, Callable[[Any], Any]] = {
    "asin": lambda x: x.asin(),
    "acos": lambda x: x.acos(),
    "acosh": lambda x: x.acosh(),
}
