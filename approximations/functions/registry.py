"""The registry of functions that can be approximated by name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import ApproximationError
from odp.approximations.functions import numpy_functions
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval

__all__ = ["FUNCTIONS", "get_function", "power"]

Array = NDArray[np.float64]

_HALF = Fraction(1, 2)
_POSITIVE = Interval(0.0, math.inf)
_UNIT = Interval(-1.0, 1.0)


_REGISTRY = [
    Function("exp", "exp(x)", np.exp),
    Function("log", "log(x)", np.log, _POSITIVE, positive_scale=True, singularities=(0.0,)),
    Function(
        "sqrt", "sqrt(x)", np.sqrt, _POSITIVE, relative=True, positive_scale=True, exponent=_HALF
    ),
    Function(
        "rsqrt",
        "1/sqrt(x)",
        numpy_functions.rsqrt,
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
    Function("sigmoid", "1/(1 + exp(-x))", numpy_functions.sigmoid, centre_value=_HALF),
    Function("tanh", "tanh(x)", np.tanh, parity="odd"),
    Function("erf", "erf(x)", numpy_functions.erf, parity="odd"),
    Function("normal_cdf", "erfc(-x/sqrt(2))/2", numpy_functions.normal_cdf, centre_value=_HALF),
    Function("softplus_tail", "log(1 + exp(-x))", numpy_functions.softplus_tail, _POSITIVE),
    Function(
        "mish_gate",
        "(exp(2*x) + 2*exp(x))/(exp(2*x) + 2*exp(x) + 2)",
        numpy_functions.mish_gate,
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
    Function("erfc", "erfc(x)", numpy_functions.erfc, centre_value=Fraction(1)),
    Function("exp2", "2**x", np.exp2),
    Function("expm1", "exp(x) - 1", np.expm1),
    Function(
        "log2", "log(x)/log(2)", np.log2, _POSITIVE, positive_scale=True, singularities=(0.0,)
    ),
    Function(
        "log10", "log(x)/log(10)", np.log10, _POSITIVE, positive_scale=True, singularities=(0.0,)
    ),
    Function("log1p", "log(1 + x)", np.log1p, Interval(-1.0, math.inf), singularities=(-1.0,)),
    Function(
        "cbrt",
        "x**(1/3)",
        np.cbrt,
        _POSITIVE,
        relative=True,
        positive_scale=True,
        exponent=Fraction(1, 3),
    ),
    Function("sinc", "sin(x)/x", numpy_functions.sinc, parity="even"),
    Function("gelu", "x*erfc(-x/sqrt(2))/2", numpy_functions.gelu, slope=_HALF),
    Function(
        "gelu_tanh",
        "x*(1 + tanh(sqrt(2/pi)*(x + 0.044715*x**3)))/2",
        numpy_functions.gelu_tanh,
        slope=_HALF,
    ),
    Function("silu", "x/(1 + exp(-x))", numpy_functions.silu, slope=_HALF),
    Function("softplus", "log(1 + exp(x))", numpy_functions.softplus, slope=_HALF),
    Function("log_sigmoid", "-log(1 + exp(-x))", numpy_functions.log_sigmoid, slope=_HALF),
    Function(
        "mish",
        "x*(exp(2*x) + 2*exp(x))/(exp(2*x) + 2*exp(x) + 2)",
        numpy_functions.mish,
    ),
    Function("acosh", "acosh(x)", np.arccosh, Interval(1.0, math.inf)),
    Function("atanh", "atanh(x)", np.arctanh, _UNIT, parity="odd", singularities=(-1.0, 1.0)),
]

FUNCTIONS: MappingProxyType[str, Function] = MappingProxyType({f.name: f for f in _REGISTRY})
"""Every function without a parameter, by name; `power` makes the ones with an exponent."""

_POWER = re.compile(r"pow\((?P<exponent>[^(),]+)\)")


@lru_cache(maxsize=1024)
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
        float(exponent)
    except (TypeError, ValueError, OverflowError):
        raise ApproximationError(f"pow: the exponent {p!r} is not a finite number") from None
    if exponent in (0, 1):
        raise ApproximationError(f"pow({exponent}): nothing to approximate; write 1 or x instead")
    evaluate: Callable[[Array], Array] = partial(numpy_functions.power, exponent=float(exponent))
    decimal = repr(float(exponent)).removesuffix(".0")
    text = decimal if Fraction(decimal) == exponent else str(exponent)
    return Function(
        f"pow({text})",
        f"x**({exponent.numerator}/{exponent.denominator})",
        evaluate,
        _POSITIVE,
        relative=True,
        positive_scale=True,
        singularities=(0.0,) if exponent < 0 else (),
        exponent=exponent,
    )


def get_function(function: str | Function | Any) -> Function:
    """The function called so, or the one that a formula of one variable defines.

    Args:
        function: a registered name (``exp``), a power (``pow(0.75)``), a formula in any variable
            (``t*exp(-t**2)``), which is read without evaluating any code, or a sympy expression;
            a Function is returned as it is.  A formula that is mathematically a registered
            function (``1/sqrt(x)``) is that function.

    Raises:
        ApproximationError: for an unknown name, with the nearest known ones, or for a formula that
            cannot be read.

    >>> get_function("rsqrt").relative
    True
    >>> get_function("t*exp(-t**2)").parity
    'odd'
    >>> get_function("1/(1 + exp(-x))").name
    'sigmoid'
    """
    if isinstance(function, Function):
        return function
    if isinstance(function, str):
        return _called(function)
    from odp.approximations.functions.formula import formula
    from odp.approximations.functions.parsing import from_sympy

    return formula(from_sympy(function))


@lru_cache(maxsize=1024)
def _called(name: str) -> Function:
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
    if not name.strip() or name.strip().isidentifier():
        near = difflib.get_close_matches(name, FUNCTIONS, n=3)
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else f"known: {', '.join(FUNCTIONS)}, pow(p), or a formula such as x*exp(-x**2)"
        )
        raise ApproximationError(f"unknown function {name!r}: {hint}")
    from odp.approximations.functions.formula import formula
    from odp.approximations.functions.parsing import parse

    return formula(parse(name))
