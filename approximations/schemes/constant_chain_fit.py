"""Fits of the constants of a chain of squarings to exp, to what is made of it, and to cos.

A chain of k squarings is a polynomial of degree 2^k with k + 2 free constants, so its best
constants are a nonlinear minimax problem with many local optima.  The way in is a doubling rule,
exp(t) = exp(t/2)^2 or cos(x) = 2 cos(x/2)^2 - 1: a chain for half the width becomes, with its slope
divided and one more squaring whose constant is that of the rule, a chain for the whole.  Levenberg
and Marquardt's least squares (reweighted by the error, after Lawson) follow that path through the
curved valleys of the problem, and sequential quadratic programming on the extrema of the error (D.
Kraft, SLSQP, 1988) levels the error at its end.  Paths that come from other widths, or from a
little beside, end in other optima; the best is taken.

A constant that is rounded is amplified by every squaring after it, so constants are rounded one by
one, from the first, and those that follow are fitted again: for exp on [-32, 0] by six squarings in
float32 all at once lose a factor of 5 to 12, depending on the processor; this loses a few percent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from odp.approximations.schemes.chain_shape import Chain, ChainGoal, knuth_constants

__all__ = ["fit_chain", "optimal_chain", "round_chain"]

Array = NDArray[np.float64]

_POINTS = 100
_DENSE = 3
_EVALUATIONS = 150
_REWEIGHTINGS = 2
_ROUNDS = 3
_ITERATIONS = 100
# Starts beside the end of a path, and how far beside, relative to each constant.  Optima lie close
# together: six starts more find errors smaller by 1.2 to 4.6 times for lines, and the same on
# machines whose arithmetic differs in the last bit.
_BESIDE = 6
_DISTANCE = 1e-4
# Widths of the paths, relative to the one that is wanted, in half octaves.
_DETOURS = (0, -1, 1, -2, 2)
_POLISHED = 2
# With so many squarings any path ends far below what float32 can see, and takes twice as long.
_LONG = 6
# Parameters below this size are moved by absolute steps.
_SMALLEST_SCALE = 0.05
# An extremum of the error below this share of the largest cannot become it in one round.
_LOW = 0.05
_WIDEST = 2.0**10


@dataclass(frozen=True)
class _Problem:
    """Points in ascending order, what is wanted there, and the weights of the error."""

    goal: ChainGoal
    x: Array
    wanted: Array
    weight: Array

    def residual(self, chain: Chain, parameters: Array) -> Array:
        value = self.goal.outer(chain.values(parameters, self.x))[0]
        return np.asarray(self.weight * (value - self.wanted))

    def slope(self, chain: Chain, parameters: Array) -> Array:
        value, jacobian = chain.evaluate(parameters, self.x)
        return np.asarray(jacobian * (self.weight * self.goal.outer(value)[1])[:, None])

    def largest(self, chain: Chain, parameters: Array) -> float:
        largest = float(np.abs(self.residual(chain, parameters)).max())
        return largest if math.isfinite(largest) else math.inf

    def part(self, rows: NDArray[np.intp]) -> _Problem:
        return _Problem(self.goal, self.x[rows], self.wanted[rows], self.weight[rows])


def _problem(goal: ChainGoal, width: float, count: int = _POINTS) -> _Problem:
    x = goal.points(width, count)
    return _Problem(goal, x, goal.wanted(x), goal.weight(x))


@lru_cache(maxsize=512)
def optimal_chain(chain: Chain, goal: ChainGoal, width: float) -> tuple[Array, float]:
    """The best constants found on the goal's interval of a width, and their largest error.

    Args:
        chain: the shape.
        goal: what the chain is to be.
        width: any positive number; asking for few different ones is faster.
    """
    step = round(2 * math.log2(width / 2))
    coarse, dense = _problem(goal, width), _problem(goal, width, _DENSE * _POINTS)
    found: list[tuple[float, int, Array, Array]] = []
    long = chain.squarings + (2 if chain.quartic else 0) >= _LONG
    best = (math.inf, np.zeros(chain.parameters))
    # Where a path gets lost its values overflow; the errors say so.
    with np.errstate(all="ignore"):
        ends = [_lengthened(chain, goal, step + d) for d in (_DETOURS[:2] if long else _DETOURS)]
        for start in (end for end in ends if end is not None):
            parameters = _least_squares(chain, coarse, start)
            found.append((dense.largest(chain, parameters), len(found), parameters, start))
        for start in _beside(min(found)[3]) if found else ():
            parameters = _least_squares(chain, coarse, start)
            found.append((dense.largest(chain, parameters), len(found), parameters, start))
        for error, _, parameters, _ in sorted(found)[: 1 if long else _POLISHED]:
            better, reached = _level(chain, dense, parameters, error)
            if reached < best[0]:
                best = (reached, better)
    return best[1], best[0]


def fit_chain(
    chain: Chain, goal: ChainGoal, start: Array, x: Array, wanted: Array, weight: Array
) -> tuple[Array, float]:
    """Constants from a start close by, for other points, values or weights; the largest error."""
    problem = _Problem(goal, x, wanted, weight)
    step = max(1, x.size // _POINTS)
    with np.errstate(all="ignore"):
        moved = _least_squares(chain, problem.part(np.arange(0, x.size, step)), start)
        best = min(
            (problem.largest(chain, start), 0, start), (problem.largest(chain, moved), 1, moved)
        )
        return _level(chain, problem, best[2], best[0])


def round_chain(
    chain: Chain,
    parameters: Array,
    x: Array,
    wanted: Array,
    weight: Array,
    nearest: Callable[[float], float],
) -> Array:
    """Constants that a format has, each rounded before those after it are fitted again.

    Args:
        chain: the shape.
        parameters: of the chain as it is to be evaluated.
        x: points.
        wanted: the chain's values there.
        weight: of the error there.
        nearest: rounds a constant.
    """
    problem = _Problem(ChainGoal.ABSOLUTE, x, wanted, weight)
    at_once = np.array([nearest(float(value)) for value in parameters])
    rounded = parameters.copy()
    with np.errstate(all="ignore"):
        for index in range(parameters.size):
            rounded[index] = nearest(float(rounded[index]))
            if index + 1 < parameters.size:
                rounded = _least_squares(chain, problem, rounded, fixed=index + 1)
        return min(at_once, rounded, key=lambda constants: problem.largest(chain, constants))


def _beside(start: Array) -> Iterator[Array]:
    """Starts close to another: the same ones every time."""
    generator = np.random.default_rng(0)
    for _ in range(_BESIDE):
        yield start * (1.0 + _DISTANCE * generator.standard_normal(start.size))


def _lengthened(chain: Chain, goal: ChainGoal, step: int) -> Array | None:
    """A start for a chain, from the path's chain with one squaring less on width 2^(step/2)."""
    if not chain.squarings:
        return _first(chain, goal, 2.0 ** (step / 2) * 2)
    shorter = _path(Chain(chain.quartic, chain.squarings - 1), goal, step)
    if shorter is None:
        return None
    less, scale, constant = goal.doubling
    moved = Chain(chain.quartic, chain.squarings - 1).moved(shorter, 0.0, scale, less)
    return np.concatenate([moved, [constant]])


