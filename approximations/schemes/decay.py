"""exp as one over a chain of squarings: an error that holds far beyond the domain.

With C(t) = exp(t) for t = hi - x, ``exp(x) = exp(hi)/C(hi - x)``.  If the first value of the chain
increases and every value in it is positive at the lower end of the domain, every value is positive
and increasing from there on: a square of a positive increasing function is one, and so is a product
of two (the quartic start).  Then C increases to infinity, the expression falls to 0 without a sign
change or a pole, and for all x below the domain it misses exp(x) by at most
``max(exp(lo), value(lo)) <= exp(lo) + error``.  A polynomial blows up there.

A rational function has the same limit at both ends of the real line if it has finite ones, so there
is no such expression for sigmoid or tanh.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import CoefficientRangeError
from odp.approximations.expression import variable
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.chain_search import (
    CHAIN_PARAMETERS,
    chain_additions,
    fitted_chains,
)
from odp.approximations.schemes.chain_shape import Chain, ChainGoal
from odp.approximations.schemes.constant_chain import EXPONENTIALS
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["DecayScheme", "increases_from"]

Array = NDArray[np.float64]

# Rounding the constants for a target changes values of the chain by less than this share.
_MARGIN = Fraction(1, 1024)
_WIDEST = 512.0


class DecayScheme(Scheme):
    """1/C with a chain C that is proven to increase beyond the domain."""

    name = "decay"
    summary = "exp as 1/chain, which falls to 0 for all inputs below the domain"
    parameters: ClassVar[Mapping[str, str]] = CHAIN_PARAMETERS

    def applies(self, function: Function, domain: Interval) -> bool:
        """Exp and exp2."""
        if function.name not in ("exp", "exp2"):
            return False
        return domain.width * EXPONENTIALS[function.name][0] <= _WIDEST

    def automatic(self, function: Function, domain: Interval) -> bool:
        """Never: on the domain alone a chain without the division is cheaper."""
        return False

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Chains by cost, those whose error is small enough and whose decay is proven."""
        if request.relative:
            return
        rate = EXPONENTIALS[request.function.name][0]
        domain, scale = request.domain, math.exp(rate * request.domain.hi)

        def cost(chain: Chain) -> float:
            products, additions = chain.multiplications, chain_additions(chain)
            return request.cost(products, 1, 1, additions, products + 1)

        for chain, parameters in fitted_chains(
            request, ChainGoal.INVERSE, domain.width * rate, cost=cost, unit=scale
        ):
            if not increases_from(chain, parameters, domain.width * rate):
                continue
            moved = chain.moved(parameters, rate * domain.hi, 1 / scale, -rate)
            try:
                expression = 1 / chain.expression(moved, variable("x"))
            except CoefficientRangeError:
                continue
            yield Candidate(
                expression,
                Parameters(squarings=chain.squarings, start=chain.start),
                f"{request.function.name} by 1/({chain}), decaying below the domain",
            )


def increases_from(chain: Chain, parameters: Array, t: float) -> bool:
    """Whether a chain is proven to be positive and to increase for all arguments from `t` on.

    In exact arithmetic, with room for constants that are rounded later.
    """
    c = [Fraction(float(value)) for value in parameters]
    if c[0] <= 0:
        return False

    def positive(*terms: Fraction) -> bool:
        return sum(terms) > _MARGIN * sum(abs(term) for term in terms)

    z = c[0] * Fraction(t) + c[1]
    if not positive(c[0] * Fraction(t), c[1]):
        return False
    used = 2
    if chain.quartic:
        y = z * z + c[2]
        factor = y + z + c[3]
        if not (positive(z * z, c[2]) and positive(y, z, c[3]) and positive(factor * y, c[4])):
            return False
        z, used = factor * y + c[4], 5
    for constant in c[used:]:
        if not positive(z * z, constant):
            return False
        z = z * z + constant
    return True
