"""Ball arithmetic: elementary functions on power series, each with its condition of analyticity.

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

__all__ = [
    "ELEMENTARY",
    "NoEnclosure",
    "Series",
    "coefficients",
    "exact",
    "integral",
    "positive",
    "power_evaluator",
    "quotient",
    "sigmoid",
]

Series = Any


class NoEnclosure(ArithmeticError):
    """The values on this ball cannot be enclosed: it may contain a pole or a branch point."""


def exact(value: Fraction) -> Any:
    """A rational number as a ball, of the precision of the moment."""
    return arb(fmpq(value.numerator, value.denominator))


def coefficients(series: Series, count: int) -> list[Any]:
    """The first `count` coefficients of a series.

    Raises:
        NoEnclosure: if it is shorter; flint gives 0 for a coefficient that is not known.
    """
    if series.prec < count:
        raise NoEnclosure("the series is too short")
    return [series[k] for k in range(count)]


def quotient(a: Series, b: Series) -> Series:
    """``a / b`` where `b` has no zero on the ball.

    Raises:
        NoEnclosure: if it may have one.
    """
    leading = b[0] if isinstance(b, arb_series) else b
    if not leading.is_finite() or leading.contains(0):
        raise NoEnclosure("a divisor may vanish")
    return a / b


def positive(x: Series) -> Series:
    """`x` itself where the ball is within the positive numbers.

    Raises:
        NoEnclosure: if it may not be.
    """
    if not x[0] > 0:
        raise NoEnclosure("the ball is not within the positive numbers")
    return x


def integral(derivative: Series, x: Series, start: Any) -> Series:
    """The function of `x` with this derivative along `x`, and the value `start` at its centre."""
    return (derivative * x.derivative()).integral() + start


def power_evaluator(exponent: Fraction) -> Callable[[Series], Series]:
    """How to raise a series to a power; for broken exponents on positive balls only."""
    if exponent == -1:
        return lambda x: quotient(arb_series([1], x.prec), x)
    if exponent == Fraction(1, 2):
        return lambda x: positive(x).sqrt()
    if exponent == Fraction(-1, 2):
        return lambda x: positive(x).rsqrt()
    if exponent.denominator == 1:
        return lambda x: _whole_power(x, exponent.numerator)
    # Not before it is used: the precision is that of the moment.
    return lambda x: (positive(x).log() * exact(exponent)).exp()


def _whole_power(x: Series, n: int) -> Series:
    result = x
    for bit in bin(abs(n))[3:]:
        result = result * result
        if bit == "1":
            result = result * x
    return result if n > 0 else quotient(arb_series([1], x.prec), result)


def sigmoid(x: Series) -> Series:
    """``1/(1 + exp(-x))``; x occurs once, so no dependency widens the ball."""
    return quotient(arb_series([1], x.prec), (-x).exp() + 1)


def _tanh(x: Series) -> Series:
    return 1 - quotient(arb_series([2], x.prec), (2 * x).exp() + 1)


def _sinh(x: Series) -> Series:
    w = x.exp()
    return (w - (-x).exp()) / 2


def _cosh(x: Series) -> Series:
    return (x.exp() + (-x).exp()) / 2


def _asinh(x: Series) -> Series:
    return integral((x * x + 1).rsqrt(), x, x[0].asinh())


def _acosh(x: Series) -> Series:
    # (x - 1)(x + 1) keeps its digits next to 1, and 1 - x^2 below likewise; both are positive on
    # the wrong side of -1 as well.
    positive(x - 1)
    return integral(positive((x - 1) * (x + 1)).rsqrt(), x, x[0].acosh())


def _atanh(x: Series) -> Series:
    slope = quotient(arb_series([1], x.prec), positive((1 - x) * (1 + x)))
    return integral(slope, x, x[0].atanh())


def _asin(x: Series) -> Series:
    return integral(positive((1 - x) * (1 + x)).rsqrt(), x, x[0].asin())


def _acos(x: Series) -> Series:
    return integral(-positive((1 - x) * (1 + x)).rsqrt(), x, x[0].acos())


def _tan(x: Series) -> Series:
    cosine = x[0].cos()
    if not (cosine > 0 or cosine < 0):
        raise NoEnclosure("the ball may contain a pole of tan")
    return x.tan()


def _cot(x: Series) -> Series:
    sine, cosine = x.sin_cos()
    return quotient(cosine, sine)


def _finite(x: Series) -> Series:
    if not x[0].is_finite():
        raise NoEnclosure("the ball may contain a pole")
    return x


ELEMENTARY: dict[str, Callable[[Series], Series]] = {
    "exp": lambda x: x.exp(),
    "log": lambda x: positive(x).log(),
    "log1p": lambda x: positive(x + 1).log(),
    "expm1": lambda x: x.exp() - 1,
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
    "tan": _tan,
    "cot": _cot,
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": _tanh,
    "asin": _asin,
    "acos": _acos,
    "atan": lambda x: x.atan(),
    "asinh": _asinh,
    "acosh": _acosh,
    "atanh": _atanh,
    "erf": lambda x: x.erf(),
    "erfc": lambda x: x.erfc(),
    "gamma": lambda x: _finite(x.gamma()),
    "loggamma": lambda x: _finite(positive(x).lgamma()),
}
"""Functions on series, by the name that sympy gives them."""
