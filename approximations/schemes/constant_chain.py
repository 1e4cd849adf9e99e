"""exp by a chain of squarings with a free constant after every one of them.

``z = a x + b``, then k times ``z = z z + g_i``: k squarings and one multiplication by a constant.
Additions are free or nearly so on every target, and each constant is one more degree of freedom of
a polynomial of degree 2^k: on [-10, 0] five squarings miss exp by less than 1e-6, where
``(1 + x/32)^32`` at the same cost misses it by 8.5e-3.  Started with a quartic in Knuth's form
(three multiplications) instead of ``a x + b`` the chain reaches wider domains.  exp2 has another a,
expm1 another last constant.

No published use of free constants in a squaring chain for exp was found; iterated quadratic maps as
cheap polynomials of high degree are the subject of M. S. Paterson and L. J. Stockmeyer, SIAM J.
Comput. 2 (1973).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import CoefficientRangeError, FloatArithmetic
from odp.approximations.expression import variable
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.chain_search import (
    CHAIN_PARAMETERS,
    chain_additions,
    fitted_chains,
)
from odp.approximations.schemes.chain_shape import Chain, ChainGoal
from odp.approximations.schemes.constant_chain_fit import round_chain
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["EXPONENTIALS", "ConstantChainScheme"]

Array = NDArray[np.float64]

EXPONENTIALS: dict[str, tuple[float, float]] = {
    "exp": (1.0, 0.0),
    "exp2": (math.log(2.0), 0.0),
    "expm1": (1.0, -1.0),
}
"""(r, c) of functions that are ``exp(r x) + c``."""

# Beyond this width the values at the far end are zero beside any error.
_WIDEST = 512.0
_POINTS = 300


class ConstantChainScheme(Scheme):
    """Squarings with free constants, from a line or from a quartic."""

    name = "constant_chain"
    summary = "exp as squarings with a free constant after each, all constants optimised together"
    parameters: ClassVar[Mapping[str, str]] = CHAIN_PARAMETERS

    def applies(self, function: Function, domain: Interval) -> bool:
        """Exponentials, up to a width of 512."""
        if function.name not in EXPONENTIALS:
            return False
        return domain.width * EXPONENTIALS[function.name][0] <= _WIDEST

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Chains by cost, those whose error is small enough."""
        rate, shift = EXPONENTIALS[request.function.name]
        if shift and request.relative:
            return
        domain, scale = request.domain, math.exp(rate * request.domain.hi)

        def cost(chain: Chain) -> float:
            products = chain.multiplications
            return request.cost(products, 1, additions=chain_additions(chain), depth=products)

        def weight(t: Array) -> Array:
            x = np.clip(domain.hi + t / rate, domain.lo, domain.hi)
            return request.weigh(x, request.function.numpy(x)) * scale

        absolute = request.tolerance is None or request.tolerance.absolute > 0 or shift != 0
        relative = request.relative or (request.mixed and not absolute)
        goal = ChainGoal.RELATIVE if relative else ChainGoal.ABSOLUTE
        for chain, parameters in fitted_chains(
            request,
            goal,
            domain.width * rate,
            cost=cost,
            unit=1.0 if relative else scale,
            weight=weight if request.mixed else None,
        ):
            moved = chain.moved(parameters, -rate * domain.hi, scale, rate)
            moved[-1] += shift
            arithmetic = request.target.arithmetic
            if isinstance(arithmetic, FloatArithmetic):
                t = goal.points(domain.width * rate, _POINTS)
                x = np.clip(domain.hi + t / rate, domain.lo, domain.hi)
                moved = round_chain(
                    chain,
                    moved,
                    x,
                    np.exp(rate * x) + shift,
                    weight(t) if request.mixed else goal.weight(t),
                    partial(_nearest, arithmetic),
                )
            try:
                expression = chain.expression(moved, variable("x"))
            except CoefficientRangeError:
                continue
            yield Candidate(
                expression,
                Parameters(squarings=chain.squarings, start=chain.start),
                f"{request.function.name} by {chain}",
            )


def _nearest(arithmetic: FloatArithmetic, value: float) -> float:
    # A constant that the arithmetic cannot hold is refused when the expression is made.
    try:
        return float(arithmetic.nearest(Fraction(value)))
    except (CoefficientRangeError, OverflowError, ValueError):
        return value
