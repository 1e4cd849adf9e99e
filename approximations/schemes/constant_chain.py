"""exp by a chain of squarings with a free constant after every one of them.

``z = a x + b``, then k times ``z = z z + g_i``: k squarings and one multiplication by a constant.
Additions are free or nearly so on every target, and each constant is one more degree of freedom of
a polynomial of degree 2^k: on [-10, 0] five squarings miss exp by less than 1e-6, where
``(1 + x/32)^32`` at the same cost misses it by 8.5e-3.  Started with a quartic in Knuth's form
(three multiplications) instead of ``a x + b`` the chain reaches wider domains.

No published use of free constants in a squaring chain for exp was found; iterated quadratic maps as
cheap polynomials of high degree are the subject of M. S. Paterson and L. J. Stockmeyer, SIAM J.
Comput. 2 (1973).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import FloatArithmetic
from odp.approximations.expression import Expression, variable
from odp.approximations.function import Function
from odp.approximations.interval import Interval
from odp.approximations.polynomials import CoefficientRangeError, coefficient
from odp.approximations.schemes.constant_chain_fit import (
    Chain,
    exponential_points,
    fit_chain,
    optimal_chain,
)
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["ConstantChainScheme", "chain_expression"]

Array = NDArray[np.float64]

_MOST_SQUARINGS = 8
# One more squaring gains less than this factor; so far it was 900 at most, on narrow domains.
_LARGEST_GAIN = 2000.0
# Unit roundoffs that the search forgives in float32, at least.
_FLOOR = 8.0
# The errors on two widths that differ by a factor of sqrt(2) differ by at most about this factor.
_HOPELESS = 20.0
_POINTS = 300
# Beyond this width the values at the far end are zero beside any error.
_WIDEST = 512.0


class ConstantChainScheme(Scheme):
    """Squarings with free constants, from a line or from a quartic."""

    name = "constant_chain"
    summary = "exp as squarings with a free constant after each, all constants optimised together"
    parameters: ClassVar[Mapping[str, str]] = {
        "squarings": "k: how often z = z*z + g is done",
        "start": "linear (a x + b, one multiplication) or quartic (three multiplications)",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Only exp, up to a width of 512."""
        return function.name == "exp" and domain.width <= _WIDEST

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Chains by cost, those whose error is small enough."""
        shapes = [Chain(False, k) for k in range(1, _MOST_SQUARINGS + 1)]
        shapes += [Chain(True, k) for k in range(_MOST_SQUARINGS - 1)]
        reached: dict[str, float] = {}
        for cost, squarings, chain in sorted(
            ((_cost(request, chain), chain.squarings, chain) for chain in shapes),
            key=lambda option: option[:2],
        ):
            start = "quartic" if chain.quartic else "linear"
            if not request.wants(cost, squarings=squarings, start=start):
                continue
            if _noise(request, chain) > request.error and "squarings" not in request.parameters:
                continue
            optimum = _near_optimum(request, chain, reached.get(start, math.inf))
            if optimum is None:
                reached[start] = reached[start] / _LARGEST_GAIN
                continue
            reached[start] = optimum
            parameters = _parameters(request, chain, optimum)
            if parameters is None:
                continue
            try:
                expression = chain_expression(chain, parameters)
            except CoefficientRangeError:
                continue
            yield Candidate(
                expression,
                Parameters(squarings=squarings, start=start),
                f"chain of {squarings} squarings, {start} start",
            )


def chain_expression(chain: Chain, parameters: Array) -> Expression:
    """The chain as an expression in ``x``.

    Raises:
        CoefficientRangeError: for a constant that is not a finite number.

    >>> chain_expression(Chain(False, 1), np.array([0.5, 1.0, 0.25]))(2)
    Fraction(17, 4)
    """
    constants = [coefficient(float(value)) for value in parameters]
    z = variable("x") * constants[0] + constants[1]
    used = 2
    if chain.quartic:
        y = z * z + constants[2]
        z = (y + z + constants[3]) * y + constants[4]
        used = 5
    for constant in constants[used:]:
        z = z * z + constant
    return z


def _cost(request: Request, chain: Chain) -> float:
    start = 2 if chain.quartic else 0
    multiplications = 1 + start + chain.squarings
    additions = 1 + (4 if chain.quartic else 0)
    # A constant that is 0 costs no addition.
    return request.cost(multiplications, 1, additions=additions, depth=multiplications)


def _noise(request: Request, chain: Chain) -> float:
    """What rounding alone makes of the result, less than is ever seen; 0 in fixed point.

    Every squaring doubles a relative error, so it is the first value's rounding that counts:
    2^k unit roundoffs at exp's largest value, measured as 0.9 to 1.4 times that for k = 5 to 7.
    """
    arithmetic = request.target.arithmetic
    if not isinstance(arithmetic, FloatArithmetic):
        return 0.0
    squarings = chain.squarings + (2 if chain.quartic else 0)
    unit = 1.0 if request.relative else math.exp(request.domain.hi)
    noise = 0.8 * 2.0**squarings - _FLOOR
    return noise * arithmetic.unit_roundoff * unit


def _near_optimum(request: Request, chain: Chain, shorter: float) -> float | None:
    """The error of a chain on a width next to the domain's.

    Args:
        request: what is wanted.
        chain: the shape.
        shorter: the error with one squaring less.

    Returns:
        None if that is so large that this chain need not be fitted.
    """
    if math.isfinite(shorter) and shorter > _LARGEST_GAIN * request.error:
        return None
    width = _nearest(request.domain.width)
    unit = 1.0 if request.relative else math.exp(request.domain.hi)
    return optimal_chain(chain, width, _is_relative(request))[1] * unit


def _is_relative(request: Request) -> bool:
    """Whether the fits start from those for the relative error."""
    absolute = request.tolerance is None or request.tolerance.absolute > 0
    return request.relative or (request.mixed and not absolute)


def _parameters(request: Request, chain: Chain, near: float) -> Array | None:
    """The constants for a request, None where the error they reach is too large."""
    domain = request.domain
    scale = math.exp(domain.hi)
    if request.mixed:
        parameters, share = _weighted(request, chain)
        error = share * request.error
    else:
        if near > _HOPELESS * request.error and not request.accepts(near):
            return None
        parameters, error = _on_width(chain, domain.width, request.relative)
        error *= 1.0 if request.relative else scale
    if not request.accepts(error):
        return None
    return chain.moved(parameters, domain.hi, scale)


def _nearest(width: float) -> float:
    """The power of two next to a width: the widths with an optimum of their own are few."""
    return float(2.0 ** round(math.log2(width)))


@lru_cache(maxsize=1024)
def _on_width(chain: Chain, width: float, relative: bool) -> tuple[Array, float]:
    """Constants for exp on [-width, 0], from those for the nearest power of two."""
    nearest = _nearest(width)
    start, error = optimal_chain(chain, nearest, relative)
    if nearest == width:
        return start, error
    x = exponential_points(width, _POINTS)
    values = np.exp(x)
    return fit_chain(chain, start, x, values, 1 / values if relative else np.ones_like(values))


def _weighted(request: Request, chain: Chain) -> tuple[Array, float]:
    """Constants for a mixed budget, and the share of the budget that their error takes."""
    domain, scale = request.domain, math.exp(request.domain.hi)
    x = exponential_points(domain.width, _POINTS)
    values = np.exp(x)
    weight = request.weigh(x + domain.hi, values * scale) * scale
    start = optimal_chain(chain, _nearest(domain.width), _is_relative(request))[0]
    return fit_chain(chain, start, x, values, weight)