@lru_cache(maxsize=4096)
def _path(chain: Chain, goal: ChainGoal, step: int) -> Array | None:
    """Constants on the path at width 2^(step/2); None where it got lost."""
    width = 2.0 ** (step / 2)
    start = _lengthened(chain, goal, step - 2)
    if start is None or width > _WIDEST:
        return None
    parameters = _least_squares(chain, _problem(goal, width), start)
    return parameters if np.isfinite(parameters).all() else None


def _first(chain: Chain, goal: ChainGoal, width: float) -> Array | None:
    """A chain without squarings: an interpolant in Chebyshev's points."""
    x = goal.points(width, 2)
    degree = 4 if chain.quartic else 1
    series = Chebyshev.interpolate(goal.inner, degree, domain=[x[0], x[-1]])
    fit = np.asarray(series.convert(kind=Polynomial).coef, dtype=np.float64)
    if not chain.quartic:
        return np.array([fit[1], fit[0]])
    return knuth_constants(fit) if fit[-1] > 0 else None


def _least_squares(chain: Chain, problem: _Problem, start: Array, fixed: int = 0) -> Array:
    """Least squares, reweighted so that its largest errors become smaller; the best seen.

    The first `fixed` constants stay as they are.
    """
    from scipy.optimize import leastsq

    def whole(free: Array) -> Array:
        return np.concatenate([start[:fixed], free])

    parameters, emphasis = start, np.ones_like(problem.x)
    best = (problem.largest(chain, start) if fixed else math.inf, start)
    for _ in range(_REWEIGHTINGS + 1):
        weight = np.sqrt(emphasis) * problem.weight
        weighted = _Problem(problem.goal, problem.x, problem.wanted, weight)
        free = leastsq(
            lambda p, weighted=weighted: weighted.residual(chain, whole(p)),
            parameters[fixed:],
            Dfun=lambda p, weighted=weighted: weighted.slope(chain, whole(p))[:, fixed:],
            full_output=True,
            ftol=1e-6,
            xtol=1e-9,
            maxfev=_EVALUATIONS,
        )[0]
        parameters = whole(free)
        errors = np.abs(problem.residual(chain, parameters))
        largest = float(errors.max())
        if not math.isfinite(largest) or largest == 0.0:
            break
        if largest < best[0]:
            best = (largest, parameters)
        emphasis = emphasis * (errors / largest + 0.01)
        emphasis /= emphasis.mean()
    return best[1]


