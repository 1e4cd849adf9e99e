"""Taylor coefficients of a function at a point, to 60 digits and more."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from odp.approximations.functions.ball_precision import ball_precision, flint_installed
from odp.approximations.functions.function import Function

__all__ = ["taylor_coefficients"]

_BITS = 512
# Digits that must be left after cancellation.
_SHARE = 2.0**-200
_EXACT = ("exp", "sin", "cos", "sinh", "cosh")
_DIGITS = 80
_SHOWN_DIGITS = 60


@lru_cache(maxsize=4096)
def taylor_coefficients(
    function: Function, point: Fraction, count: int
) -> tuple[Fraction, ...] | None:
    """The first `count` Taylor coefficients of a function at a point.

    Exact for rational functions, and for exp, sin, cos, sinh and cosh at 0; others from power
    series in ball arithmetic, or, for functions without a ball evaluator, from mpmath's numerical
    differentiation at 80 digits.

    Args:
        function: what to expand.
        point: where.
        count: how many coefficients.

    Returns:
        Ascending coefficients in ``x - point``; None where the function is not analytic there.

    >>> from odp.approximations import get_function
    >>> [str(c) for c in taylor_coefficients(get_function("exp"), Fraction(0), 4)]
    ['1', '1', '1/2', '1/6']
    """
    short = function.name in _EXACT and point == 0
    if short or (function.exponent is not None and function.exponent.denominator == 1):
        return _by_derivatives(function, point, count)
    found = _by_series(function, point, count)
    return _by_differentiation(function, point, count) if found is None else found


def _by_derivatives(function: Function, point: Fraction, count: int) -> tuple[Fraction, ...]:
    import sympy

    (x,) = function.sympy.free_symbols
    at = sympy.Rational(point.numerator, point.denominator)
    result, derivative = [], function.sympy
    for order in range(count):
        value = derivative.subs(x, at)
        result.append(Fraction(int(value.p), int(value.q)) / math.factorial(order))
        derivative = derivative.diff(x)
    return tuple(result)


def _by_series(function: Function, point: Fraction, count: int) -> tuple[Fraction, ...] | None:
    if not flint_installed():
        return None
    import flint

    from odp.approximations.functions.arb_elementary import NoEnclosure, coefficients
    from odp.approximations.functions.arb_functions import arb_evaluator

    evaluator = arb_evaluator(function)
    if evaluator is None:
        return None
    with ball_precision(_BITS, count):
        centre = flint.arb(flint.fmpq(point.numerator, point.denominator))
        try:
            balls = coefficients(evaluator(flint.arb_series([centre, 1], count)), count)
        except (NoEnclosure, ValueError, ZeroDivisionError):
            return None
    result = []
    for ball in balls:
        size = float(abs(ball.mid()))
        if not ball.is_finite() or float(ball.rad()) > _SHARE * max(size, 1e-30):
            return None
        mantissa, exponent = ball.mid().man_exp()
        value = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
        # What is zero comes as a ball around it.
        result.append(Fraction(0) if ball.contains(0) else value)
    return tuple(result)


def _by_differentiation(
    function: Function, point: Fraction, count: int
) -> tuple[Fraction, ...] | None:
    import mpmath

    with mpmath.workdps(_DIGITS):
        centre = mpmath.mpf(point.numerator) / point.denominator
        try:
            values = mpmath.taylor(function.mpmath, centre, count - 1)
            return tuple(Fraction(str(mpmath.nstr(value, _SHOWN_DIGITS))) for value in values)
        except (ValueError, ZeroDivisionError, TypeError, OverflowError):
            return None
