"""Integers that make the largest residual of a linear system smallest.

Lattice reduction first (python-flint's LLL): in a reduced basis the nearest plane method finds a
close vector, steps of one along basis vectors improve it, and the mixed-integer program that then
looks for the best one has small integers and few branches.  The program is given the constraints
at some points and, while it misses the largest residual elsewhere, more of them.

Sources: N. Brisebarre and S. Chevillard, Efficient polynomial L-infinity approximations, ARITH 2007
(lattice reduction); N. Brisebarre, J.-M. Muller and A. Tisserand, Computing machine-efficient
polynomial approximations, ACM TOMS 32 (2006) (integer programs); L. Babai, On Lovasz' lattice
reduction and the nearest lattice point problem, Combinatorica 6 (1986).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from odp.approximations.native_output import without_native_output

__all__ = ["IntegerFit", "integer_minimax"]

Array = NDArray[np.float64]
Integers = tuple[int, ...]
Method = Literal["nearest", "lattice", "program"]

_LARGEST_PROGRAM = 8
_LATTICE_BITS = 30
# Branch and bound stops this close to the proven optimum.
_GAP = 2e-3
# Unknowns that hardly matter have so many values that branching would not end.
_WIDEST = 4096
_ROUNDS = 12
# Of 2 to 4 ms each; 17 were the most for seven constants.  A limit of time would give other
# integers on a busy machine.
_MOST_NODES = 2000


@dataclass(frozen=True)
class IntegerFit:
    """Integers, their largest residual, and how they were found.

    Attributes:
        integers: one for each column.
        error: largest |matrix @ integers - target|.
        method: ``nearest`` if rounding each unknown was best, ``lattice`` or ``program``.
    """

    integers: Integers
    error: float
    method: Method


def integer_minimax(
    matrix: Array, target: Array, real: Array, *, damping: float = 0.0
) -> IntegerFit:
    """Integers n with a small ``max |matrix @ n - target|``; never worse than rounding `real`.

    Args:
        matrix: weighted columns, shape (points, unknowns).
        target: weighted values, shape (points,).
        real: a real solution, shape (unknowns,).
        damping: share of a column's size that a step of its unknown is taken to cost by itself;
            above 0 where columns depend on each other and steps could grow without limit.
    """
    nearest = [round(float(value)) for value in real]

    # Differences from the rounded solution stay small: no digits are lost in large integers.
    offset = np.array([float(n) for n in nearest])
    rest = target - matrix @ offset

    def largest(steps: NDArray[np.int64]) -> float:
        return float(np.abs(matrix @ steps - rest).max())

    zero = np.zeros(len(nearest), dtype=np.int64)
    best, error = zero, largest(zero)
    method: Method = "nearest"
    norms = np.linalg.norm(matrix, axis=0)
    damped = np.vstack([matrix, damping * norms.min() * np.eye(norms.size)])
    basis = _reduced(damped)
    if basis is not None:
        start = _nearest_plane(damped @ basis, damped @ (real - offset))
        steps = basis @ start
        steps, reached = _descend(matrix, rest, basis, steps)
        if reached < error:
            best, error, method = steps, reached, "lattice"
        if len(nearest) <= _LARGEST_PROGRAM:
            steps, reached = _program(matrix, rest, basis, best, error)
            if reached < error * (1 - 1e-9):
                best, error, method = steps, reached, "program"
    return IntegerFit(
        tuple(n + int(step) for n, step in zip(nearest, best, strict=True)), error, method
    )


def _reduced(matrix: Array) -> NDArray[np.int64] | None:
    """A unimodular matrix: its products with the columns are short and nearly orthogonal."""
    try:
        from flint import fmpz_mat
    except ImportError:
        return None
    # Points beyond a few for each unknown add nothing; a triangular factor has their geometry.
    triangle: Array = np.asarray(np.linalg.qr(matrix, mode="r"))
    norms = np.linalg.norm(triangle, axis=0)
    if not np.isfinite(triangle).all() or norms.min() == 0:
        return None
    scale = 2.0**_LATTICE_BITS / norms.min()
    rows = [[round(float(entry)) for entry in column * scale] for column in triangle.T]
    _, transform = fmpz_mat(rows).lll(True)
    entries = [[int(transform[i, j]) for j in range(len(rows))] for i in range(len(rows))]
    if max(abs(entry) for row in entries for entry in row) >= 2**40:
        return None
    return np.array(entries, dtype=np.int64).T


def _nearest_plane(basis: Array, target: Array) -> NDArray[np.int64]:
    """Babai's nearest plane: integers with ``basis @ integers`` close to the target."""
    q, r = np.linalg.qr(basis)
    projected = q.T @ target
    integers = np.zeros(basis.shape[1], dtype=np.int64)
    for column in range(basis.shape[1] - 1, -1, -1):
        known = r[column, column + 1 :] @ integers[column + 1 :]
        integers[column] = round(float((projected[column] - known) / r[column, column]))
    return integers


