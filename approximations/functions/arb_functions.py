"""Ball evaluators of functions: what a certificate compares an expression with."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from flint import arb, arb_series, fmpq

from odp.approximations.functions.arb_elementary import (
    ELEMENTARY,
    NoEnclosure,
    Series,
    exact,
    integral,
    positive,
    power_evaluator,
    quotient,
    sigmoid,
)
from odp.approximations.functions.arb_formula import arb_formula
from odp.approximations.functions.formula import Formula
from odp.approximations.functions.function import Function
from odp.approximations.functions.registry import FUNCTIONS, power

__all__ = ["arb_evaluator", "enclosure"]


def arb_evaluator(function: Function) -> Callable[[Series], Series] | None:
    """How to evaluate a function on series.

    None for a function that is neither registered nor made from a formula: what its numpy function
    computes is not known.

    The evaluator raises NoEnclosure, or gives non-finite coefficients, where the ball touches a
    point at which the function is not analytic.
    """
    if isinstance(function, Formula):
        return arb_formula(function.source)
    if function.exponent is not None:
        known = FUNCTIONS.get(function.name) or power(function.exponent)
        return power_evaluator(function.exponent) if known == function else None
    return _EVALUATORS.get(function.name) if FUNCTIONS.get(function.name) == function else None


def enclosure(function: Function, lo: float, hi: float) -> Any:
    """A ball around all values on ``[lo, hi]``, which may end in a branch point.

    Raises:
        NoEnclosure: if the function is neither a formula nor known to be monotone there.
    """
    if isinstance(function, Formula):
        return arb_formula(function.source).values(lo, hi)
    if function.exponent is not None and function.exponent > 0 and lo >= 0:
        exponent = exact(function.exponent)
        ends = [arb(0) if x == 0 else (arb(x).log() * exponent).exp() for x in (lo, hi)]
    elif function.name in _MONOTONE and arb_evaluator(function) is not None:
        ends = [_MONOTONE[function.name](arb(x)) for x in (lo, hi)]
    else:
        raise NoEnclosure(f"{function.name} has no enclosure on [{lo}, {hi}]")
    hull = ends[0].union(ends[1])
    if not hull.is_finite():
        raise NoEnclosure(f"{function.name} is not finite on [{lo}, {hi}]")
    return hull


def _normal_cdf(x: Series) -> Series:
    # Through erfc: 1 + erf cancels for negative x.
    return (-x * arb(fmpq(1, 2)).sqrt()).erfc() / 2


def _softplus(x: Series) -> Series:
    # From its derivative, which is narrower on a ball than the series of the logarithm.
    return integral(sigmoid(x), x, x[0].exp().log1p())


def _mish_gate(x: Series) -> Series:
    w = x.exp()
    return quotient(arb_series([1], x.prec), quotient(arb_series([2], x.prec), w * (w + 2)) + 1)


def _gelu_tanh(x: Series) -> Series:
    # x/2 (1 + tanh z) = x sigmoid(2 z)
    cubic = x + exact(Fraction("0.044715")) * (x * x * x)
    return x * sigmoid((8 / arb.pi()).sqrt() * cubic)


def _sinc(x: Series) -> Series:
    return arb_formula("sin(x)/x")(x)


_EVALUATORS: dict[str, Callable[[Series], Series]] = {
    **{name: ELEMENTARY[name] for name in FUNCTIONS if name in ELEMENTARY},
    "sigmoid": sigmoid,
    "normal_cdf": _normal_cdf,
    "softplus_tail": lambda x: _softplus(-x),
    "mish_gate": _mish_gate,
    "softplus": _softplus,
    "log_sigmoid": lambda x: -_softplus(-x),
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: x * _normal_cdf(x),
    "gelu_tanh": _gelu_tanh,
    "mish": lambda x: x * _mish_gate(x),
    "exp2": lambda x: (x * arb(2).log()).exp(),
    "log2": lambda x: positive(x).log() / arb(2).log(),
    "log10": lambda x: positive(x).log() / arb(10).log(),
    "sinc": _sinc,
}

_MONOTONE: dict[str, Callable[[Any], Any]] = {
    "asin": lambda x: x.asin(),
    "acos": lambda x: x.acos(),
    "acosh": lambda x: x.acosh(),
}
