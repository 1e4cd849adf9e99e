"""log by splitting the argument: a rough logarithm, and the logarithm of what it leaves.

With a seed y within d of log(x), ``u = x exp(-y)`` lies in [exp(-d), exp(d)] and
``log(x) = y + log(u)``: one exponential over the whole range of y, relative, and one logarithm on a
narrow interval.  A factor of u adds its own relative error to the result and no more.  The other
way is ``log(x) = m log(x^(1/m))``, which multiplies the error of both parts by m.

Splitting by the bits of the exponent needs operations that an expression does not have; where a
target has them (`Target.bit_operations`) its backend does that around an expression for [1, 2].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression, variable
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["SplittingScheme"]

# exp over a few decades, a seed and a logarithm: nothing cheaper was seen.
_LEAST_OPERATIONS = 14
_LEAST_EXPONENTIAL = 6
_SPREADS = (1.5, 2.0, 0.7, 1.0)
_ROOTS = (4, 2)
# Shares of the budget; the logarithm of u has the larger one, because it falls faster in its cost.
_LOGARITHM, _REST = 0.5, 0.45
# Nothing is split where x varies by less than this factor.
_NARROW = 30.0
# What a rough or narrow logarithm is made by.
_SEEDS = ("minimax", "chebyshev", "chebyshev_pade")
# Without those that would take the root through a logarithm.
_ROOT_SCHEMES = ("newton", "heron", "goldschmidt", "minimax")


class SplittingScheme(Scheme):
    """A seed, and the logarithm of x over exp of the seed; or of a root of x."""

    name = "splitting"
    summary = "log as a rough log plus the log of what it leaves, or as m log(x^(1/m))"
    parameters: ClassVar[Mapping[str, str]] = {
        "by": "exp (a seed and an exponential) or root",
        "spread": "largest error of the seed, for by=exp",
        "root": "m, for by=root",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Log on wide domains."""
        return function.name == "log" and domain.hi > _NARROW * domain.lo > 0

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Both ways, with their parts as cheap as the budget allows."""
        if request.relative:
            return
        least = request.cost(_LEAST_OPERATIONS, 4)
        ways = [("exp", "spread", spread) for spread in _SPREADS]
        ways += [("root", "root", float(root)) for root in _ROOTS]
        for by, name, value in ways:
            other = "root" if name == "spread" else "spread"
            if other in request.parameters or not request.wants(least, by=by, **{name: value}):
                continue
            try:
                if by == "exp":
                    expression = _by_exp(request, value)
                    how = f"from a seed within {value:g}, by an exponential"
                else:
                    expression = _by_root(request, int(value))
                    how = f"by a root of order {value:g}"
            except ApproximationError:
                continue
            yield Candidate(expression, Parameters(by=by, **{name: value}), f"log split {how}")


def _by_exp(request: Request, spread: float) -> Expression:
    domain, x = request.domain, variable("x")
    seed = request.approximate("log", domain, spread, False, _SEEDS)
    # The relative error of the exponential moves u, and so does rounding.
    edge = math.exp(spread) * (1 + request.error + 2.0**-16)
    logarithm = request.approximate(
        "log", Interval(1 / edge, edge), _LOGARITHM * request.error, False, _SEEDS
    )
    spent = sum(request.target.cost(part.counts) for part in (seed, logarithm))
    # Four to 1e-2 over a few decades, and one more for every factor of ten or so.
    exponential = 4 + max(0, round(-math.log10(request.error)) - 2)
    if not request.wants(spent + request.cost(min(exponential, _LEAST_EXPONENTIAL) + 1, 1)):
        # The exponential takes half a second to find.
        raise ApproximationError(f"log on {domain}: splitting cannot win")
    values = Interval(-math.log(domain.hi) - spread, -math.log(domain.lo) + spread)
    decay = request.approximate("exp", values, _REST * request.error, True, None)
    rest = x * decay.substitute(x=0 - seed)
    return seed + logarithm.substitute(x=rest)


def _by_root(request: Request, m: int) -> Expression:
    domain = request.domain
    name = "sqrt" if m == 2 else f"pow({1 / m:g})"
    root = request.approximate(name, domain, _REST * request.error / m, True, _ROOT_SCHEMES)
    low, high = (end ** (1 / m) for end in (domain.lo, domain.hi))
    margin = 1 + request.error + 2.0**-16
    logarithm = request.approximate(
        "log", Interval(low / margin, high * margin), _LOGARITHM * request.error / m, False, _SEEDS
    )
    # m is a power of two: doublings are additions.
    result = logarithm.substitute(x=root)
    while m > 1:
        result, m = result + result, m // 2
    return result
