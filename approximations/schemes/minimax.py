"""Minimax: the polynomial or rational function with the smallest largest error of its type.

Fitted by Remez's exchange with the weight of the error that is asked for, in x^2 where the function
has a symmetry.  Coefficients are rounded to float32 last, in several forms of evaluation; what that
costs is measured on the expression that results.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import ClassVar

from odp.approximations.fits.minimax_fit import fit_type
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.rational_function import RationalProblem
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["MinimaxScheme"]

_LARGEST_DEGREE = 48
_LARGEST_TYPE = 11
_FREE_DIFFERENCE = 2


class MinimaxScheme(Scheme):
    """Polynomials and rational functions with one division, by Remez's exchange."""

    name = "minimax"
    summary = "smallest largest error of its type, by Remez's exchange"
    parameters: ClassVar[Mapping[str, str]] = {
        "degree": "degree of a polynomial",
        "numerator": "degree of a rational function's numerator (in x^2 if there is a symmetry)",
        "denominator": "degree of its denominator (likewise)",
        "form": "raw, scaled (by a power of two), horner or clenshaw (mapped to [-1, 1])",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Every function that is finite on the domain."""
        return True

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Polynomials and types (m, n) by cost."""
        problem = RationalProblem(request)
        fixed = set(request.parameters)
        free = not {"numerator", "denominator"} <= fixed
        # The weighted error of a mixed budget is a share of what is allowed.
        share = request.error if request.mixed else 1.0
        for cost, m, n in _types(problem, free=free):
            if not request.wants(cost):
                return
            if n:
                if "degree" in fixed or not request.wants(cost, numerator=m, denominator=n):
                    continue
            elif {"numerator", "denominator"} & fixed or not request.wants(
                cost, degree=problem.degree(m)
            ):
                continue
            # A smaller type is a candidate of its own, unless the user wants this one.
            thorough = "degree" in fixed or not free
            fit = fit_type(problem, m, n, wanted=request.level, thorough=thorough)
            if fit is None or not request.accepts(fit.error * share):
                continue
            forms = problem.rationals if n else problem.polynomials
            yield from forms(fit, request, self.name)


def _types(problem: RationalProblem, *, free: bool) -> Iterator[tuple[float, int, int]]:
    """Cost and degrees by rising cost; without fixed degrees only types near the diagonal.

    The cost of a type takes 30 ms to find the first time, so it is left until a lower bound of it
    is the next one: all types together took 1.2 s, of which a search needs the first few.
    """
    largest = _LARGEST_DEGREE // 2 if problem.symmetric else _LARGEST_DEGREE
    types = [(m, 0) for m in range(not problem.odd, largest + 1)]
    for n in range(1, _LARGEST_TYPE + 1):
        for m in range(_LARGEST_TYPE + 2):
            if not free or abs(m - n) <= _FREE_DIFFERENCE:
                types.append((m, n))
    waiting = [(problem.least_cost(m, n), False, m, n) for m, n in types]
    heapq.heapify(waiting)
    while waiting:
        cost, known, m, n = heapq.heappop(waiting)
        if known:
            yield cost, m, n
        else:
            heapq.heappush(waiting, (problem.cost(m, n), True, m, n))
