"""Heron's iteration for sqrt and rsqrt: ``s <- (s + x/s)/2`` from a line, scaled to stay centred.

If s/sqrt(x) lies in [1/r, r], the mean of s and x/s lies in [1, (r + 1/r)/2] times sqrt(x); divided
by the square root of that bound it is centred again, so every step halves log r (E. I. Zolotarev's
best rational functions come about this way; see J. C. Gower's and W. J. Cody's notes on square
roots, and facts on arXiv 2505.16932).  One division a step, but it corrects its own rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import CoefficientRangeError
from odp.approximations.expression import Expression, variable
from odp.approximations.forms.polynomials import coefficient
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.root_plan import (
    RootPlan,
    absolute_error,
    root_plan,
    working_interval,
)
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["HeronScheme", "heron_step"]

_MOST_STEPS = 16


@cache
def heron_step() -> tuple[Fraction, Fraction]:
    """(a, b) of the step ``a s + b x/s``: Newton's for s^2 = x, derived by sympy.

    >>> heron_step()
    (Fraction(1, 2), Fraction(1, 2))
    """
    import sympy

    x, s = sympy.symbols("x s", positive=True)
    equation = s**2 - x
    step = sympy.expand(s - equation / sympy.diff(equation, s))
    a, b = step.coeff(s, 1), step.coeff(x, 1) * s
    return Fraction(int(a.p), int(a.q)), Fraction(int(b.p), int(b.q))


class HeronScheme(Scheme):
    """A line, then means of s and x/s; rsqrt as 1/s."""

    name = "heron"
    summary = "sqrt and rsqrt by Heron's iteration, one division a step, scaled for the domain"
    parameters: ClassVar[Mapping[str, str]] = {
        "steps": "number of steps, the line among them",
        "scaled": "whether the steps are scaled to stay centred",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Sqrt and rsqrt on numbers that are not negative."""
        plan = root_plan(function)
        return plan in (RootPlan(2, 1, 1), RootPlan(2, 0, 1)) and domain.lo >= 0

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """One more step at a time."""
        plan = root_plan(request.function)
        interval = None if plan is None else working_interval(request, plan)
        if plan is None or interval is None:
            return
        inverse = plan.x_power == 0
        for steps in range(1, _MOST_STEPS + 1):
            divisions = steps - 1 + inverse
            # 1/s takes the last factor into its numerator.
            products = steps - (inverse and steps > 1)
            cost = request.cost(products, products, divisions, steps, products + divisions)
            for scaled in (True, False):
                if not request.wants(cost, steps=steps, scaled=scaled):
                    continue
                factors, error = _factors(interval.hi / interval.lo, steps, scaled=scaled)
                if not request.accepts(absolute_error(request, plan, error)):
                    continue
                try:
                    expression = _iteration(interval, factors, inverse=inverse)
                except CoefficientRangeError:
                    continue
                kind = "scaled" if scaled else "plain"
                yield Candidate(
                    expression,
                    Parameters(steps=steps, scaled=scaled),
                    f"{request.function.name}: {steps} {kind} Heron steps",
                )


def _factors(ratio: float, steps: int, *, scaled: bool) -> tuple[list[float], float]:
    """What the sums s + x/s are multiplied by, and the final relative error."""
    # The start s = constant has s/sqrt(x) in [1/r, r].
    r = ratio**0.25
    half = float(heron_step()[0])
    factors = []
    for _ in range(steps):
        mean = (r + 1 / r) / 2
        factors.append(half / math.sqrt(mean) if scaled else half)
        r = math.sqrt(mean) if scaled else mean
    if not scaled:
        return factors, r - 1
    # At the end the middle counts by difference, not by ratio.
    factors[-1] *= 2 / (r + 1 / r)
    return factors, (r - 1 / r) / (r + 1 / r)


def _iteration(interval: Interval, factors: list[float], *, inverse: bool) -> Expression:
    x, centre = variable("x"), math.sqrt(interval.lo) * math.sqrt(interval.hi)
    # The first step from the constant sqrt(centre) is a line.
    slope = factors[0] / math.sqrt(centre)
    s = x * coefficient(slope) + coefficient(slope * centre)
    for factor in factors[1:-1]:
        s = (s + x / s) * coefficient(factor)
    if len(factors) == 1:
        return 1 / s if inverse else s
    last = s + x / s
    return coefficient(1 / factors[-1]) / last if inverse else last * coefficient(factors[-1])