def _descend(
    matrix: Array, rest: Array, basis: NDArray[np.int64], steps: NDArray[np.int64]
) -> tuple[NDArray[np.int64], float]:
    """Steps along one or two basis vectors while the largest residual falls."""
    unknowns = basis.shape[1]
    moves = [basis[:, i] * sign for i in range(unknowns) for sign in (1, -1)]
    for i, j in product(range(unknowns), repeat=2):
        if i < j:
            moves += [basis[:, i] + basis[:, j], basis[:, i] - basis[:, j]]
            moves += [-basis[:, i] - basis[:, j], basis[:, j] - basis[:, i]]
    candidates = np.array(moves).T
    effects = matrix @ candidates
    residual = matrix @ steps - rest
    error = float(np.abs(residual).max())
    while True:
        errors = np.abs(residual[:, None] + effects).max(axis=0)
        index = int(errors.argmin())
        if not errors[index] < error * (1 - 1e-12):
            return steps, error
        steps = steps + candidates[:, index]
        residual = matrix @ steps - rest
        error = float(np.abs(residual).max())


def _program(
    matrix: Array,
    rest: Array,
    basis: NDArray[np.int64],
    start: NDArray[np.int64],
    error: float,
) -> tuple[NDArray[np.int64], float]:
    """The best integers that branch and bound finds around `start`, in units of its error."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    columns = matrix @ basis / error
    unknowns = columns.shape[1]
    best, best_error = start, error
    points = _first_points(matrix.shape[0], unknowns)
    target = (rest - matrix @ start) / error
    for _ in range(_ROUNDS):
        a, b = columns[points], target[points]
        # |A z - b| <= 1 bounds every z: its rows of the pseudo-inverse are short.
        inverse = np.linalg.pinv(a)
        reach = np.abs(inverse).sum(axis=1) * (1 + 1e-9)
        centre = inverse @ b
        lower, upper = np.ceil(centre - reach), np.floor(centre + reach)
        lower, upper = np.minimum(lower, 0.0), np.maximum(upper, 0.0)
        if (upper - lower).max() > _WIDEST:
            break
        ones = np.ones((points.size, 1))
        system = np.vstack([np.hstack([a, -ones]), np.hstack([-a, -ones])])
        with without_native_output():
            solved = milp(
                np.append(np.zeros(unknowns), 1.0),
                integrality=np.append(np.ones(unknowns), 0),
                bounds=Bounds(np.append(lower, 0.0), np.append(upper, 1.0)),
                constraints=LinearConstraint(system, ub=np.concatenate([b, -b])),
                options={"node_limit": _MOST_NODES, "mip_rel_gap": _GAP},
            )
        if solved.x is None:
            break
        integers = np.round(solved.x[:unknowns]).astype(np.int64)
        steps = start + basis @ integers
        residual = np.abs(matrix @ steps - rest)
        reached = float(residual.max())
        if reached < best_error:
            best, best_error = steps, reached
        # The level at the points is what no integers can beat; the best may be as good already.
        if min(reached, best_error) <= solved.fun * error * (1 + _GAP):
            break
        added = np.setdiff1d(_peaks(residual, solved.fun * error), points)
        if added.size == 0:
            break
        points = np.union1d(points, added)
    return best, best_error


def _first_points(count: int, unknowns: int) -> NDArray[np.intp]:
    wanted = min(count, 6 * (unknowns + 1))
    angles = np.linspace(0.0, np.pi, wanted)
    return np.unique(np.round((count - 1) * (1 - np.cos(angles)) / 2).astype(np.intp))


def _peaks(residual: Array, level: float) -> NDArray[np.intp]:
    """Local maxima above the level."""
    padded = np.concatenate([[-1.0], residual, [-1.0]])
    peak = (residual >= padded[:-2]) & (residual >= padded[2:]) & (residual > level)
    return np.flatnonzero(peak)
