"""Functions from formulas: what a user types, with all that the schemes want to know of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

import numpy as np

from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval

__all__ = ["Formula", "formula"]

# Declared on a part of what their formulas define, which the passes rely on.
_NARROWER = ("softplus_tail", "tan")
_FINGERPRINT = (0.37, 0.61)


@dataclass(frozen=True)
class Formula(Function):
    """A function that a formula defines; its name is the formula.

    Two are equal if their formulas are, whatever the variable was called.  `domain` is where the
    parts with a branch point and an argument linear in x are real; what else there is, is looked
    for on each domain that is asked for.
    """

    def _check_inside(self, domain: Interval) -> None:
        from odp.approximations.functions.analyticity import check_analytic

        check_analytic(self, domain)


def formula(expression: Any) -> Function:
    """The function of a sympy expression: the registered one that it is, or a new one.

    Args:
        expression: in the variable ``x``, as `parsing.parse` and `parsing.from_sympy` make it.

    >>> from odp.approximations.functions.parsing import parse
    >>> formula(parse("1/(1 + exp(-x))")).name
    'sigmoid'
    >>> formula(parse("x*exp(-x**2)")).parity
    'odd'
    """
    return _registered(expression) or _new(expression)


@lru_cache(maxsize=256)
def _new(expression: Any) -> Function:
    from odp.approximations.functions.arb_formula import arb_formula
    from odp.approximations.functions.numpy_formula import NumpyFormula
    from odp.approximations.functions.symmetry import symmetry

    text = _canonical(expression)
    evaluate = NumpyFormula(text)
    domain = _natural_domain(expression)
    bare = Formula(text, text, evaluate, domain)
    ends = [bound for bound in (domain.lo, domain.hi) if math.isfinite(bound)]
    found = symmetry(expression, arb_formula(text).digits)
    return Formula(
        text,
        text,
        evaluate,
        domain,
        parity=found.parity,
        positive_scale=domain == Interval(0.0, math.inf),
        centre_value=found.centre,
        singularities=tuple(x for x in ends if not np.isfinite(bare.numpy([x])).all()),
        slope=found.slope,
    )


def _canonical(expression: Any) -> str:
    """Text that reads back as the same expression."""
    from odp.approximations.functions.parsing import parse

    text = str(expression)
    for _ in range(4):
        again = str(parse(text))
        if again == text:
            break
        text = again
    return text


def _registered(expression: Any) -> Function | None:
    """The registered function, or the power, that a formula is."""
    from odp.approximations.functions.arb_formula import arb_formula
    from odp.approximations.functions.formula_vocabulary import symbol
    from odp.approximations.functions.registry import FUNCTIONS, power
    from odp.approximations.functions.symmetry import vanishes

    if expression.is_Pow and expression.base == symbol() and expression.exp.is_Rational:
        exponent = Fraction(int(expression.exp.p), int(expression.exp.q))
        for function in FUNCTIONS.values():
            if function.exponent == exponent:
                return function
        # Whole powers are defined on the whole line, the function pow(2) on half of it.
        return power(exponent) if exponent.denominator > 1 else None
    values = _fingerprint(arb_formula(_canonical(expression)).digits)
    if values is None:
        return None
    for name, (other, others) in _fingerprints().items():
        close = all(abs(a - b) <= 1e-20 for a, b in zip(values, others, strict=True))
        if close and vanishes(expression - other):
            return FUNCTIONS[name]
    return None


@cache
def _fingerprints() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Expression and values of the registered functions that a formula may be."""
    from odp.approximations.functions.arb_formula import arb_formula
    from odp.approximations.functions.registry import FUNCTIONS

    table = {}
    for name, function in FUNCTIONS.items():
        values = _fingerprint(arb_formula(function.source).digits)
        if values is not None and name not in _NARROWER:
            table[name] = (function.sympy, values)
    return table


def _fingerprint(digits: Callable[[float], Any]) -> tuple[Any, ...] | None:
    values = tuple(digits(x) for x in _FINGERPRINT)
    return None if None in values else values


def _natural_domain(expression: Any) -> Interval:
    """Where logarithms, roots and inverse functions of ``a*x + b`` are real."""
    import sympy

    from odp.approximations.functions.formula_vocabulary import symbol

    lo, hi = -math.inf, math.inf
    for part in sympy.preorder_traversal(expression):
        bounds = _argument_bounds(part)
        if bounds is None:
            continue
        argument = part.base if part.is_Pow else part.args[0]
        slope = sympy.diff(argument, symbol())
        if not (slope.is_number and slope.is_nonzero and slope.is_real):
            continue
        ends = [
            float((bound - argument.subs(symbol(), 0)) / slope) if math.isfinite(bound) else bound
            for bound in bounds
        ]
        if slope.is_negative:
            ends = [-end if math.isinf(end) else end for end in reversed(ends)]
        lo, hi = max(lo, ends[0]), min(hi, ends[1])
    return Interval(lo, hi) if lo < hi else Interval(-math.inf, math.inf)


def _argument_bounds(part: Any) -> tuple[float, float] | None:
    """Between what the argument of a function has to lie for real values."""
    if part.is_Pow:
        return None if part.exp.is_Integer or part.base.is_number else (0.0, math.inf)
    return {
        "log": (0.0, math.inf),
        "loggamma": (0.0, math.inf),
        "acosh": (1.0, math.inf),
        "asin": (-1.0, 1.0),
        "acos": (-1.0, 1.0),
        "atanh": (-1.0, 1.0),
    }.get(part.func.__name__)
