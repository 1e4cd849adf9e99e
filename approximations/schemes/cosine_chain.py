"""cos by a chain of squarings with free constants in the square of the angle; sin moved into it.

``cos 2x = 2 cos(x)^2 - 1`` is a squaring and a constant, once the 2 is scaled away, so k doublings
of the angle are the chain ``z = z z + g_i`` for a first value that is a line or a quartic in x^2;
optimising all constants together gains two more digits.  ``sin x = cos(x - pi/2)`` costs an
addition, and the domain may be centred on any other maximum or minimum of the function.

A doubling multiplies an error of the cosine by 4: beyond about five the pair of `angle_doubling` is
what float32 can follow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

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
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["CosineChainScheme"]

_PHASES = {"cos": 0.0, "sin": math.pi / 2}
_WIDEST = 128.0


class CosineChainScheme(Scheme):
    """A chain in (x - c)^2."""

    name = "cosine_chain"
    summary = "cos and sin as a chain of squarings in the square of the angle"
    parameters: ClassVar[Mapping[str, str]] = CHAIN_PARAMETERS

    def applies(self, function: Function, domain: Interval) -> bool:
        """Cos and sin of angles up to about 128."""
        return function.name in _PHASES and domain.magnitude <= _WIDEST

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Chains by cost, those whose error is small enough."""
        if request.relative:
            return
        centre, sign = self._centre(request)
        domain = request.domain
        radius = max(domain.hi - centre, centre - domain.lo)
        x = variable("x")

        def cost(chain: Chain) -> float:
            products, additions = chain.multiplications + 1, chain_additions(chain)
            # A function that is minus the cosine is subtracted from the last constant.
            additions += centre != 0
            return request.cost(products, 1, additions=additions, depth=products)

        for chain, parameters in fitted_chains(
            request, ChainGoal.COSINE, radius, cost=cost, growth=4.0
        ):
            try:
                if sign < 0 and not chain.squarings:
                    continue
                angle = x - centre if centre else x
                if sign > 0:
                    expression = chain.expression(parameters, angle * angle)
                else:
                    # -(z z + g) = -g - z z.
                    shorter = Chain(chain.quartic, chain.squarings - 1)
                    z = shorter.expression(parameters[:-1], angle * angle)
                    expression = -float(parameters[-1]) - z * z
            except CoefficientRangeError:
                continue
            yield Candidate(
                expression,
                Parameters(squarings=chain.squarings, start=chain.start),
                f"{request.function.name} by {chain} in the squared angle",
            )

    @staticmethod
    def _centre(request: Request) -> tuple[float, int]:
        """The extremum of the function next to the middle of the domain, and its sign."""
        phase, domain = _PHASES[request.function.name], request.domain
        turns = round(((domain.lo + domain.hi) / 2 - phase) / math.pi)
        return phase + turns * math.pi, 1 if turns % 2 == 0 else -1
