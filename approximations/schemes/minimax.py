"""Minimax: the polynomial or rational function with the smallest largest error of its type.

Fitted by Remez's exchange with the weight of the error that is asked for, in x^2 where the function
has a symmetry.  Coefficients are rounded to float32 last, in several forms of evaluation; what that
costs is measured on the expression that results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.expression import variable
from odp.approximations.function import Function
from odp.approximations.interval import Interval
from odp.approximations.polynomials import CoefficientRangeError, coefficient
from odp.approximations.remez import LevelFit, lower_bound, minimax
from odp.approximations.schemes.chebyshev_pade import linearised
from odp.approximations.schemes.rational_function import RationalFit, RationalProblem
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["MinimaxScheme"]

_LARGEST_DEGREE = 48
_LARGEST_TYPE = 11
_FREE_DIFFERENCE = 2
_POINTS = 700
_START_POINTS = 200
# A linearised start is within this factor of the minimax error of its type.
_HOPELESS = 50.0
# Remez stops at a millionth; rounding may stop it earlier.
_CONVERGED = 1.01


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
        fixed = request.parameters
        for cost, m, n in _types(problem, free=not {"numerator", "denominator"} <= set(fixed)):
            if n == 0:
                if {"numerator", "denominator"} & set(fixed):
                    continue
                degree = problem.degree(m)
                if request.wants(cost, degree=degree):
                    yield from _polynomial(problem, request, m, degree)
            elif "degree" not in fixed and request.wants(cost, numerator=m, denominator=n):
                for fit in _rational(problem, request, m, n):
                    if request.accepts(fit.error):
                        yield from problem.expressions(fit, request, self.name)


def _types(problem: RationalProblem, *, free: bool) -> list[tuple[float, int, int]]:
    """Cost and degrees; without fixed degrees only the types near the diagonal compete."""
    largest = _LARGEST_DEGREE // 2 if problem.symmetric else _LARGEST_DEGREE
    types = [(problem.polynomial_cost(m), m, 0) for m in range(not problem.odd, largest + 1)]
    for n in range(1, _LARGEST_TYPE + 1):
        for m in range(_LARGEST_TYPE + 2):
            if not free or abs(m - n) <= _FREE_DIFFERENCE:
                types.append((problem.cost(m, n), m, n))
    return sorted(types)


def _polynomial(
    problem: RationalProblem, request: Request, m: int, degree: int
) -> Iterator[Candidate]:
    system = problem.system(m, 0, math.inf, _POINTS)
    fit = None if system is None else minimax(system, wanted=request.error)
    if fit is None or not request.accepts(fit.error):
        return
    cost = problem.polynomial_cost(m)
    x, v = variable("x"), problem.variable
    for form in ("raw", "horner", "clenshaw"):
        extra = request.cost(form != "raw", form != "raw")
        if not request.wants(cost + extra, form=form):
            continue
        try:
            inner = getattr(v, form)(fit.p * fit.q[0] ** -1)
            expression = (x * inner if problem.odd else inner) + coefficient(problem.shift)
        except CoefficientRangeError:
            continue
        yield Candidate(
            expression,
            Parameters(degree=degree, form=form),
            f"minimax degree {degree} of {problem.function.name}, {form}",
        )


def _rational(problem: RationalProblem, request: Request, m: int, n: int) -> Iterator[RationalFit]:
    """The minimax fit of type (m, n); of a smaller type where that is no worse (degenerate)."""
    best, converged = _best_scale(problem, request, m, n)
    # Only if the user wants this type: a smaller one was a candidate of its own.
    if not converged and {"numerator", "denominator"} <= set(request.parameters):
        for a, b in ((m - 1, n - 1), (m - 1, n), (m, n - 1)):
            if a >= 0 and b >= 1:
                smaller, _ = _best_scale(problem, request, a, b)
                if smaller and (best is None or smaller.error < best.error):
                    best = smaller
    if best is not None:
        yield best


def _best_scale(
    problem: RationalProblem, request: Request, m: int, n: int
) -> tuple[RationalFit | None, bool]:
    """The better fit of those in the plain and the Moebius variable; whether it is minimax."""
    best: RationalFit | None = None
    for scale in problem.scales:
        level = _level(problem, request, m, n, scale)
        if level is None:
            continue
        fit = RationalFit(m, n, scale, level.p, level.q, level.error)
        if best is None or fit.error < best.error:
            best = fit
        if level.error <= _CONVERGED * level.bound:
            return fit, True
    return best, False


def _level(
    problem: RationalProblem, request: Request, m: int, n: int, scale: float
) -> LevelFit | None:
    system = problem.system(m, n, scale, _POINTS)
    if system is None:
        return None
    step = max(1, system.target.size // _START_POINTS)
    coarse = replace(
        system,
        numerator=system.numerator[::step],
        denominator=system.denominator[::step],
        target=system.target[::step],
        weight=system.weight[::step],
    )
    solved = linearised(coarse, request.error)
    if solved is None:
        return None
    p, q, error = solved
    if error > _HOPELESS * request.error or lower_bound(coarse, p, q) > request.error:
        return LevelFit(p, q, error, 0.0)
    return minimax(system, (p, q), request.error)
