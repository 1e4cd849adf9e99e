"""sigmoid as 1/(1 + C) and tanh as 2/(1 + C) - 1, with a chain C of squarings for exp.

The 1 goes into the last constant of the chain and its sign into the slope, so sigmoid costs the
chain and one division.  What counts is the error of the quotient: where exp is large hardly any
digit of it matters, and the constants are fitted to that.  On domains wider than about 60, where a
rational function in x needs more than seven multiplications, it is the cheapest form.
"""

from __future__ import annotations

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

__all__ = ["LogisticChainScheme"]

# (r, s): the function is s/(1 + exp(-r x)) - s + 1.
_LOGISTICS = {"sigmoid": (1.0, 1.0), "tanh": (2.0, 2.0)}
# exp of more overflows float32.
_WIDEST = 80.0


class LogisticChainScheme(Scheme):
    """One division by 1 + C."""

    name = "logistic_chain"
    summary = "sigmoid and tanh as a quotient with a chain of squarings for exp"
    parameters: ClassVar[Mapping[str, str]] = CHAIN_PARAMETERS

    def applies(self, function: Function, domain: Interval) -> bool:
        """Sigmoid and tanh."""
        return function.name in _LOGISTICS and self._width(function, domain) <= _WIDEST

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Chains by cost, those whose error is small enough."""
        if request.relative:
            return
        rate, scale = _LOGISTICS[request.function.name]

        def cost(chain: Chain) -> float:
            products, additions = chain.multiplications, chain_additions(chain)
            return request.cost(products, 1, 1, additions, products + 1)

        width = self._width(request.function, request.domain)
        # Rounding of C counts a quarter at most: the slope of the logistic function.
        for chain, parameters in fitted_chains(
            request,
            ChainGoal.LOGISTIC,
            width,
            cost=cost,
            unit=scale,
            rounding=0.25,
        ):
            # s/(1 + C) = 1/(1/s + C/s).
            moved = chain.moved(parameters, 0.0, 1 / scale, -rate)
            moved[-1] += 1 / scale
            try:
                quotient = 1 / chain.expression(moved, variable("x"))
            except CoefficientRangeError:
                continue
            yield Candidate(
                quotient - (scale - 1) if scale != 1 else quotient,
                Parameters(squarings=chain.squarings, start=chain.start),
                f"{request.function.name} from exp by {chain}",
            )

    @staticmethod
    def _width(function: Function, domain: Interval) -> float:
        return domain.magnitude * _LOGISTICS[function.name][0]
