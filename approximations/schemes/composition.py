"""Functions that are compositions of others: powers and atanh through log and exp.

``x^p = exp(p log x)`` for domains of many decades; ``atanh x = log((1+x)/(1-x))/2`` close to +-1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import CoefficientRangeError
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression, variable
from odp.approximations.forms.polynomials import coefficient
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["CompositionScheme"]

# log over a few decades and an exponential: nothing cheaper exists.
_LEAST_MULTIPLICATIONS, _LEAST_DIVISIONS = 10, 2


class CompositionScheme(Scheme):
    """exp(p log x) and log((1+x)/(1-x))/2."""

    name = "composition"
    summary = "powers as exp(p log x), atanh as log((1+x)/(1-x))/2"
    parameters: ClassVar[Mapping[str, str]] = {}

    def applies(self, function: Function, domain: Interval) -> bool:
        """Powers on positive numbers, and atanh."""
        return (function.exponent is not None and domain.lo > 0) or function.name == "atanh"

    def automatic(self, function: Function, domain: Interval) -> bool:
        """Not for whole powers and roots that Newton or Heron reach exactly."""
        return function.name not in ("sqrt", "rsqrt", "reciprocal")

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """The one composition, with the error budget split between its two functions."""
        least = request.cost(_LEAST_MULTIPLICATIONS, 2, divisions=_LEAST_DIVISIONS)
        if not request.wants(least):
            return
        function = request.function
        try:
            if function.exponent is not None:
                expression = _power(request, float(function.exponent))
                name = f"exp({float(function.exponent):g} log x)"
            else:
                expression = _atanh(request)
                name = "log((1+x)/(1-x))/2"
        except (ApproximationError, CoefficientRangeError):
            return
        yield Candidate(expression, Parameters(), f"{function.name} as {name}")


def _power(request: Request, p: float) -> Expression:
    domain = request.domain
    exponents = sorted((p * math.log(domain.lo), p * math.log(domain.hi)))
    error = request.error
    if not request.relative:
        error /= math.exp(exponents[1])
    # A relative error of x^p is p times the absolute error of log x, plus that of exp.
    error = min(error, 0.5)
    logarithm = request.approximate("log", domain, error / (2 * abs(p)), False, None)
    spread = Interval(exponents[0] - error, exponents[1] + error)
    exponential = request.approximate("exp", spread, error / 2, True, None)
    return exponential.substitute(x=logarithm * coefficient(p))


def _atanh(request: Request) -> Expression:
    if request.relative:
        raise ApproximationError("the composition has no relative error at 0")
    domain = request.domain
    x = variable("x")
    lo, hi = ((1 + end) / (1 - end) for end in (domain.lo, domain.hi))
    # Rounding the quotient may leave the range by an ulp or two.
    spread = Interval(lo * (1 - 2.0**-20), hi * (1 + 2.0**-20))
    logarithm = request.approximate("log", spread, 1.9 * request.error, False, None)
    return logarithm.substitute(x=(1 + x) / (1 - x)) * 0.5
