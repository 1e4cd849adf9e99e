"""Multipoint Pade: the rational function of type (m, n) through m + n + 1 points.

The points are those of a Chebyshev polynomial in the variable of the fit (x, x^2 with a symmetry,
or its Moebius image), as they are or gathered at one end: where they should lie depends on where
the poles do, so the best of a few densities is taken.  The coefficients are the null vector of
``P - f Q`` at the points; an interpolant with a pole on the domain is left out.

Source: G. A. Baker and P. Graves-Morris, Pade Approximants, 2nd ed., chapter 7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from odp.approximations.fits.fit_problem import TypeFit
from odp.approximations.fits.null_vector import null_vector
from odp.approximations.schemes.rational_function import RationalProblem
from odp.approximations.schemes.scheme import Candidate, ComparisonScheme, Request

__all__ = ["MultipointPadeScheme"]

_LARGEST_TYPE = 11
_POINTS = 700
# Powers of the position from 0 to 1.
_DENSITIES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


class MultipointPadeScheme(ComparisonScheme):
    """Rational interpolation, one division."""

    name = "multipoint_pade"
    summary = "rational function through m + n + 1 points, one division; for comparison"
    parameters: ClassVar[Mapping[str, str]] = {
        "numerator": "degree of the numerator (in x^2 for functions with a symmetry)",
        "denominator": "degree of the denominator (likewise)",
        "form": "form of evaluation",
    }

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Types by cost, each in the better of the plain and the Moebius variable."""
        problem = RationalProblem(request)
        largest = range(_LARGEST_TYPE + 1)
        types = sorted((problem.cost(m, n), m, n) for m in largest for n in largest if n)
        fixed = {"numerator", "denominator"} <= set(request.parameters)
        share = request.error if request.mixed else 1.0
        for cost, m, n in types:
            if not request.wants(cost, numerator=m, denominator=n):
                continue
            if not fixed and abs(m - n) > 1:
                continue
            fits = [
                fit
                for scale in problem.scales
                for density in _DENSITIES
                if (fit := _interpolant(problem, m, n, scale, density))
            ]
            if not fits:
                continue
            fit = min(fits, key=lambda f: f.error)
            if request.accepts(fit.error * share):
                yield from problem.rationals(fit, request, self.name)


def _interpolant(
    problem: RationalProblem, m: int, n: int, scale: float, density: float
) -> TypeFit | None:
    """The interpolant; None if it has a pole on the domain or the type is degenerate."""
    system = problem.system(m, n, scale, _POINTS)
    if system is None:
        return None
    count = m + n + 1
    # The grid's points are themselves dense Chebyshev points, in ascending order.
    share = ((2 * np.arange(count) + 1) / (2 * count)) ** density
    nodes = np.unique(np.round(share * (system.target.size - 1)).astype(np.intp))
    if nodes.size < count:
        return None
    at = system.at(nodes)
    matrix = np.hstack([at.numerator, -at.wanted]) * at.weight[:, None]
    solution = null_vector(matrix)
    if solution is None:
        return None
    p, q = solution[: m + 1], solution[m + 1 :]
    error = float(np.abs(system.error(p, q)).max())
    return TypeFit(m, n, scale, p, q, error) if np.isfinite(error) else None
