"""Ball evaluators of functions: what a certificate compares an expression with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flint import arb, arb_series, fmpq

from odp.approximations.arb_elementary import (
    ELEMENTARY,
    NoEnclosure,
    Series,
    exact,
    integral,
    power_evaluator,
    quotient,
    sigmoid,
)
from odp.approximations.function import Function
from odp.approximations.functions import FUNCTIONS, power

__all__ = ["arb_evaluator", "enclosure"]


def arb_evaluator(function: Function) -> Callable[[Series], Series] | None:
    """How to evaluate a registered function on series; None for a function of the user's own.

    The evaluator raises NoEnclosure, or gives non-finite coefficients, where the ball touches a
    point at which the function is not analytic.
    """
    if function.exponent is not None:
        known = FUNCTIONS.get(function.name) or power(function.exponent)
        return power_evaluator(function.exponent) if known == function else None
    return _EVALUATORS.get(function.name) if FUNCTIONS.get(function.name) == function else None


def enclosure(function: Function, lo: float, hi: float) -> Any:
    """A ball around all values on ``[lo, hi]``, for functions monotone up to a branch point.

    Raises:
        NoEnclosure: if the function is not known to be monotone there.
    """
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


def _softplus_tail(x: Series) -> Series:
    return integral(-sigmoid(-x), x, (-x[0]).exp().log1p())


def _mish_gate(x: Series) -> Series:
    w = x.exp()
    return quotient(arb_series([1], x.prec), quotient(arb_series([2], x.prec), w * (w + 2)) + 1)


_EVALUATORS: dict[str, Callable[[Series], Series]] = {
    **{name: ELEMENTARY[name] for name in FUNCTIONS if name in ELEMENTARY},
    "sigmoid": sigmoid,
    "normal_cdf": _normal_cdf,
    "softplus_tail": _softplus_tail,
    "mish_gate": _mish_gate,
}

_MONOTONE: dict[str, Callable[[Any], Any]] = {
    "asin": lambda x: x.asin(),
    "acos": lambda x: x.acos(),
    "acosh": lambda x: x.acosh(),
}
