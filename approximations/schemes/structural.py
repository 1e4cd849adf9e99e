"""Functions that are simple expressions in another: x times a gate, a gate moved, exponentials.

``silu = x sigmoid(x)``, ``gelu = x Phi(x)``, ``tanh x = 2 sigmoid(2x) - 1``, ``erf x = 2 Phi(x
sqrt(2)) - 1``, ``Phi(x) = (1 + erf(x/sqrt(2)))/2``, ``cosh`` and ``sinh`` from exp and its inverse.
They compete with a rational function made for the function itself (x/2 plus an even part for the
first two), which is cheaper on narrow domains; a product with x has the error of the gate times x,
and keeps the zero at 0 exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression, variable
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["StructuralScheme"]

# A gate on a narrow domain takes as much; nothing cheaper is built here.
_LEAST_OPERATIONS = 2
# Without those that would come back to this scheme or are never cheapest.
_PARTS = ("minimax", "chebyshev", "logistic_chain", "constant_chain", "squaring")


@dataclass(frozen=True)
class _Form:
    """A function from another.

    Attributes:
        part: the other function.
        text: for a person.
        slope: its argument is slope * x.
        build: the expression from that of the part.
        magnified: the absolute error of the whole over that of the part, on a domain; for a part
            by relative error, over that.
        relative: whether the part is needed by relative error.
    """

    part: str
    text: str
    slope: float
    build: Callable[[Expression], Expression]
    magnified: Callable[[Interval], float]
    relative: bool = False


_X = variable("x")
_FORMS = {
    "silu": _Form("sigmoid", "x sigmoid(x)", 1.0, lambda g: _X * g, lambda d: d.magnitude),
    "gelu": _Form("normal_cdf", "x Phi(x)", 1.0, lambda g: _X * g, lambda d: d.magnitude),
    "tanh": _Form("sigmoid", "2 sigmoid(2x) - 1", 2.0, lambda g: g + g - 1, lambda d: 2.0),
    "erf": _Form(
        "normal_cdf", "2 Phi(sqrt(2) x) - 1", math.sqrt(2), lambda g: g + g - 1, lambda d: 2.0
    ),
    "normal_cdf": _Form(
        "erf", "(1 + erf(x/sqrt(2)))/2", math.sqrt(0.5), lambda g: g * 0.5 + 0.5, lambda d: 0.5
    ),
    # E + 1/(4E) with E = exp(x)/2; its relative error moves both terms.
    "cosh": _Form(
        "exp",
        "(exp(x) + exp(-x))/2",
        1.0,
        lambda e: e * 0.5 + 0.5 / e,
        lambda d: math.cosh(d.magnitude),
        relative=True,
    ),
    "sinh": _Form(
        "exp",
        "(exp(x) - exp(-x))/2",
        1.0,
        lambda e: e * 0.5 - 0.5 / e,
        lambda d: math.cosh(d.magnitude),
        relative=True,
    ),
}


class StructuralScheme(Scheme):
    """A function as a simple expression in another one."""

    name = "structural"
    summary = "silu, gelu, tanh, erf, cosh, ... as expressions in a gate or an exponential"
    parameters: ClassVar[Mapping[str, str]] = {}

    def applies(self, function: Function, domain: Interval) -> bool:
        """The functions of the table above."""
        return function.name in _FORMS

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """The one form, its part as cheap as the budget allows."""
        form = _FORMS[request.function.name]
        # Only cosh has a form whose relative error is the part's.
        if request.relative and request.function.name != "cosh":
            return
        if not request.wants(request.cost(_LEAST_OPERATIONS)):
            return
        domain = request.domain
        inner = Interval(domain.lo * form.slope, domain.hi * form.slope)
        error = request.error
        if not request.relative:
            error /= form.magnified(domain)
        # A little of the budget is left for rounding in the product or sum.
        error *= 1 - 2.0**-6
        try:
            part = request.approximate(form.part, inner, min(error, 0.5), form.relative, _PARTS)
        except ApproximationError:
            return
        x = _X + _X if form.slope == 2.0 else _X * form.slope
        yield Candidate(
            form.build(part.substitute(x=x) if form.slope != 1.0 else part),
            Parameters(),
            f"{request.function.name} as {form.text}",
        )
