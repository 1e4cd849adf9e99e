"""What a formula may contain: constants, functions, and the limits of its size.

sympy computes some things at once (numbers to a power, gamma of an integer, maxima); the limits
keep each of them within milliseconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache
from types import MappingProxyType
from typing import Any

from odp.approximations.errors import ApproximationError

__all__ = [
    "CONSTANTS",
    "EXTREMA",
    "MOST_EXTREMA",
    "MOST_NODES",
    "REFUSED",
    "checked",
    "formula_functions",
    "hint",
    "power_of",
    "quoted",
    "representable",
    "symbol",
]

MOST_NODES = 1000
_LARGEST_EXPONENT = 1000
_MOST_BITS = 4096
_LARGEST_GAMMA = 1000
_LARGEST, _LEAST = 1e300, 1e-300
# sympy compares every pair of arguments: 12 of them nested take a second.
MOST_EXTREMA = 8

CONSTANTS = ("pi", "e", "E")
EXTREMA = ("Max", "Min", "max", "min", "relu")
_ALIASES = {
    "ln": "log",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "abs": "Abs",
    "max": "Max",
    "min": "Min",
    "lgamma": "loggamma",
}
# Called as they are in sympy, with one argument.
_SYMPY_FUNCTIONS = [
    "exp",
    "log",
    "sqrt",
    "sin",
    "cos",
    "tan",
    "cot",
    "sinh",
    "cosh",
    "tanh",
    "asin",
    "acos",
    "atan",
    "asinh",
    "acosh",
    "atanh",
    "erf",
    "erfc",
    "gamma",
    "loggamma",
    "Abs",
]
REFUSED = MappingProxyType(
    {
        "floor": "it jumps",
        "ceil": "it jumps",
        "ceiling": "it jumps",
        "round": "it jumps",
        "sign": "it jumps",
        "Heaviside": "it jumps",
        "Mod": "it jumps",
        "Piecewise": "its pieces may not fit together",
    }
)


@cache
def symbol() -> Any:
    """The variable of every function: the real sympy symbol ``x``."""
    import sympy

    return sympy.Symbol("x", real=True)


@cache
def formula_functions() -> MappingProxyType[str, Callable[..., Any]]:
    """What a formula may call: name to a maker of sympy expressions.

    >>> "gelu" in formula_functions()
    True
    """
    import sympy

    from odp.approximations.functions.registry import FUNCTIONS

    table: dict[str, Callable[..., Any]] = {
        name: _composed(function.source) for name, function in FUNCTIONS.items()
    }
    table |= {name: _of_one_argument(getattr(sympy, name)) for name in _SYMPY_FUNCTIONS}
    table |= {
        "log": lambda a, base=None: (
            sympy.log(a) if base is None else sympy.log(a) / sympy.log(base)
        ),
        "pow": power_of,
        "Max": _of_some_arguments(sympy.Max),
        "Min": _of_some_arguments(sympy.Min),
        "relu": lambda a: sympy.Max(a, 0),
        "sec": lambda a: 1 / sympy.cos(a),
        "csc": lambda a: 1 / sympy.sin(a),
        "sinc": lambda a: sympy.sin(a) / a,
        "coth": lambda a: 1 / sympy.tanh(a),
        "gamma": lambda a: sympy.gamma(_moderate(a)),
        "loggamma": lambda a: sympy.loggamma(_moderate(a)),
    }
    table |= {alias: table[name] for alias, name in _ALIASES.items()}
    return MappingProxyType(table)


def _of_one_argument(function: Callable[..., Any]) -> Callable[[Any], Any]:
    # sympy's own take options as further arguments.
    def call(argument: Any) -> Any:
        return function(argument)

    return call


def _of_some_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(first: Any, *others: Any) -> Any:
        return function(first, *others)

    return call


def _composed(source: str) -> Callable[[Any], Any]:
    from odp.approximations.functions.parsing import parse

    return lambda argument: parse(source).xreplace({symbol(): argument})


def quoted(text: str) -> str:
    """The text in quotes on one line, shortened to what fits in a message."""
    shown = repr(text)
    return shown if len(shown) <= 70 else shown[:50] + "..." + shown[-16:]


def checked(build: Callable[[], Any], text: str) -> Any:
    """The expression that is built, if it is real, finite and depends on the variable."""
    import sympy

    try:
        value = build()
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ApproximationError(f"formula {text}: sympy cannot evaluate it ({reason})") from None
    if value.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        raise ApproximationError(f"formula {text}: a part of it is not finite, as 1/0 or log(0)")
    constants = (part for part in value.atoms(sympy.Pow, sympy.Function) if part.is_number)
    if value.has(sympy.I) or any(part.is_extended_real is False for part in constants):
        raise ApproximationError(
            f"formula {text}: a constant in it is complex; only real functions can be approximated"
        )
    if not value.has(symbol()):
        raise ApproximationError(
            f"formula {text}: it has no variable, its value is {_short(value)}"
        )
    for power in value.atoms(sympy.Pow):
        if power.exp.is_Rational and abs(power.exp) > _LARGEST_EXPONENT:
            raise ApproximationError(f"formula {text}: an exponent is beyond {_LARGEST_EXPONENT}")
    if value == symbol():
        raise ApproximationError(f"formula {text}: nothing to approximate, it is its own argument")
    return value


def _short(value: Any) -> str:
    number = value.evalf(6)
    return f"{float(number):g}" if number.is_Float else str(value)[:40]


def _moderate(argument: Any) -> Any:
    if argument.is_number and not abs(argument) <= _LARGEST_GAMMA:
        raise ValueError(f"gamma beyond {_LARGEST_GAMMA}")
    return argument


def representable(value: Any) -> Any:
    """`value` itself unless it is a constant beyond float64, on which sympy could take hours.

    Raises:
        ValueError: for such a constant.
    """
    import sympy

    special = (sympy.I, sympy.zoo, sympy.nan, sympy.oo, -sympy.oo)
    if value.is_number and not value.is_Rational and not value.has(*special):
        from odp.approximations.functions.arb_formula import constant_ball

        ball = constant_ball(value)
        if ball.is_finite() and (ball.abs_lower() > _LARGEST or 0 < ball.abs_upper() < _LEAST):
            raise ValueError("a constant is beyond what float64 represents")
    return value


def power_of(base: Any, exponent: Any) -> Any:
    """base**exponent, refused where sympy would compute a number that is too long."""
    if exponent.is_Rational and abs(exponent) > _LARGEST_EXPONENT:
        raise ValueError(f"an exponent is beyond {_LARGEST_EXPONENT}")
    if base.is_Rational and exponent.is_Rational:
        size = max(abs(base.p).bit_length(), base.q.bit_length())
        if size * abs(exponent) > _MOST_BITS:
            raise ValueError("a power is too long a number")
    return base**exponent


def hint(name: str) -> str:
    """The functions with the nearest names, as the end of an error message."""
    near = difflib.get_close_matches(name, formula_functions(), n=2)
    return f", did you mean {' or '.join(near)}?" if near else ""
