"""log on wide domains: Halley's iteration on exp(y) = x, from a rational seed.

``y <- y + 2 (x - e^y)/(x + e^y)``, derived by sympy, is cubic: an error e becomes e^3/12 plus the
relative error of the expression that stands for e^y.  No rational function of moderate type covers
many decades ((9,9) on [1e-6, 1e6] misses log by 2e-3), but a seed that is right to half a unit and
two steps do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression, variable
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["HalleyScheme", "halley_correction"]

# An exponential over a few decades, the seed and one correction: nothing cheaper exists.
_LEAST_MULTIPLICATIONS, _LEAST_DIVISIONS = 9, 2


@lru_cache(maxsize=1)
def halley_correction() -> tuple[int, int, int]:
    """(c, a, b) of the correction ``c (x - w)/(a x + b w)``, w = exp(y), derived by sympy.

    >>> halley_correction()
    (2, 1, 1)
    """
    import sympy

    x, y, w = sympy.symbols("x y w", positive=True)
    f = sympy.exp(y) - x
    first, second = sympy.diff(f, y), sympy.diff(f, y, 2)
    correction = -2 * f * first / (2 * first**2 - f * second)
    ratio = sympy.cancel(correction.subs(sympy.exp(y), w) / (x - w))
    numerator, denominator = sympy.fraction(ratio)
    a, b = sympy.Poly(denominator, x, w).coeff_monomial(x), denominator.coeff(w)
    return int(numerator), int(a), int(b)


class HalleyScheme(Scheme):
    """log by Halley steps on exp."""

    name = "halley"
    summary = "log by Halley steps on exp(y) = x from a rational seed"
    parameters: ClassVar[Mapping[str, str]] = {"steps": "number of Halley steps"}

    def applies(self, function: Function, domain: Interval) -> bool:
        """Only log."""
        return function.name == "log"

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """One to three steps, each with seeds as poor as the steps allow."""
        if request.relative:
            return
        for steps in (1, 2, 3):
            least = request.cost(_LEAST_MULTIPLICATIONS, 2, divisions=_LEAST_DIVISIONS)
            if not request.wants(least, steps=steps):
                continue
            # Backwards: half of each step's budget for the cubic term, half for exp.
            budgets = [min(request.error, 1.0)]
            for _ in range(steps):
                budgets.append(min((6 * budgets[-1]) ** (1 / 3), 1.0))
            try:
                y = request.approximate("log", request.domain, budgets[-1], False, _SEEDS)
                for before, after in zip(budgets[:0:-1], budgets[-2::-1], strict=True):
                    y = _step(request, y, before, after)
            except ApproximationError:
                continue
            yield Candidate(
                y,
                Parameters(steps=steps),
                f"log by {steps} Halley steps on exp",
            )


_SEEDS = ("chebyshev", "chebyshev_pade")


def _step(request: Request, y: Expression, before: float, after: float) -> Expression:
    """One step from error `before` to error `after`."""
    domain = request.domain
    values = Interval(math.log(domain.lo) - before, math.log(domain.hi) + before)
    w = request.approximate("exp", values, after / 2, True, ("chebyshev", "pade")).substitute(x=y)
    c, a, b = halley_correction()
    x = variable("x")
    # 2 (x - w) as a sum of itself: an addition instead of a multiplication.
    difference = x - w
    scaled = difference + difference if c == 2 else c * difference
    return y + scaled / (a * x + b * w)
