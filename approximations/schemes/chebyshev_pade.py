"""Chebyshev-Pade: rational functions from the Chebyshev points, linearised.

Numerator and denominator are Chebyshev series whose linearised residual ``P - f Q`` is small at
the Chebyshev points (the least-squares form of H. J. Maehly's Chebyshev-Pade equations), reweighted
a few times by the denominator found before (H. L. Loeb), so that the residual becomes the error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from odp.approximations.function import Function
from odp.approximations.interval import Interval
from odp.approximations.remez import Problem
from odp.approximations.schemes.rational_function import RationalFit, RationalProblem
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["ChebyshevPadeScheme", "linearised"]

Array = NDArray[np.float64]

_LARGEST_TYPE = 11
_REWEIGHTINGS = 5
_NODES = 200
# Reweighting gains up to a factor of 3 or so after the second time.
_HOPELESS = 20.0


class ChebyshevPadeScheme(Scheme):
    """Rational functions with one division."""

    name = "chebyshev_pade"
    summary = "rational function from the Chebyshev points, one division"
    parameters: ClassVar[Mapping[str, str]] = {
        "numerator": "degree of the numerator (in x^2 for functions with a symmetry)",
        "denominator": "degree of the denominator (likewise)",
        "form": "raw, scaled (by a power of two), horner or clenshaw (mapped to [-1, 1])",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Every function that is finite on the domain."""
        return True

    def automatic(self, function: Function, domain: Interval) -> bool:
        """No: the minimax scheme starts from these fits and is never worse."""
        return False

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
                if not request.accepts(fit.error):
                    continue
                yield from problem.expressions(fit, request, self.name)


def _types() -> list[tuple[int, int]]:
    pairs = [(n + d, n) for n in range(1, _LARGEST_TYPE + 1) for d in (-1, 0, 1)]
    return sorted(pairs, key=lambda pair: (sum(pair), -pair[0]))


def _fit(problem: RationalProblem, m: int, n: int, scale: float) -> RationalFit | None:
    """The rational function of type (m, n) in u, or None if it has a pole on the domain."""
    system = problem.system(m, n, scale, _NODES)
    solved = None if system is None else linearised(system, problem.error)
    return None if solved is None else RationalFit(m, n, scale, *solved)


def linearised(system: Problem, wanted: float) -> tuple[Array, Array, float] | None:
    """Reweighted linear least squares for P - f Q; None where the denominator changes sign."""
    numerator_basis, denominator_basis = system.numerator, system.denominator
    target, weight = system.target, system.weight
    columns = numerator_basis.shape[1]
    matrix = np.hstack([numerator_basis, -target[:, None] * denominator_basis])
    reweight = np.ones_like(target)
    best: tuple[Array, Array, float] | None = None
    for iteration in range(_REWEIGHTINGS):
        if iteration > 1 and best is not None and best[2] > _HOPELESS * wanted:
            break
        scaled = matrix * (weight * reweight)[:, None]
        # Columns of very different size (a function over many decades) would spoil the SVD.
        norms = np.linalg.norm(scaled, axis=0)
        norms[norms == 0] = 1.0
        try:
            # The triangular factor has the same right singular vectors and few rows.
            triangle = np.linalg.qr(scaled / norms, mode="r")
            solution = np.linalg.svd(triangle)[2][-1] / norms
        except np.linalg.LinAlgError:
            return best
        p, q = solution[:columns], solution[columns:]
        divisor = denominator_basis @ q
        largest = float(np.abs(divisor).max())
        if not math.isfinite(largest) or largest == 0.0:
            return best
        if not (divisor > 0).all() and not (divisor < 0).all():
            reweight = 1 / np.maximum(np.abs(divisor), 1e-4 * largest)
            continue
        error = float((np.abs(numerator_basis @ p / divisor - target) * weight).max())
        if best is None or error < best[2]:
            best = (p, q, error)
        reweight = 1 / np.maximum(np.abs(divisor), 1e-13 * largest)
    return best
