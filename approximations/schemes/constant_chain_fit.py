"""Fits of the constants of a chain of squarings to exp on [-width, 0].

A chain of k squarings is a polynomial of degree 2^k with k + 2 free constants, so its best
constants are a nonlinear minimax problem with many local optima.  The way in is exp(x) =
exp(x/2)^2: a chain that fits exp on [-width/2, 0] becomes, with its slope halved and one more
squaring whose constant is 0, a chain for [-width, 0].  Levenberg and Marquardt's least squares
(reweighted by the error, after Lawson) follow that path through the curved valleys of the problem,
and sequential quadratic programming on the extrema of the error (D. Kraft, SLSQP, 1988) levels the
error at its end.  Paths that come from other widths end in other optima; the best is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

__all__ = ["Chain", "exponential_points", "fit_chain", "knuth_quartic", "optimal_chain"]

Array = NDArray[np.float64]

_POINTS = 100
_DENSE = 3
_EVALUATIONS = 150
_REWEIGHTINGS = 2
_ROUNDS = 3
_ITERATIONS = 100
# Widths of the paths, relative to the one that is wanted, in half octaves.
_DETOURS = (0, -1, 1, -2, 2)
_POLISHED = 2
# With so many squarings any path ends far below what float32 can see, and takes twice as long.
_LONG = 6
# Parameters below this size are moved by absolute steps.
_SMALLEST_SCALE = 0.05
# An extremum of the error below this share of the largest cannot become it in one round.
_LOW = 0.05


@dataclass(frozen=True)
class Chain:
    """The shape of a chain: how it starts, and how often it squares.

    ``z = a x + b``; for a quartic start then ``y = z z + g``, ``z = (y + z + h) y + g``; and at
    last `squarings` times ``z = z z + g``, with a constant g of its own each time.

    Attributes:
        quartic: whether it starts with the quartic.
        squarings: squarings with a free constant.
    """

    quartic: bool
    squarings: int

    @property
    def parameters(self) -> int:
        """Number of free constants."""
        return self.squarings + (5 if self.quartic else 2)

    def values(self, parameters: Array, x: Array) -> Array:
        """The values at `x`."""
        z, used = parameters[0] * x + parameters[1], 2
        if self.quartic:
            y = z * z + parameters[2]
            z, used = (y + z + parameters[3]) * y + parameters[4], 5
        for constant in parameters[used:]:
            z = z * z + constant
        return np.asarray(z, dtype=np.float64)

    def evaluate(self, parameters: Array, x: Array) -> tuple[Array, Array]:
        """The values at `x`, and their derivatives by the parameters, one column each."""
        jacobian = np.zeros((x.size, self.parameters))
        jacobian[:, 0], jacobian[:, 1] = x, 1.0
        z, used = parameters[0] * x + parameters[1], 2
        if self.quartic:
            y, slope = z * z + parameters[2], jacobian * (2 * z)[:, None]
            slope[:, 2] += 1.0
            factor = y + z + parameters[3]
            jacobian = (slope + jacobian) * y[:, None] + slope * factor[:, None]
            jacobian[:, 3] += y
            jacobian[:, 4] += 1.0
            z, used = factor * y + parameters[4], 5
        for index in range(used, self.parameters):
            jacobian *= (2 * z)[:, None]
            jacobian[:, index] += 1.0
            z = z * z + parameters[index]
        return z, jacobian

    def moved(self, parameters: Array, shift: float, scale: float) -> Array:
        """Constants for ``scale * chain(x - shift)``."""
        squarings = self.squarings
        # One scaling at the end is a smaller one before every squaring.
        root = scale ** (1 / 2**squarings)
        tail = [root ** (2 ** (i + 1)) for i in range(squarings)]
        if not self.quartic:
            a, b = parameters[:2]
            head = np.array([a * root, (b - a * shift) * root])
        else:
            z = Polynomial([parameters[1] - parameters[0] * shift, parameters[0]])
            y = z * z + parameters[2]
            quartic = (y + z + parameters[3]) * y + parameters[4]
            head = knuth_quartic(root * quartic.coef)
        return np.concatenate([head, parameters[len(head) :] * np.array(tail)])


def knuth_quartic(coefficients: Array) -> Array:
    """Constants (a, b, g1, h, g2) of the quartic start for ascending `coefficients`, the last > 0.

    The leading coefficient is scaled into the variable: three multiplications, Horner has four.
    Source: D. E. Knuth, The Art of Computer Programming 2, section 4.6.4, formula (9).
    """
    a = float(coefficients[4]) ** 0.25
    c = coefficients / a ** np.arange(5)
    first = (c[3] - 1) / 2
    rest = c[2] - first * (first + 1)
    second = c[1] - first * rest
    third = rest - 2 * second
    # Knuth's (u + first) u + second, with u = a x, as a completed square.
    b = first / 2
    return np.array([a, b, second - b * b, third - b, c[0] - second * (second + third)])


@dataclass(frozen=True)
class _Problem:
    """Points in ascending order, the values wanted there, and the weights of the error."""

    x: Array
    values: Array
    weight: Array

    def residual(self, chain: Chain, parameters: Array) -> Array:
        return np.asarray(self.weight * (chain.values(parameters, self.x) - self.values))

    def slope(self, chain: Chain, parameters: Array) -> Array:
        return np.asarray(chain.evaluate(parameters, self.x)[1] * self.weight[:, None])

    def largest(self, chain: Chain, parameters: Array) -> float:
        with np.errstate(all="ignore"):
            largest = float(np.abs(self.residual(chain, parameters)).max())
        return largest if math.isfinite(largest) else math.inf

    def part(self, rows: NDArray[np.intp]) -> _Problem:
        return _Problem(self.x[rows], self.values[rows], self.weight[rows])


def exponential_points(width: float, count: int = _POINTS) -> Array:
    """Points on [-width, 0]: Chebyshev's, and as many more that are dense near 0."""
    chebyshev = width / 2 * (np.cos(np.linspace(0.0, np.pi, count)) - 1)
    near = -np.geomspace(1e-3 * width, width, count // 2)
    return np.unique(np.concatenate([chebyshev, near]))


def _exponential(width: float, relative: bool, count: int = _POINTS) -> _Problem:
    x = exponential_points(width, count)
    values = np.exp(x)
    return _Problem(x, values, 1 / values if relative else np.ones_like(values))


@lru_cache(maxsize=512)
def optimal_chain(chain: Chain, width: float, relative: bool) -> tuple[Array, float]:
    """The best constants found for exp on [-width, 0], and their largest error.

    Args:
        chain: the shape.
        width: any positive number; asking for few different ones is faster.
        relative: whether the relative error counts.
    """
    step = round(2 * math.log2(width / 2))
    coarse, dense = _exponential(width, relative), _exponential(width, relative, _DENSE * _POINTS)
    found: list[tuple[float, int, Array]] = []
    long = chain.squarings + (2 if chain.quartic else 0) >= _LONG
    for detour in _DETOURS[:2] if long else _DETOURS:
        start = _lengthened(chain, step + detour, relative)
        if start is not None:
            parameters = _least_squares(chain, coarse, start)
            found.append((dense.largest(chain, parameters), len(found), parameters))
    best = (math.inf, np.zeros(chain.parameters))
    for error, _, parameters in sorted(found)[: 1 if long else _POLISHED]:
        better, reached = _level(chain, dense, parameters, error)
        if reached < best[0]:
            best = (reached, better)
    return best[1], best[0]


def fit_chain(
    chain: Chain, start: Array, x: Array, values: Array, weight: Array
) -> tuple[Array, float]:
    """Constants from a start close by, for other points, values or weights; the largest error."""
    problem = _Problem(x, values, weight)
    best = (problem.largest(chain, start), 0, start)
    step = max(1, x.size // _POINTS)
    moved = _least_squares(chain, problem.part(np.arange(0, x.size, step)), start)
    best = min(best, (problem.largest(chain, moved), 1, moved))
    parameters, error = _level(chain, problem, best[2], best[0])
    return parameters, error


def _lengthened(chain: Chain, step: int, relative: bool) -> Array | None:
    """A start for a chain, from the path's chain with one squaring less on width 2^(step/2)."""
    if not chain.squarings:
        return _first(chain, 2.0 ** (step / 2) * 2)
    shorter = _path(Chain(chain.quartic, chain.squarings - 1), step, relative)
    if shorter is None:
        return None
    return np.concatenate([[shorter[0] / 2], shorter[1:], [0.0]])


@lru_cache(maxsize=4096)
def _path(chain: Chain, step: int, relative: bool) -> Array | None:
    """Constants on the path at width 2^(step/2); None where it got lost."""
    width = 2.0 ** (step / 2)
    start = _lengthened(chain, step - 2, relative)
    if start is None or width > 2.0**10:
        return None
    parameters = _least_squares(chain, _exponential(width, relative), start)
    return parameters if np.isfinite(parameters).all() else None


def _first(chain: Chain, width: float) -> Array:
    """A chain without squarings: an interpolant of exp in Chebyshev's points."""
    degree = 4 if chain.quartic else 1
    series = Chebyshev.interpolate(np.exp, degree, domain=[-width, 0.0])
    fit = np.asarray(series.convert(kind=Polynomial).coef, dtype=np.float64)
    return knuth_quartic(fit) if chain.quartic else np.array([fit[1], fit[0]])


def _least_squares(chain: Chain, problem: _Problem, start: Array) -> Array:
    """Least squares, reweighted so that its largest errors become smaller; the best seen."""
    from scipy.optimize import leastsq

    parameters, emphasis = start, np.ones_like(problem.x)
    best = (math.inf, start)
    for _ in range(_REWEIGHTINGS + 1):
        weighted = _Problem(problem.x, problem.values, np.sqrt(emphasis) * problem.weight)
        with np.errstate(all="ignore"):
            parameters = leastsq(
                lambda p, weighted=weighted: weighted.residual(chain, p),
                parameters,
                Dfun=lambda p, weighted=weighted: weighted.slope(chain, p),
                full_output=True,
                ftol=1e-6,
                xtol=1e-9,
                maxfev=_EVALUATIONS,
            )[0]
            errors = np.abs(problem.residual(chain, parameters))
        largest = float(errors.max())
        if not math.isfinite(largest):
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

        with np.errstate(all="ignore"):
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
