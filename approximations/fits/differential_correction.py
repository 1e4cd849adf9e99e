"""Differential correction: the best rational fit on a grid by linear programs, degenerate or not.

``P/Q`` comes within ``E`` of the target at all points exactly where ``|w (P - f Q)| <= E Q`` with
``Q > 0``: linear in the coefficients for a given ``E``.  Each step lowers ``E`` to the error of the
solution of one linear program; it converges from any start, quadratically where the best fit is
not degenerate.  Remez's exchange is much faster, but finds nothing where the best fit of a type
has fewer alternations than the type suggests, or where its start is too far away.

Source: I. Barrodale, M. J. D. Powell, F. D. K. Roberts, The differential correction algorithm for
rational l-infinity approximation, SIAM J. Numer. Anal. 9 (1972).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from odp.approximations.fits.remez import LevelFit, Problem

__all__ = ["differential_correction"]

Array = NDArray[np.float64]

_STEPS = 30
_FIRST_POINTS = 160
_FEASIBILITY = 1e-10
# A step that gains less is the last.
_GAIN = 1e-4
# The bound is proven this far below the fit, by one more program.
_BOUND = 1 - 1e-3
# Below this share of the target, the programs' own tolerance decides what is feasible.
_SMALLEST = 1e-7


@dataclass
class _Programs:
    """The linear programs of one problem, in orthonormal bases, on a growing set of points."""

    problem: Problem

    def __post_init__(self) -> None:
        problem = self.problem
        weight = np.abs(problem.weight)
        # Columns of very different size would meet the solver's absolute tolerances.
        self.numerator, self._p_factor = np.linalg.qr(problem.numerator * weight[:, None])
        self.denominator, self._q_factor = np.linalg.qr(problem.denominator)
        scale = math.sqrt(problem.target.size)
        self.numerator, self._p_factor = self.numerator * scale, self._p_factor / scale
        self.denominator, self._q_factor = self.denominator * scale, self._q_factor / scale
        wanted = problem.wanted * weight[:, None]
        self.wanted = np.linalg.solve(self._q_factor.T, wanted.T).T
        count = problem.target.size
        step = max(1, count // _FIRST_POINTS)
        self.points = np.unique(np.concatenate([np.arange(0, count, step), [0, count - 1]]))

    def solve(self, error: float, divisor: Array) -> tuple[Array, Array, float] | None:
        """Coefficients with the largest margin below `error`, and that margin; None if it fails."""
        import scipy.optimize

        at = self.points
        numerator, denominator = self.numerator[at], self.denominator[at]
        wanted, divisor = self.wanted[at], divisor[at] / float(divisor.max())
        slack = error * divisor[:, None]
        rows = np.vstack(
            [
                np.hstack([numerator, -wanted - error * denominator, slack]),
                np.hstack([-numerator, wanted - error * denominator, slack]),
            ]
        )
        rows /= np.abs(rows[:, :-1]).max(axis=1, keepdims=True)
        width = numerator.shape[1] + denominator.shape[1] + 1
        cost = np.zeros(width)
        cost[-1] = -1.0
        bounds = [(None, None)] * numerator.shape[1] + [(-1.0, 1.0)] * denominator.shape[1]
        solution = scipy.optimize.linprog(
            cost,
            A_ub=rows,
            b_ub=np.zeros(len(rows)),
            bounds=[*bounds, (0.0, None)],
            method="highs",
            options={
                "primal_feasibility_tolerance": _FEASIBILITY,
                "dual_feasibility_tolerance": _FEASIBILITY,
            },
        )
        if solution.x is None:
            return None
        p, q = solution.x[: numerator.shape[1]], solution.x[numerator.shape[1] : -1]
        return (
            np.linalg.solve(self._p_factor, p),
            np.linalg.solve(self._q_factor, q),
            float(solution.x[-1]),
        )

    def watch(self, indices: NDArray[np.intp]) -> bool:
        """Add points to the programs; whether any of them was new."""
        union = np.union1d(self.points, indices)
        grown = union.size > self.points.size
        self.points = union
        return grown


def _peaks(values: Array) -> NDArray[np.intp]:
    """Indices of local maxima, the ends included."""
    padded = np.concatenate([[-math.inf], values, [-math.inf]])
    return np.flatnonzero((values >= padded[:-2]) & (values >= padded[2:]))


def differential_correction(problem: Problem, start: LevelFit | None = None) -> LevelFit:
    """The best fit on the points of a problem, from any start.

    Args:
        problem: what to fit; 150 to 3000 points.
        start: a fit without a pole to improve; None starts from the zero function.

    Returns:
        The fit; its `bound` is a level that one more linear program showed to be infeasible, to
        the solver's tolerance of 1e-10; 0 if that program found otherwise.
    """
    programs = _Programs(problem)
    best = start if start is not None else _constant(problem)
    floor = _SMALLEST * float(np.abs(problem.weight * problem.target).max())
    for _ in range(_STEPS):
        divisor = np.abs(problem.denominator @ best.q)
        solved = programs.solve(best.error, divisor)
        if solved is None:
            break
        p, q, margin = solved
        if margin <= _FEASIBILITY:
            break
        error = problem.error(p, q)
        if not np.isfinite(error).all():
            # A pole between the points of the program: the worst of it joins them.
            values = problem.denominator @ q
            if not programs.watch(_peaks(-values)):
                break
            continue
        largest = float(np.abs(error).max())
        grown = programs.watch(_peaks(np.abs(error)))
        if largest < best.error:
            gain = 1 - largest / best.error
            best = LevelFit(p, q, largest, 0.0)
            if gain < _GAIN or largest < floor:
                break
        elif not grown:
            break
    return LevelFit(best.p, best.q, best.error, _bound(programs, best, floor))


def _bound(programs: _Programs, best: LevelFit, floor: float) -> float:
    if best.error < floor:
        return 0.0
    wanted = _BOUND * best.error
    solved = programs.solve(wanted, np.abs(programs.problem.denominator @ best.q))
    return wanted if solved is not None and solved[2] <= _FEASIBILITY else 0.0


def _constant(problem: Problem) -> LevelFit:
    """The zero function over a denominator that is as constant as its basis allows."""
    ones = np.ones(problem.target.size)
    q = np.asarray(np.linalg.lstsq(problem.denominator, ones, rcond=None)[0], dtype=np.float64)
    p = np.zeros(problem.numerator.shape[1])
    return LevelFit(p, q, float(np.abs(problem.error(p, q)).max()), 0.0)
