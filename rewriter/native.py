"""The functions of the library spelled in operations that the original framework has.

Used for calibration, where the rewritten structure must compute exactly what the original does,
and for the parts of a composite that the user did not ask to replace.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from odp.rewriter.graph import Builder, Value

__all__ = ["emit_native"]

_SAME_NAME = frozenset(
    {
        *("exp", "log", "sqrt", "reciprocal", "sigmoid", "tanh", "erf", "sin", "cos", "tan"),
        *("sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh"),
    }
)


def emit_native(build: Builder, function: str, x: Value) -> Value:
    """Emit `function` at `x` without approximating it.

    Raises:
        KeyError: the function has no native spelling (a mistake in a pass, not of a user).
    """
    if function in _SAME_NAME:
        return build.op(function, x)
    if function.startswith("pow("):
        return build.op("pow", x, build.number(float(function[4:-1]), x))
    return _SPELLINGS[function](build, x)


def _rsqrt(build: Builder, x: Value) -> Value:
    return build.op("reciprocal", build.op("sqrt", x))


def _normal_cdf(build: Builder, x: Value) -> Value:
    error_function = build.op("erf", build.mul(x, math.sqrt(0.5)))
    return build.mul(build.add(error_function, 1.0), 0.5)


def _softplus_tail(build: Builder, x: Value) -> Value:
    return build.op("log", build.add(build.op("exp", build.op("neg", x)), 1.0))


def _mish_gate(build: Builder, x: Value) -> Value:
    return build.op("tanh", build.op("softplus", x))


_SPELLINGS: dict[str, Callable[[Builder, Value], Value]] = {
    "rsqrt": _rsqrt,
    "normal_cdf": _normal_cdf,
    "softplus_tail": _softplus_tail,
    "mish_gate": _mish_gate,
}
