"""sin and cos on wide domains: the pair at x/2^k, then k doublings of the angle.

A doubling is a squaring of ``c + i s``: ``(c - s)(c + s)`` and ``2 c s``, two multiplications.  It
doubles an error of the pair, so k doublings multiply it by 2^k, as little as the argument's own
rounding; the shorter rule ``2 c^2 - 1`` for the cosine alone would multiply it by 4^k.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from odp.approximations.approximant import Parameters
from odp.approximations.expression import Expression, variable
from odp.approximations.function import Function
from odp.approximations.interval import Interval
from odp.approximations.polynomials import (
    CoefficientRangeError,
    Variable,
    chebyshev_nodes,
    interpolate,
)
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["AngleDoublingScheme"]

_MOST_DOUBLINGS = 20
_LARGEST_DEGREE = 15


class AngleDoublingScheme(Scheme):
    """(cos, sin) of x/2^k by polynomials, then k complex squarings."""

    name = "angle_doubling"
    summary = "cos and sin of x/2^k by polynomials, then k doublings of the angle"
    parameters: ClassVar[Mapping[str, str]] = {
        "doublings": "k: how often the angle is doubled",
        "degree": "degree of the cosine polynomial; the sine's is one more or one less",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Only sin and cos."""
        return function.name in ("sin", "cos")

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """By cost, those whose error after the doublings is small enough."""
        radius = request.domain.magnitude
        options = [
            # x^2, the two polynomials, x times the odd one, two multiplications per doubling; the
            # last doubling computes one of the pair.
            (request.cost(even // 2 + (odd - 1) // 2 + 2 * k + 1, 2, depth=k), k, even, odd)
            for k in range(1, _MOST_DOUBLINGS + 1)
            for even in range(2, _LARGEST_DEGREE + 1, 2)
            for odd in (even - 1, even + 1)
        ]
        for cost, k, even, odd in sorted(options):
            if not request.wants(cost, doublings=k, degree=even):
                continue
            reach = radius / 2**k
            cosine, cosine_error = _polynomial(reach, even, odd=False)
            sine, sine_error = _polynomial(reach, odd, odd=True)
            # Either error may turn fully into the wanted one.
            if not request.accepts(2.0**k * max(cosine_error, sine_error)):
                continue
            try:
                expression = _doubled(request.function.name, cosine, sine, reach, k)
            except CoefficientRangeError:
                continue
            yield Candidate(
                expression,
                Parameters(doublings=k, degree=even),
                f"{request.function.name} by {k} angle doublings of degree {even} and {odd}",
            )


def _polynomial(reach: float, degree: int, *, odd: bool) -> tuple[np.ndarray, float]:
    """Chebyshev coefficients in the squared argument, scaled to [0, reach^2], and the error."""
    square = Variable(variable("x"), 0.0, reach * reach)
    nodes = np.sqrt(square.points(chebyshev_nodes(degree // 2 + 1)))
    coefficients = interpolate(np.sin(nodes) / nodes if odd else np.cos(nodes))
    t = np.linspace(0.0, reach, 129)
    position = 2 * (t / reach) ** 2 - 1
    value = np.polynomial.chebyshev.chebval(position, coefficients)
    error = np.abs(t * value - np.sin(t)) if odd else np.abs(value - np.cos(t))
    return coefficients, float(error.max())


def _doubled(name: str, cosine: np.ndarray, sine: np.ndarray, reach: float, k: int) -> Expression:
    x = variable("x")
    # Polynomials in x^2 itself: the power of two in x/2^k goes into the coefficients exactly.
    square = Variable(x * x, 0.0, (reach * 2.0**k) ** 2)
    c = square.raw(cosine)
    s = x * square.raw(sine / 2.0**k)
    for step in range(k):
        last = step == k - 1
        product = c * s
        if last and name == "sin":
            return product + product
        c, s = (c - s) * (c + s), product + product
    return c
