"""Which chains are worth a fit for a request: the part that all schemes of chains share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from odp.approximations.arithmetic import FloatArithmetic
from odp.approximations.schemes.chain_shape import Chain, ChainGoal
from odp.approximations.schemes.constant_chain_fit import fit_chain, optimal_chain
from odp.approximations.schemes.scheme import Request

__all__ = ["CHAIN_PARAMETERS", "chain_additions", "fitted_chains"]

Array = NDArray[np.float64]

CHAIN_PARAMETERS = {
    "squarings": "k: how often z = z*z + g is done",
    "start": "linear (a x + b, one multiplication) or quartic (three multiplications)",
}
"""What users may fix of a chain."""

_MOST_SQUARINGS = 8
# The errors on two widths that differ by a factor of sqrt(2) differ by at most about this factor.
_GAIN = 20.0
# A fit that starts close to a local optimum may end in a better one.
_LUCK = 1.5
# One more squaring gains less than this factor; so far it was 900 at most, on narrow domains.
_LARGEST_GAIN = 2000.0
# Unit roundoffs that the search forgives in float32, at least.
_FLOOR = 8.0
_POINTS = 300


def fitted_chains(
    request: Request,
    goal: ChainGoal,
    width: float,
    *,
    cost: Callable[[Chain], float],
    unit: float = 1.0,
    growth: float = 2.0,
    rounding: float = 1.0,
    weight: Callable[[Array], Array] | None = None,
) -> Iterator[tuple[Chain, Array]]:
    """Chains by cost with their best constants, those whose error is small enough.

    Args:
        request: whose error, cost limit and fixed parameters count.
        goal: what the chain is to be.
        width: of the goal's interval.
        cost: what an expression with this chain costs.
        unit: the error of the expression over that of the goal.
        growth: by how much a squaring multiplies rounding errors.
        rounding: the expression's error over the chain's, where rounding is worst.
        weight: weights of the error at points of the goal's interval, for which constants are
            fitted anew; then the error must be below 1.
    """
    shapes = [Chain(False, k) for k in range(1, _MOST_SQUARINGS + 1)]
    shapes += [Chain(True, k) for k in range(_MOST_SQUARINGS - 1)]
    reached: dict[str, float] = {}
    for price, chain in sorted(
        ((cost(chain), chain) for chain in shapes), key=lambda o: (o[0], o[1].squarings)
    ):
        if not request.wants(price, squarings=chain.squarings, start=chain.start):
            continue
        if "squarings" not in request.parameters and (
            _noise(request, chain, growth) * rounding * unit > request.error
        ):
            continue
        shorter = reached.get(chain.start, math.inf)
        if math.isfinite(shorter) and shorter > _LARGEST_GAIN * request.error:
            reached[chain.start] = shorter / _LARGEST_GAIN
            continue
        start, error = optimal_chain(chain, goal, _nearest(width))
        reached[chain.start] = error = error * unit
        if weight is not None:
            parameters, error = _weighted(chain, goal, width, start, weight)
            error *= request.error
        else:
            if error > _possible_gain(width) * request.error and not request.accepts(error):
                continue
            parameters = start
            if width > _nearest(width) or error > request.error:
                parameters, error = _on_width(chain, goal, width)
                error *= unit
        if request.accepts(error):
            yield chain, parameters


def chain_additions(chain: Chain) -> int:
    """Additions at least: a constant of a squaring may be 0."""
    return 5 if chain.quartic else 1


def _noise(request: Request, chain: Chain, growth: float) -> float:
    """What rounding alone makes of a value of size 1, less than is ever seen; 0 in fixed point.

    Every squaring doubles a relative error, so it is the first value's rounding that counts: for
    exp 2^k unit roundoffs, measured as 0.9 to 1.4 times that for k = 5 to 7.
    """
    arithmetic = request.target.arithmetic
    if not isinstance(arithmetic, FloatArithmetic):
        return 0.0
    squarings = chain.squarings + (2 if chain.quartic and growth == 2.0 else 0)
    return (0.8 * growth**squarings - _FLOOR) * arithmetic.unit_roundoff


def _possible_gain(width: float) -> float:
    """By how much the error on a width may be below that on the nearest power of two."""
    narrower = max(0.0, math.log2(_nearest(width) / width))
    return float(_LUCK * _GAIN ** (2 * narrower))


def _nearest(width: float) -> float:
    """The power of two next to a width: the widths with an optimum of their own are few."""
    return float(2.0 ** round(math.log2(width)))


@lru_cache(maxsize=1024)
def _on_width(chain: Chain, goal: ChainGoal, width: float) -> tuple[Array, float]:
    """Constants on a width, from those for the nearest power of two."""
    start, error = optimal_chain(chain, goal, _nearest(width))
    if _nearest(width) == width or not math.isfinite(error):
        return start, error
    x = goal.points(width, _POINTS)
    return fit_chain(chain, goal, start, x, goal.wanted(x), goal.weight(x))


def _weighted(
    chain: Chain, goal: ChainGoal, width: float, start: Array, weight: Callable[[Array], Array]
) -> tuple[Array, float]:
    x = goal.points(width, _POINTS)
    return fit_chain(chain, goal, start, x, goal.wanted(x), weight(x))