def _extrema(errors: Array) -> NDArray[np.intp]:
    size = np.abs(errors)
    rising = np.concatenate([[True], size[1:] >= size[:-1]])
    falling = np.concatenate([size[:-1] >= size[1:], [True]])
    return np.flatnonzero(rising & falling & (size > _LOW * size.max()))


def _level(chain: Chain, problem: _Problem, start: Array, error: float) -> tuple[Array, float]:
    """Minimise the largest error by SLSQP with the error's extrema as constraints."""
    from scipy.optimize import minimize

    count = chain.parameters
    parameters, best = start, (error, start)
    rows = np.empty(0, dtype=np.intp)
    objective = np.concatenate([np.zeros(count), [1.0]])
    for _ in range(_ROUNDS if math.isfinite(error) else 0):
        peaks = _extrema(problem.residual(chain, parameters))
        near = np.clip(np.concatenate([peaks - 1, peaks, peaks + 1]), 0, problem.x.size - 1)
        rows = np.union1d(rows, near)
        local = problem.part(rows)
        # In units of the error now and of each parameter.
        size = problem.largest(chain, parameters)
        scale = np.maximum(np.abs(parameters), _SMALLEST_SCALE)

        def slack(v: Array, local: _Problem = local, s: Array = scale, e: float = size) -> Array:
            errors = local.residual(chain, v[:-1] * s) / e
            return np.concatenate([v[-1] - errors, v[-1] + errors])

        def slope(v: Array, local: _Problem = local, s: Array = scale, e: float = size) -> Array:
            matrix = local.slope(chain, v[:-1] * s) * (s / e)
            ones = np.ones((local.x.size, 1))
            return np.vstack([np.hstack([-matrix, ones]), np.hstack([matrix, ones])])

        solution = minimize(
            lambda v: v[-1],
            np.concatenate([parameters / scale, [1.0]]),
            jac=lambda v: objective,
            constraints=[{"type": "ineq", "fun": slack, "jac": slope}],
            method="SLSQP",
            options={"maxiter": _ITERATIONS, "ftol": 1e-6},
        )
        parameters = solution.x[:-1] * scale
        reached = problem.largest(chain, parameters)
        if not math.isfinite(reached):
            break
        if reached < best[0]:
            best = (reached, parameters)
        if reached > size * (1 - 1e-3):
            break
    return best[1], best[0]
