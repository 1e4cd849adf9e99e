"""The registry of functions that can be approximated by name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import ApproximationError
from odp.approximations.function import Function
from odp.approximations.interval import Interval

__all__ = ["FUNCTIONS", "get_function", "power"]

Array = NDArray[np.float64]

_HALF = Fraction(1, 2)
_POSITIVE = Interval(0.0, math.inf)
_UNIT = Interval(-1.0, 1.0)


def _sigmoid(x: Array) -> Array:
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, decay) / (1.0 + decay)


def _rsqrt(x: Array) -> Array:
    return 1.0 / np.sqrt(x)


def _erf(x: Array) -> Array:
    from scipy.special import erf

    return np.asarray(erf(x))


def _normal_cdf(x: Array) -> Array:
    from scipy.special import ndtr

    return np.asarray(ndtr(x))


def _softplus_tail(x: Array) -> Array:
    return np.logaddexp(0.0, -x)


def _mish_gate(x: Array) -> Array:
    decay = np.exp(-np.abs(x))
    right = (1.0 + 2.0 * decay) / (1.0 + 2.0 * decay * (1.0 + decay))
    left = decay * (decay + 2.0) / (decay * (decay + 2.0) + 2.0)
    return np.where(x >= 0, right, left)


def _power(x: Array, exponent: float) -> Array:
    return np.power(x, exponent)


_REGISTRY = [
    Function("exp", "exp(x)", np.exp),
    Function("log", "log(x)", np.log, _POSITIVE, positive_scale=True, singularities=(0.0,)),
    Function(
        "sqrt", "sqrt(x)", np.sqrt, _POSITIVE, relative=True, positive_scale=True, exponent=_HALF
    ),
    Function(
        "rsqrt",
        "1/sqrt(x)",
        _rsqrt,
        _POSITIVE,
        relative=True,
        positive_scale=True,
        singularities=(0.0,),
        exponent=-_HALF,
    ),
    Function(
        "reciprocal",
        "1/x",
        np.reciprocal,
        parity="odd",
        relative=True,
        positive_scale=True,
        singularities=(0.0,),
        exponent=Fraction(-1),
    ),
    Function("sigmoid", "1/(1 + exp(-x))", _sigmoid, centre_value=_HALF),
    Function("tanh", "tanh(x)", np.tanh, parity="odd"),
    Function("erf", "erf(x)", _erf, parity="odd"),
    Function("normal_cdf", "(1 + erf(x/sqrt(2)))/2", _normal_cdf, centre_value=_HALF),
    Function("softplus_tail", "log(1 + exp(-x))", _softplus_tail, _POSITIVE),
    Function(
        "mish_gate",
        "(exp(2*x) + 2*exp(x))/(exp(2*x) + 2*exp(x) + 2)",
        _mish_gate,
    ),
    Function("sin", "sin(x)", np.sin, parity="odd"),
    Function("cos", "cos(x)", np.cos, parity="even"),
    Function(
        "tan",
        "tan(x)",
        np.tan,
        Interval(-math.pi / 2, math.pi / 2),
        parity="odd",
        singularities=(-math.pi / 2, math.pi / 2),
    ),
    Function("sinh", "sinh(x)", np.sinh, parity="odd"),
    Function("cosh", "cosh(x)", np.cosh, parity="even"),
    Function("asin", "asin(x)", np.arcsin, _UNIT, parity="odd"),
    Function("acos", "acos(x)", np.arccos, _UNIT, centre_value=Fraction(math.pi / 2)),
    Function("atan", "atan(x)", np.arctan, parity="odd"),
    Function("asinh", "asinh(x)", np.arcsinh, parity="odd"),
    Function("acosh", "acosh(x)", np.arccosh, Interval(1.0, math.inf)),
    Function("atanh", "atanh(x)", np.arctanh, _UNIT, parity="odd", singularities=(-1.0, 1.0)),
]

FUNCTIONS: MappingProxyType[str, Function] = MappingProxyType({f.name: f for f in _REGISTRY})
"""Every function without a parameter, by name; `power` makes the ones with an exponent."""

_POWER = re.compile(r"pow\((?P<exponent>[^()]+)\)")


@cache
def power(p: float | Fraction) -> Function:
    """The function ``x**p`` on x > 0 (x >= 0 for positive p).

    Args:
        p: the exponent; neither 0 nor 1.

    Raises:
        ApproximationError: if the exponent is not finite, or 0 or 1 (nothing to approximate).

    >>> power(0.75).name
    'pow(0.75)'
    """
    try:
        # The shortest decimal is what the user typed: 0.1 means 1/10, not the float next to it.
        exponent = Fraction(repr(p)) if isinstance(p, float) else Fraction(p)
    except (TypeError, ValueError, OverflowError):
        raise ApproximationError(f"pow: the exponent {p!r} is not a finite number") from None
    if exponent in (0, 1):
        raise ApproximationError(f"pow({exponent}): nothing to approximate; write 1 or x instead")
    evaluate: Callable[[Array], Array] = partial(_power, exponent=float(exponent))
    decimal = repr(float(exponent)).removesuffix(".0")
    text = decimal if Fraction(decimal) == exponent else str(exponent)
    return Function(
        f"pow({text})",
        f"x**Rational({exponent.numerator}, {exponent.denominator})",
        evaluate,
        _POSITIVE,
        relative=True,
        positive_scale=True,
        singularities=(0.0,) if exponent < 0 else (),
        exponent=exponent,
    )


def get_function(name: str) -> Function:
    """The function called `name`, for example ``exp`` or ``pow(0.75)``.

    Raises:
        ApproximationError: for an unknown name, with the nearest known ones.

    >>> get_function("rsqrt").relative
    True
    """
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    match = _POWER.fullmatch(name.replace(" ", ""))
    if match:
        try:
            return power(Fraction(match["exponent"]))
        except (ValueError, ZeroDivisionError):
            raise ApproximationError(
                f"{name}: the exponent must be a number, for example pow(0.75)"
            ) from None
    near = difflib.get_close_matches(name, FUNCTIONS, n=3)
    hint = (
        f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(FUNCTIONS)}, pow(p)"
    )
    raise ApproximationError(f"unknown function {name!r}: {hint}")
