"""Activations and gated activations, element by element.

The derivative of x s(x) for a sigmoid s is s + x s (1 - s): an identity of the function, into which
the approximation of s is put.  The derivative of the approximation itself is as close to it as its
slope is, and took 52 instead of 31 instructions an element (silu, sm_90).
"""

from __future__ import annotations

import math

from odp.kernels.kernel import Output
from odp.kernels.operator import Functions, Operand, Operator
from odp.kernels.term import Term, input_elements, maximum

__all__ = ["ACTIVATIONS"]

_X, _GATE, _UP = input_elements("x"), input_elements("gate"), input_elements("up")
_D = input_elements("d_y")
_ROOT = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


def _silu(x: Term, functions: Functions) -> tuple[Term, Term]:
    """Value and derivative."""
    s = functions["sigmoid"](x)
    return x * s, s + x * s * (1 - s)


def _gelu(x: Term, functions: Functions) -> tuple[Term, Term]:
    """Value and derivative: Phi(x) + x phi(x), phi the density of the normal distribution."""
    phi = functions["exp"](x * x * -0.5, at_most_zero=True) * (1 / math.sqrt(2 * math.pi))
    cdf = functions["normal_cdf"](x)
    return x * cdf, cdf + x * phi


def _gelu_tanh(x: Term, functions: Functions) -> tuple[Term, Term]:
    """Value and derivative of x s(2 u), u = sqrt(2/pi) (x + 0.044715 x^3)."""
    square = x * x
    s = functions["sigmoid"](x * (square * (2 * _ROOT * _CUBIC) + 2 * _ROOT))
    slope = square * (6 * _ROOT * _CUBIC) + 2 * _ROOT
    return x * s, s + x * s * (1 - s) * slope


def _relu_squared(x: Term, functions: Functions) -> tuple[Term, Term]:
    """Value and derivative."""
    positive = maximum(x, 0)
    return positive * positive, positive * 2


_KINDS = {
    "silu": (_silu, ("sigmoid",), "x * sigmoid(x)"),
    "gelu": (_gelu, ("normal_cdf", "exp"), "x * Phi(x), Phi the normal distribution"),
    "gelu_tanh": (_gelu_tanh, ("sigmoid",), "GELU in its tanh form"),
    "relu_squared": (_relu_squared, (), "max(x, 0)^2"),
}
_GATED = {
    "swiglu": "silu",
    "geglu": "gelu",
    "geglu_tanh": "gelu_tanh",
    "relu_squared_gate": "relu_squared",
}


def _activation(name: str) -> Operator:
    function, functions, summary = _KINDS[name]
    return Operator(
        name,
        summary,
        (Operand("x"),),
        functions,
        lambda given, _: (Output("y", function(_X, given)[0]),),
        lambda given, _: (Output("d_x", _D * function(_X, given)[1]),),
    )


def _gated(name: str) -> Operator:
    function, functions, summary = _KINDS[_GATED[name]]

    def backward(given: Functions, _: frozenset[str]) -> tuple[Output, ...]:
        value, slope = function(_GATE, given)
        return Output("d_gate", _D * _UP * slope), Output("d_up", _D * value)

    return Operator(
        name,
        f"{summary} of the gate, times up",
        (Operand("gate"), Operand("up")),
        functions,
        lambda given, _: (Output("y", function(_GATE, given)[0] * _UP),),
        backward,
    )


ACTIVATIONS = (*map(_activation, _KINDS), *map(_gated, _GATED))
