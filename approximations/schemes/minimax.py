"""Minimax: the polynomial or rational function with the smallest largest error of its type.

Fitted by Remez's exchange with the weight of the error that is asked for, in x^2 where the function
has a symmetry; on a lopsided domain in x as well.  Coefficients are rounded to float32 last, in
several forms of evaluation; what that costs is measured on the expression that results.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.fits.minimax_fit import fit_type
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.rational_function import RationalProblem
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["MinimaxScheme"]

_LARGEST_DEGREE = 48
_LARGEST_TYPE = 11
# A difference of 2 alone left one answer in 20 a multiplication dearer; 4 takes 7 % more time.
_FREE_DIFFERENCE = 4
# Shorter side of a domain over the longer one.  Of 27 fits in x and in x^2 that in x was cheaper
# for 19 at 0, 9 at 0.1 and 1 at 0.6 on float32; for 26 up to 0.2 and 15 at 0.6 on fhe.
_LOPSIDED = 0.75


class MinimaxScheme(Scheme):
    """Polynomials and rational functions with one division, by Remez's exchange."""

    name = "minimax"
    summary = "smallest largest error of its type, by Remez's exchange"
    parameters: ClassVar[Mapping[str, str]] = {
        "degree": "degree of a polynomial",
        "numerator": "degree of a rational function's numerator (in x^2 if there is a symmetry)",
        "denominator": "degree of its denominator (likewise)",
        "parity": "auto (in x^2 if there is a symmetry) or none (in x)",
        "form": "raw, scaled (by a power of two), horner or clenshaw (mapped to [-1, 1])",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Every function that is finite on the domain."""
        return True

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Polynomials and types (m, n) by cost."""
        fixed = set(request.parameters)
        free = not {"numerator", "denominator"} <= fixed
        # The weighted error of a mixed budget is a share of what is allowed.
        share = request.error if request.mixed else 1.0
        problems = _problems(request)
        plain = request.parameters.get("parity") == "none"
        types = (_types(problem, free=free) for problem in problems)
        for cost, m, n, problem in heapq.merge(*types, key=lambda each: each[0]):
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
            for candidate in forms(fit, request, self.name):
                if plain or problem is not problems[0]:
                    named = Parameters(**candidate.parameters, parity="none")
                    candidate = replace(candidate, parameters=named)
                yield candidate


def _problems(request: Request) -> list[RationalProblem]:
    """The fit with the function's symmetry and, where that may be worse, the one without.

    Even and odd fits are the best on [-b, b].  On [0, b] they cannot use what makes the function
    simple there: silu on [0, 8] is 700 times closer with 9 operations without the symmetry.
    """
    parity = request.parameters.get("parity")
    if parity == "none":
        return [RationalProblem(request, parity="none")]
    symmetric = RationalProblem(request)
    shorter, longer = sorted((-request.domain.lo, request.domain.hi))
    lopsided = shorter < _LOPSIDED * longer
    # Degrees in x^2 and in x are not the same request.
    asked = {"numerator", "denominator", "degree"} & set(request.parameters)
    if parity not in (None, "auto"):
        return []
    if parity == "auto" or asked or not (symmetric.symmetric and lopsided):
        return [symmetric]
    return [symmetric, RationalProblem(request, parity="none")]


def _types(
    problem: RationalProblem, *, free: bool
) -> Iterator[tuple[float, int, int, RationalProblem]]:
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
            yield cost, m, n, problem
        else:
            heapq.heappush(waiting, (problem.cost(m, n), True, m, n))
