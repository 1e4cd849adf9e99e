"""Remez's exchange on a grid: weighted minimax fits of polynomials and of rational functions.

A fit is minimax where its weighted error has as many alternating extrema of one size as it has
free coefficients plus one.  The exchange solves for a fit that is level on a reference of that many
points, then moves the reference to the extrema of its error.  For a polynomial the level solution
is a linear system; for ``P/Q`` it is a generalised eigenvalue problem, of whose solutions at most
one has a denominator without a sign change.

Sources: E. W. Cheney, Introduction to Approximation Theory, chapters 3 (polynomials) and 5
(rational); R. Pachon and L. N. Trefethen, Barycentric-Remez algorithms, BIT 49 (2009); for the
start, Y. Nakatsukasa and L. N. Trefethen, An algorithm for real and complex rational minimax
approximation, SIAM J. Sci. Comput. 42 (2020), section 3 (Lawson's reweighting).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from odp.approximations.fits.null_vector import null_vector

__all__ = ["LevelFit", "Problem", "alternation", "lower_bound", "minimax"]

Array = NDArray[np.float64]

_EXCHANGES = 40
_LEVEL = 1e-6
_LAWSON_STEPS = 10
# 8 roundings of the function and of the fit.
_NOISE = 8 * 2.0**-53
_REAL = 1e-8
_CONVERGED = 1e-3
_STARTS = 2


@dataclass(frozen=True)
class Problem:
    """Find p and q with small ``max |weight * (P / Q - target)|``.

    ``Q = denominator @ q`` and ``P = numerator @ p + offset @ q``.

    Attributes:
        numerator: basis at the points, shape (points, m + 1); points in ascending order.
        denominator: likewise, shape (points, n + 1); one column of ones for a polynomial.
        target: values, shape (points,).
        weight: not zero, shape (points,); the signs are those by which the best error alternates
            (a basis that vanishes at a point within the domain changes its own sign there).
        offset: what the denominator fixes of the numerator, shape (points, n + 1): with it
            ``P/Q`` takes a given value at a point.  None stands for zeros.
    """

    numerator: Array
    denominator: Array
    target: Array
    weight: Array
    offset: Array | None = None

    @property
    def reference_size(self) -> int:
        """Alternating extrema of a minimax fit."""
        return int(self.numerator.shape[1] + self.denominator.shape[1])

    def error(self, p: Array, q: Array) -> Array:
        """The weighted error at the points; NaN throughout if the denominator changes sign."""
        divisor = self.denominator @ q
        if not ((divisor > 0).all() or (divisor < 0).all()):
            return np.full(self.target.shape, math.nan)
        dividend = self.numerator @ p
        if self.offset is not None:
            dividend = dividend + self.offset @ q
        value: Array = self.weight * (dividend / divisor - self.target)
        return value

    @property
    def wanted(self) -> Array:
        """What multiplies q in ``f Q - P``: the target times the basis, less the offset."""
        wanted = self.denominator * self.target[:, None]
        return wanted if self.offset is None else wanted - self.offset

    def at(self, points: NDArray[np.intp] | slice) -> Problem:
        """The same problem on some of its points."""
        return Problem(
            self.numerator[points],
            self.denominator[points],
            self.target[points],
            self.weight[points],
            None if self.offset is None else self.offset[points],
        )

    @property
    def noise(self) -> float:
        """What rounding alone may contribute to an error computed in float64."""
        return _NOISE * float(np.abs(self.weight * self.target).max())


@dataclass(frozen=True)
class LevelFit:
    """Coefficients of a fit, its largest weighted error, and a lower bound of any fit's.

    Attributes:
        p: coefficients of the numerator.
        q: coefficients of the denominator.
        error: largest weighted error on the grid.
        bound: no fit of this type has a smaller one (de la Vallee Poussin); 0 if nothing is known.
    """

    p: Array
    q: Array
    error: float
    bound: float


def alternation(error: Array, count: int) -> NDArray[np.intp]:
    """Indices of `count` consecutive extrema of alternating sign, the largest there are.

    Returns:
        Fewer indices if the error does not change its sign often enough.
    """
    sign = np.sign(error)
    signed = np.flatnonzero(sign)
    if signed.size == 0:
        return signed
    starts = np.flatnonzero(np.diff(sign[signed]) != 0) + 1
    runs = np.split(signed, starts)
    magnitude = np.abs(error)
    peaks = [int(run[np.argmax(magnitude[run])]) for run in runs]
    while len(peaks) > count:
        heights = magnitude[peaks]
        end = 0 if heights[0] <= heights[-1] else -1
        # Inside, two neighbours go at once: their own neighbours would meet with one sign.  The
        # largest of all stays, or the level would not rise.
        pairs = np.minimum(heights[:-1], heights[1:])
        pairs[np.maximum(heights[:-1], heights[1:]) == heights.max()] = math.inf
        smallest = int(np.argmin(pairs))
        if len(peaks) == count + 1 or heights[end] <= pairs[smallest]:
            del peaks[end]
        else:
            del peaks[smallest : smallest + 2]
    return np.array(peaks, dtype=np.intp)


def minimax(
    problem: Problem, start: tuple[Array, Array] | None = None, wanted: float = math.inf
) -> LevelFit | None:
    """The minimax fit on the points of a problem, for the values of a smooth function.

    Args:
        problem: what to fit.
        start: coefficients of a fit without a pole to start from; needed for a rational one.
        wanted: stop as soon as no fit can be as good as this.

    Returns:
        The best fit seen: where the exchange does not converge (degenerate types, rounding, values
        that jump) that may be the start, and its `bound` is well below its `error`.  None if there
        is no start and no solution.
    """
    size = problem.reference_size
    rational = problem.denominator.shape[1] > 1
    best: LevelFit | None = None
    if start is not None:
        best = LevelFit(*start, float(np.abs(problem.error(*start)).max()), 0.0)
        if math.isnan(best.error):
            best = None
    if rational:
        if best is None:
            return None
        fit = _lawson(problem, best)
        best = min(best, fit, key=lambda f: f.error)
        references = [alternation(problem.error(fit.p, fit.q), size)]
    else:
        references = [_chebyshev_reference(problem.target.size, size)]
        if best is not None:
            references.insert(0, alternation(problem.error(best.p, best.q), size))
    bound = 0.0
    for reference in references:
        if reference.size == size:
            found = _exchange(problem, reference, wanted)
            bound = max(bound, found.bound if found else 0.0)
            if found and (best is None or found.error < best.error):
                best = found
            if best and (best.error <= (1 + _CONVERGED) * bound or bound > wanted):
                break
        if not rational and len(references) < _STARTS:
            # On a domain of many decades the index is a poor guess of where the extrema are.
            p, q = _least_squares(problem)
            references.append(alternation(problem.error(p, q), size))
    if best is None:
        return None
    return LevelFit(best.p, best.q, best.error, max(0.0, min(bound, best.error) - problem.noise))


def _exchange(problem: Problem, reference: NDArray[np.intp], wanted: float) -> LevelFit | None:
    """Exchanges until the fit is level, no fit can be as good as `wanted`, or nothing moves."""
    rational = problem.denominator.shape[1] > 1
    best: LevelFit | None = None
    bound = 0.0
    for _ in range(_EXCHANGES):
        solved = _level_rational(problem, reference) if rational else _level(problem, reference)
        if solved is None:
            break
        p, q, level = solved
        error = problem.error(p, q)
        largest = float(np.abs(error).max())
        if math.isnan(largest):
            break
        bound = max(bound, level)
        if best is None or largest < best.error:
            best = LevelFit(p, q, largest, bound)
        if largest <= level * (1 + _LEVEL) or bound > wanted:
            break
        moved = alternation(error, reference.size)
        if moved.size < reference.size or np.array_equal(moved, reference):
            break
        reference = moved
    return None if best is None else LevelFit(best.p, best.q, best.error, bound)


def _least_squares(problem: Problem) -> tuple[Array, Array]:
    """The polynomial with the smallest sum of squares; its error alternates often enough."""
    q: Array = np.array([1.0 / problem.denominator[0, 0]], dtype=np.float64)
    rows = problem.numerator * problem.weight[:, None]
    p = np.linalg.lstsq(rows, problem.weight * problem.target, rcond=None)[0]
    return np.asarray(p, dtype=np.float64), q


def lower_bound(problem: Problem, p: Array, q: Array) -> float:
    """What no fit of this type can be better than, from the alternation of one fit's error."""
    error = problem.error(p, q)
    peaks = alternation(error, problem.reference_size) if np.isfinite(error).all() else ()
    if len(peaks) < problem.reference_size:
        return 0.0
    return float(np.abs(error[peaks]).min())


