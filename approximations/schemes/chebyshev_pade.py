"""Chebyshev-Pade: rational functions from the Chebyshev points, linearised.

Numerator and denominator are Chebyshev series whose linearised residual is small at the Chebyshev
points: the least-squares form of H. J. Maehly's Chebyshev-Pade equations, see `linearised`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from odp.approximations.fits.fit_problem import TypeFit
from odp.approximations.fits.linearised import linearised
from odp.approximations.schemes.rational_function import RationalProblem
from odp.approximations.schemes.scheme import Candidate, ComparisonScheme, Request

__all__ = ["ChebyshevPadeScheme"]

_LARGEST_TYPE = 11
_NODES = 200


class ChebyshevPadeScheme(ComparisonScheme):
    """Rational functions with one division."""

    name = "chebyshev_pade"
    summary = "rational function from the Chebyshev points, one division"
    parameters: ClassVar[Mapping[str, str]] = {
        "numerator": "degree of the numerator (in x^2 for functions with a symmetry)",
        "denominator": "degree of the denominator (likewise)",
        "form": "raw, scaled (by a power of two), horner or clenshaw (mapped to [-1, 1])",
    }

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Types (m, n) with m = n-1, n, n+1 by cost, in the plain and the Moebius variable."""
        problem = RationalProblem(request)
        for m, n in _types():
            if not request.wants(problem.cost(m, n), numerator=m, denominator=n):
                continue
            fits = [
                fit for scale in problem.scales if (fit := _fit(problem, m, n, scale)) is not None
            ]
            for fit in sorted(fits, key=lambda fit: fit.error):
                if not request.accepts(fit.error * (request.error if request.mixed else 1.0)):
                    continue
                yield from problem.rationals(fit, request, self.name)


def _types() -> list[tuple[int, int]]:
    pairs = [(n + d, n) for n in range(1, _LARGEST_TYPE + 1) for d in (-1, 0, 1)]
    return sorted(pairs, key=lambda pair: (sum(pair), -pair[0]))


def _fit(problem: RationalProblem, m: int, n: int, scale: float) -> TypeFit | None:
    """The rational function of type (m, n) in u, or None if it has a pole on the domain."""
    system = problem.system(m, n, scale, _NODES)
    solved = None if system is None else linearised(system, problem.request.level)
    return None if solved is None else TypeFit(m, n, scale, *solved)
