"""exp as p(x/2^k)^(2^k): a minimax polynomial and k squarings.

The error that counts is that of the power.  With K = 2^k a change d of p changes ``p^K`` by
``K p^(K-1) d``, so the best p is found by minimax fits with that weight to what is still missing,
each step halved until the power's own largest error falls (Gauss-Newton with Remez's exchange as
its linear solver; 3 to 6 steps).  The 1/2^k is folded into the coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.polynomial import chebyshev as series
from numpy.typing import NDArray

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import CoefficientRangeError
from odp.approximations.expression import variable
from odp.approximations.fits.remez import Problem, minimax
from odp.approximations.forms.polynomials import Variable, chebyshev_nodes, interpolate
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["SquaringScheme"]

Array = NDArray[np.float64]

_LARGEST_DEGREE = 12
_MOST_SQUARINGS = 12
_POINTS = 500
_STEPS = 25
_SMALLEST_STEP = 1e-3
# Minimax gains a factor of 2 to 5 over the best interpolant.
_HOPELESS = 20.0
# 64 roundings of p: the power multiplies their effect by 2^k.
_NOISE = 2.0**-47
# Where the power is this much flatter than at its steepest, no change of p moves the error.
_FLAT = 1e-9


class SquaringScheme(Scheme):
    """p(x/2^k)^(2^k) with the p that makes the power's largest error smallest."""

    name = "squaring"
    summary = "exp as p(x/2^k)^(2^k), p minimax for the power"
    parameters: ClassVar[Mapping[str, str]] = {
        "degree": "degree of the polynomial",
        "squarings": "k: how often it is squared",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Only exp."""
        return function.name == "exp"

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Pairs of degree and squarings by cost."""
        pairs = sorted(
            (request.polynomial_cost(degree) + request.cost(k, depth=k), degree, k)
            for degree in range(1, _LARGEST_DEGREE + 1)
            for k in range(1, _MOST_SQUARINGS + 1)
        )
        domain = request.domain
        for cost, degree, k in pairs:
            if not request.wants(cost, degree=degree, squarings=k):
                continue
            coefficients, error = _fit(
                domain, degree, k, request.relative, _HOPELESS * request.error
            )
            if not request.accepts(error):
                continue
            try:
                expression = Variable(variable("x"), domain.lo, domain.hi).raw(coefficients)
            except CoefficientRangeError:
                continue
            for _ in range(k):
                expression = expression * expression
            yield Candidate(
                expression,
                Parameters(degree=degree, squarings=k),
                f"(minimax degree {degree} of exp(x/{2**k}))^{2**k}",
            )


@lru_cache(maxsize=1024)
def _fit(
    domain: Interval, degree: int, k: int, relative: bool, hopeless: float
) -> tuple[Array, float]:
    """Chebyshev coefficients of p on the domain, and the largest error of its power.

    A start that is worse than `hopeless` is returned as it is.
    """
    lo, hi, power = domain.lo, domain.hi, 2.0**k
    near_hi = 1 - np.geomspace(1e-4, 2.0, _POINTS // 3)
    s = np.unique(np.concatenate([[-1.0], -chebyshev_nodes(_POINTS), near_hi[:-1], [1.0]]))
    x = (lo + hi) / 2 + domain.width / 2 * s
    exact = np.exp(x)
    weight = 1 / exact if relative else np.ones_like(exact)
    basis = series.chebvander(s, degree)

    def error(values: Array) -> Array:
        return np.asarray((values**power - exact) * weight, dtype=np.float64)

    noise = _NOISE * power * float((exact * weight).max())

    with np.errstate(all="ignore"):
        p = np.linalg.lstsq(basis, _start(domain, degree, power, x, error), rcond=None)[0]
        largest = _largest(error(basis @ p))
        for _ in range(_STEPS if largest <= hopeless else 0):
            if largest <= noise:
                # The exchange would follow hundreds of sign changes of rounding errors: 16 s for
                # an error of 1e-12 that a smaller degree already has.
                break
            values = basis @ p
            slope = power * values ** (power - 1) * weight
            moves = np.abs(slope) > _FLAT * np.abs(slope).max()
            if not np.isfinite(slope).all() or moves.sum() < degree + 2:
                break
            missing = -error(values)[moves] / slope[moves]
            ones = np.ones((missing.size, 1))
            step = minimax(Problem(basis[moves], ones, missing, np.abs(slope[moves])))
            if step is None:
                break
            change, share = step.p / step.q[0], 1.0
            while (reached := _largest(error(basis @ (p + share * change)))) >= largest:
                share /= 2
                if share < _SMALLEST_STEP:
                    break
            if share < _SMALLEST_STEP:
                break
            converged = reached > largest * (1 - 1e-5)
            p, largest = p + share * change, reached
            if converged:
                break
    return np.asarray(p, dtype=np.float64), largest


def _start(
    domain: Interval, degree: int, power: float, x: Array, error: Callable[[Array], Array]
) -> Array:
    """Values of the interpolant of exp(x/2^k) on the window at the upper end that serves best.

    The error of the power is 2^k times that of p times exp(x (1 - 2^-k)): it lives near hi.
    """
    best: tuple[float, Array] | None = None
    for fraction in np.geomspace(1.0, min(1.0, 2.0 / domain.width), 16):
        low = domain.hi - domain.width * float(fraction)
        nodes = (low + domain.hi) / 2 + (domain.hi - low) / 2 * chebyshev_nodes(degree + 1)
        t = (2 * x - low - domain.hi) / (domain.hi - low)
        interpolant = series.chebval(t, interpolate(np.exp(nodes / power)))
        values: Array = np.asarray(interpolant, dtype=np.float64)
        largest = _largest(error(values))
        if best is None or largest < best[0]:
            best = (largest, values)
    assert best is not None
    return best[1]


def _largest(errors: Array) -> float:
    largest = float(np.abs(errors).max())
    return largest if np.isfinite(largest) else np.inf
