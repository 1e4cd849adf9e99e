"""Taylor polynomials at a point, because users ask for them by name.

All of the error is at the ends of the domain: on [-10, 0] degree 5 of exp at 0 is 40,000 times
further away than the minimax polynomial.

Source: B. Taylor, Methodus incrementorum directa et inversa, 1715.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import ClassVar

import numpy as np

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import CoefficientRangeError
from odp.approximations.expression import variable
from odp.approximations.forms.polynomials import coefficient
from odp.approximations.functions.function import Function
from odp.approximations.functions.taylor_coefficients import taylor_coefficients
from odp.approximations.interval import Interval
from odp.approximations.measure import measurement_grid
from odp.approximations.schemes.pade import expansion_point, sparse_horner
from odp.approximations.schemes.scheme import Candidate, ComparisonScheme, Request

__all__ = ["TaylorScheme"]

_LARGEST_DEGREE = 48
# A last term of more than this share says that the domain reaches to a singularity or beyond.
_SMALL = 2.0**-12


class TaylorScheme(ComparisonScheme):
    """Truncated Taylor series."""

    name = "taylor"
    summary = "truncated Taylor series at a point; for comparison"
    parameters: ClassVar[Mapping[str, str]] = {
        "degree": "degree of the polynomial",
        "point": "where the series is taken",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Every function whose series at the centre converges on the domain, not too slowly."""
        point = expansion_point(function, domain, geometric=False)
        series = taylor_coefficients(function, point, _LARGEST_DEGREE + 1)
        if series is None:
            return False
        radius = max(domain.hi - float(point), float(point) - domain.lo)
        sizes = [abs(float(c)) * radius**k for k, c in enumerate(series)]
        # Two, because of symmetries.
        return max(sizes[-2:]) < _SMALL * max(sizes)

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Degrees in ascending order."""
        function, domain = request.function, request.domain
        fixed = request.parameters.get("point")
        point = (
            expansion_point(function, domain, geometric=False)
            if fixed is None
            else Fraction(float(fixed))
        )
        series = taylor_coefficients(function, point, _LARGEST_DEGREE + 1)
        if series is None:
            return
        grid = measurement_grid(function, domain)
        x, exact = grid.points[::16], grid.reference[::16]
        weight = request.weigh(x, exact)
        defined = np.isfinite(weight)
        share = request.error if request.mixed else 1.0
        shifted = variable("x") - coefficient(point)
        value, power = np.zeros_like(x), np.ones_like(x)
        for degree in range(_LARGEST_DEGREE + 1):
            value = value + float(series[degree]) * power
            power = power * (x - float(point))
            # Without its leading term it is the polynomial of the degree before.
            if degree and not series[degree]:
                continue
            halved = not any(series[1 : degree + 1 : 2]) or not any(series[0 : degree + 1 : 2])
            cost = request.polynomial_cost(degree // 2 if halved else degree)
            if not request.wants(cost, degree=degree, point=float(point)):
                continue
            error = np.abs((value - exact) * weight)[defined]
            if not request.accepts(float(error.max()) * share):
                continue
            try:
                expression = sparse_horner(list(series[: degree + 1]), shifted)
            except CoefficientRangeError:
                continue
            where = f" at {float(point):g}" if point else ""
            yield Candidate(
                expression,
                Parameters(degree=degree, point=float(point)),
                f"taylor degree {degree} of {function.name}{where}",
            )
