"""The minimax fit of one type: a cheap start, Remez's exchange, and programs where that fails."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from odp.approximations.fits.differential_correction import differential_correction
from odp.approximations.fits.fit_problem import FitProblem, TypeFit
from odp.approximations.fits.linearised import linearised
from odp.approximations.fits.precise_exchange import precise_exchange
from odp.approximations.fits.remez import LevelFit, Problem, lower_bound, minimax

__all__ = ["CONVERGED", "FINE_POINTS", "fit_type"]

CONVERGED = 1.01
"""A fit within this factor of its bound is minimax; rounding may stop the exchange earlier."""

_POINTS = 700
FINE_POINTS = 2400
"""At these a thorough fit has its extrema."""

_START_POINTS = 200
# From here on more digits are worth their time.
_PRECISE = 1 + 2e-4
_TINY = 1e-7
# A linearised start is within this factor of the minimax error of its type.
_HOPELESS = 50.0


def fit_type(
    problem: FitProblem, m: int, n: int, *, wanted: float = math.inf, thorough: bool = False
) -> TypeFit | None:
    """The fit of type (m, n) with the smallest weighted error.

    Args:
        problem: the function, its domain, weight, symmetry and fixed coefficients.
        m: degree of the numerator in the problem's variable.
        n: degree of the denominator; 0 for a polynomial.
        wanted: give up as soon as no fit can be as good as this.
        thorough: whether to fit at more points, and to solve linear programs (about 0.1 s) where
            the exchange does not prove that its fit is minimax, as for degenerate types.

    Returns:
        The best fit found.  It is minimax where its `error` is at most `CONVERGED` times its
        `bound`; the bound is 0 where nothing is known.  None if no fit without a pole was found.
    """
    best: TypeFit | None = None
    for fit in _exchanged(problem, m, n, wanted):
        best = _better(best, fit)
        if best.error <= CONVERGED * best.bound:
            break
    if not thorough and problem.alternates:
        return best
    if best is None or (best.error > CONVERGED * best.bound and not _tiny(problem, best)):
        for fit in _programmed(problem, m, n, best):
            best = _better(best, fit)
    if best is None:
        return None
    best = _refined(problem, best)
    if best.error > _PRECISE * best.bound and problem.alternates:
        best = precise_exchange(problem, best, FINE_POINTS)
    forced = problem.forced_error
    return replace(best, error=max(best.error, forced), bound=max(best.bound, forced))


def _tiny(problem: FitProblem, fit: TypeFit) -> bool:
    """Whether an error is too small for linear programs, which have tolerances of their own."""
    system = problem.system(fit.m, fit.n, fit.scale, _POINTS)
    return system is None or fit.error < _TINY * float(np.abs(system.weight * system.target).max())


def _better(best: TypeFit | None, fit: TypeFit) -> TypeFit:
    if best is None or fit.error < best.error:
        # What one fit proves holds for all of the type.
        known = 0.0 if best is None else best.bound
        return _with_bound(fit, max(fit.bound, known))
    return _with_bound(best, max(fit.bound, best.bound))


def _with_bound(fit: TypeFit, bound: float) -> TypeFit:
    return replace(fit, bound=min(bound, fit.error))


def _exchanged(problem: FitProblem, m: int, n: int, wanted: float) -> Iterator[TypeFit]:
    """Fits by the exchange, in the affine and the Moebius variable."""
    for scale in problem.scales if problem.alternates else ():
        system = problem.system(m, n, scale, _POINTS)
        if system is None:
            continue
        level = _rational(system, wanted) if n else minimax(system, wanted=wanted)
        if level is not None:
            yield TypeFit(m, n, scale, level.p, level.q, level.error, level.bound)


def _rational(system: Problem, wanted: float) -> LevelFit | None:
    coarse = system.at(slice(None, None, max(1, system.target.size // _START_POINTS)))
    solved = linearised(coarse, wanted)
    if solved is None:
        return None
    p, q, error = solved
    if error > _HOPELESS * wanted or lower_bound(coarse, p, q) > wanted:
        return LevelFit(p, q, error, 0.0)
    return minimax(system, (p, q), wanted)


def _programmed(problem: FitProblem, m: int, n: int, best: TypeFit | None) -> Iterator[TypeFit]:
    """Fits by linear programs, each improved by the exchange where that is possible."""
    for scale in problem.scales:
        # Where the numerator's degree is lowered by a power, the basis is too badly conditioned.
        if math.isfinite(scale) and m != n:
            continue
        system = problem.system(m, n, scale, _POINTS)
        if system is None:
            continue
        start = None
        if best is not None and best.scale == scale:
            start = LevelFit(best.numerator, best.denominator, best.error, 0.0)
        found = differential_correction(system, start)
        level = minimax(system, (found.p, found.q)) if problem.alternates else None
        if level is not None and level.error < found.error:
            found = LevelFit(level.p, level.q, level.error, max(level.bound, found.bound))
        yield TypeFit(m, n, scale, found.p, found.q, found.error, found.bound)


def _refined(problem: FitProblem, fit: TypeFit) -> TypeFit:
    """The same fit with its extrema found on a finer grid."""
    system = problem.system(fit.m, fit.n, fit.scale, FINE_POINTS)
    if system is None:
        return fit
    error = float(np.abs(system.error(fit.numerator, fit.denominator)).max())
    level = minimax(system, (fit.numerator, fit.denominator)) if problem.alternates else None
    if level is not None and (level.error < error or not math.isfinite(error)):
        known = max(level.bound, min(fit.bound, level.error))
        return TypeFit(fit.m, fit.n, fit.scale, level.p, level.q, level.error, known)
    if not math.isfinite(error):
        return fit
    return replace(fit, error=error, bound=min(fit.bound, error))