def _chebyshev_reference(points: int, size: int) -> NDArray[np.intp]:
    angles = np.pi * np.arange(size) / (size - 1)
    spread = np.round((points - 1) * (1 - np.cos(angles)) / 2).astype(np.intp)
    # Distinct points, also where the grid is coarse.
    return np.maximum.accumulate(np.maximum(spread, np.arange(size)))


def _level(problem: Problem, reference: NDArray[np.intp]) -> tuple[Array, Array, float] | None:
    signs = (-1.0) ** np.arange(reference.size)
    weight = problem.weight[reference]
    matrix = np.hstack([problem.numerator[reference] * weight[:, None], signs[:, None]])
    try:
        solution = np.linalg.solve(matrix, weight * problem.target[reference])
    except np.linalg.LinAlgError:
        return None
    q: Array = np.array([1.0 / problem.denominator[0, 0]], dtype=np.float64)
    return np.asarray(solution[:-1], dtype=np.float64), q, abs(float(solution[-1]))


def _level_rational(
    problem: Problem, reference: NDArray[np.intp]
) -> tuple[Array, Array, float] | None:
    """P - (f + (-1)^i E/w) Q = 0 on the reference: eigenvalues E, the smallest without a pole."""
    import scipy.linalg

    columns = problem.numerator.shape[1]
    signs = (-1.0) ** np.arange(reference.size)
    numerator, denominator = problem.numerator[reference], problem.denominator[reference]
    # P is eliminated: its columns' orthogonal complement leaves a small pencil in Q alone.
    weight = problem.weight[reference]
    full, _ = scipy.linalg.qr(numerator * weight[:, None])
    complement = full[:, columns:]
    wanted = problem.at(reference).wanted * weight[:, None]
    left = complement.T @ wanted
    right = complement.T @ (denominator * signs[:, None])
    try:
        values, vectors = scipy.linalg.eig(left, -right)
    except (ValueError, np.linalg.LinAlgError):
        return None
    finite = np.isfinite(values)
    for index in sorted(np.flatnonzero(finite), key=lambda i: abs(values[i])):
        value = values[index]
        if abs(value.imag) > _REAL * abs(value):
            continue
        vector = vectors[:, index]
        q: Array = np.real(vector / vector[np.argmax(np.abs(vector))])
        divisor = problem.denominator @ q
        if not ((divisor > 0).all() or (divisor < 0).all()):
            continue
        level = float(value.real)
        values = wanted @ q + signs * level * (denominator @ q)
        p = np.linalg.lstsq(numerator * weight[:, None], values, rcond=None)[0]
        return np.asarray(p, dtype=np.float64), q, abs(level)
    return None


def _lawson(problem: Problem, start: LevelFit) -> LevelFit:
    """Linearised least squares, reweighted by the error: a start whose error alternates."""
    fit = start
    step = max(1, problem.target.size // 200)
    coarse = problem.at(slice(None, None, step))
    numerator, denominator, wanted = coarse.numerator, coarse.denominator, coarse.wanted
    emphasis = np.ones_like(coarse.target)
    error = problem.error(fit.p, fit.q)
    for _ in range(_LAWSON_STEPS):
        if alternation(error, problem.reference_size).size == problem.reference_size:
            break
        emphasis = emphasis * np.abs(error[::step])
        emphasis = np.maximum(emphasis / emphasis.max(), 1e-13)
        scale = coarse.weight * np.sqrt(emphasis) / np.abs(denominator @ fit.q)
        solution = null_vector(np.hstack([numerator, -wanted]) * scale[:, None])
        if solution is None:
            break
        p, q = solution[: numerator.shape[1]], solution[numerator.shape[1] :]
        error = problem.error(p, q)
        largest = float(np.abs(error).max())
        if not math.isfinite(largest):
            break
        fit = LevelFit(p, q, largest, 0.0)
    return fit
