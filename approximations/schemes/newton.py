"""Newton's iteration for x^(-1/q): reciprocal, rsqrt, sqrt and other roots.

The step comes from the defining equation ``f(y) = y^(-q) - x``: ``y <- y (1 + 1/q - (1/q) x y^q)``,
derived by sympy.  In terms of ``z = x^(1/q) y`` (1 when y is right) it is ``z (a - b z^q)`` with
a = 1 + 1/q and b = 1/q.  Keeping b and choosing a anew in every step so that z has equal minima at
both ends of its interval costs the same and is the optimal composition up to a common factor,
which the steps before absorb (Polar Express, arXiv 2505.16932; Lee et al., minimax compositions).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.expression import Expression, variable
from odp.approximations.function import Function
from odp.approximations.interval import Interval
from odp.approximations.polynomials import CoefficientRangeError, coefficient
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["NewtonScheme", "newton_step"]

_MOST_STEPS = 64
# The interval of z is taken this much wider at its upper end while it is wide: there the step maps
# an error of the seed or of float32 to 1/ratio times as much of the smallest value.
_SAFETY = 2.0**-6


@cache
def newton_step(root: int) -> tuple[Fraction, Fraction]:
    """(a, b) of Newton's step y (a - b x y^root) for x^(-1/root), derived by sympy.

    >>> newton_step(2)
    (Fraction(3, 2), Fraction(1, 2))
    """
    import sympy

    x, y = sympy.symbols("x y", positive=True)
    equation = y**-root - x
    step = sympy.expand(sympy.simplify((y - equation / sympy.diff(equation, y)) / y))
    a, b = step.coeff(x, 0), -step.coeff(x, 1) / y**root
    return Fraction(int(a.p), int(a.q)), Fraction(int(b.p), int(b.q))


class NewtonScheme(Scheme):
    """Newton from a seed centred on the domain, with per-step constants; Heron for roots."""

    name = "newton"
    summary = "Newton or Heron steps from a seed centred on the domain"
    parameters: ClassVar[Mapping[str, str]] = {
        "steps": "number of iterations",
        "seed": "rational c/(g+x), linear c(g-x) or constant c",
        "scaled": "whether the constant of each step is optimised for the domain",
        "method": "newton (no division per step) or heron (one each)",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Powers whose exponent is +-1/q or 1-1/q for q = 1 to 4, on positive numbers."""
        return _plan(function) is not None and domain.lo >= 0

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """All seeds and step counts, by cost."""
        plan = _plan(request.function)
        if plan is None:
            return
        options = _options(plan, request)
        for cost, method, seed, scaled, steps in sorted(options):
            if not request.wants(cost, method=method, seed=seed, scaled=scaled, steps=steps):
                continue
            if request.domain.lo <= 0 and (request.relative or method != "heron"):
                continue
            if method == "heron":
                built = _heron(plan, request, steps, scaled=scaled)
            else:
                built = _newton(plan, request, steps, seed, scaled=scaled)
            if built is not None:
                start = "" if method == "heron" else f" from a {seed} seed"
                kind = ", scaled" if scaled else ""
                yield Candidate(
                    built,
                    Parameters(steps=steps, seed=seed, scaled=scaled, method=method),
                    f"{method} for {request.function.name}, {steps} steps{start}{kind}",
                )


@dataclass(frozen=True)
class _Plan:
    """The function as x^factor * (x^(-1/root))^1: `factor` is 0, 1, or -1 for a reciprocal."""

    root: int
    times_x: bool


def _plan(function: Function) -> _Plan | None:
    p = function.exponent
    if p is None:
        return None
    if p < 0 and p.numerator == -1 and p.denominator <= 4:
        return _Plan(p.denominator, times_x=False)
    if 0 < p < 1 and (1 - p).numerator == 1 and p.denominator <= 4:
        return _Plan(p.denominator, times_x=True)
    return None


def _options(plan: _Plan, request: Request) -> Iterator[tuple[float, str, str, bool, int]]:
    per_step = {1: 2, 2: 3, 3: 4, 4: 4}[plan.root]
    # x / q is shared by all steps; for q = 1 it is x itself.
    shared = 0 if plan.root == 1 else 1
    seeds = {"rational": (0, 1), "linear": (1, 0), "constant": (0, 0)}
    for scaled in (True, False):
        for steps in range(_MOST_STEPS + 1):
            for seed, (products, divisions) in seeds.items():
                if plan.root == 1 and seed == "rational":
                    continue
                constants = products + (shared if steps else 0)
                total = constants + per_step * steps + plan.times_x
                cost = request.cost(total, constants, divisions=divisions)
                yield cost, "newton", seed, scaled, steps
            if plan.root == 2 and 0 < steps <= 16:
                divisions = steps - 1 + (not plan.times_x)
                cost = request.cost(steps, steps, divisions=divisions)
                yield cost, "heron", "rational", scaled, steps


def _newton(
    plan: _Plan, request: Request, steps: int, seed: str, *, scaled: bool
) -> Expression | None:
    lo, hi, q = request.domain.lo, request.domain.hi, plan.root
    low_root, high_root = lo ** (1 / q), hi ** (1 / q)
    x = variable("x")
    # The seed's free constant g makes z equal at both ends of the domain; z is largest between.
    if seed == "rational":
        g = (low_root * hi - high_root * lo) / (high_root - low_root)
        ends, top = low_root / (g + lo), g / (q - 1)
        peak = top ** (1 / q) / (g + top)
    elif seed == "linear":
        g = (hi * high_root - lo * low_root) / (high_root - low_root)
        ends, top = low_root * (g - lo), g / (q + 1)
        peak = top ** (1 / q) * (g - top)
    else:
        g, ends, peak = 0.0, low_root, high_root
    ratio = ends / peak
    a, b = newton_step(q)
    sigma, constants, final = _schedule(ratio, steps, float(a), float(b), q, scaled=scaled)
    if not request.accepts(_error(final, request, plan)):
        return None
    c = sigma / peak
    try:
        if seed == "rational":
            y = coefficient(c) / (x + coefficient(g))
        elif seed == "linear":
            y = coefficient(c * g) - x * coefficient(c)
        else:
            y = coefficient(c)
        scaled_x = x * coefficient(b)
        for step_constant in constants:
            product = scaled_x * y
            for _ in range(q - 2 if q == 3 else min(q - 1, 1)):
                product = product * y
            if q == 3:
                product = product * y
            elif q == 4:
                square = y * y
                product = scaled_x * square * square
            y = y * (coefficient(step_constant) - product)
    except CoefficientRangeError:
        return None
    return x * y if plan.times_x else y


def _error(final: float, request: Request, plan: _Plan) -> float:
    """The relative error, or an estimate of the absolute one at the larger end."""
    if request.relative:
        return final
    ends = request.function.numpy([request.domain.lo, request.domain.hi])
    # Where the largest value is, the error may be smaller: this estimate only sorts out.
    return final * float(abs(ends).min())


def _schedule(
    ratio: float, steps: int, a: float, b: float, q: int, *, scaled: bool
) -> tuple[float, list[float], float]:
    """Seed scale and step constants for z that starts in [ratio, 1] times a scale to be chosen.

    Returns:
        the largest z of the scaled seed, the constant of every step, and the final |z - 1|.
    """
    if not scaled:
        # A seed scaled so that |z - 1| is equal at both ends, then Newton's own constants; the
        # seed must stay below the point where Newton's step turns negative.
        low, high = 2 * ratio / (1 + ratio), 2 / (1 + ratio)
        limit = min(high, 0.999 * (a / b) ** (1 / q))
        low, high = low * limit / high, limit
        sigma = high
        for _ in range(steps):
            ends = [z * (a - b * z**q) for z in (low, high)]
            inside = low <= 1 <= high
            low, high = min(ends), 1.0 if inside else max(ends)
            if low <= 0:
                return sigma, [a] * steps, math.inf
        return sigma, [a] * steps, max(abs(1 - low), abs(1 - high))
    rho = ratio
    shapes: list[tuple[float, float]] = []
    for _ in range(steps):
        top = 1 + _SAFETY * (1 - rho)
        # Equal values at rho and top: a = b (top^(q+1) - rho^(q+1)) / (top - rho).
        constant = b * math.fsum(top**i * rho ** (q - i) for i in range(q + 1))
        turning = min((constant / (b * (q + 1))) ** (1 / q), 1.0)
        largest = turning * (constant - b * turning**q)
        smallest = min(rho * (constant - b * rho**q), constant - b)
        shapes.append((constant, largest))
        rho = smallest / largest
    upper = 2 / (1 + rho)
    final = (1 - rho) / (1 + rho)
    constants: list[float] = []
    for constant, largest in reversed(shapes):
        upper = (upper / largest) ** (1 / (q + 1))
        constants.append(constant * upper**q)
    return upper, constants[::-1], final


def _heron(plan: _Plan, request: Request, steps: int, *, scaled: bool) -> Expression | None:
    """Heron's iteration s <- (s + x/s)/2 for sqrt, scaled to stay centred; 1/s for rsqrt."""
    lo, hi = request.domain.lo, request.domain.hi
    if not request.relative and plan.times_x:
        # Below error^2 / 16 the root is within a quarter of the error of what the iteration
        # makes of it there: that part of the domain needs no relative accuracy.
        lo = max(lo, request.error**2 / 16)
    # s/sqrt(x) lies in [1/r, r]; the start s = constant has r = (hi/lo)^(1/4).
    r = (hi / lo) ** 0.25
    g = math.sqrt(lo * hi)
    x = variable("x")
    s: Expression | None = None
    factor = 0.0
    for _ in range(steps):
        mean = (r + 1 / r) / 2
        factor = 0.5 / math.sqrt(mean) if scaled else 0.5
        r = math.sqrt(mean) if scaled else mean
        try:
            if s is None:
                # The first step from the constant sqrt(g) needs no division.
                h = factor / math.sqrt(g)
                s = x * coefficient(h) + coefficient(h * g)
            else:
                s = (s + x / s) * coefficient(factor)
        except CoefficientRangeError:
            return None
    if s is None:
        return None
    if not request.accepts(_error(r - 1, request, plan)):
        return None
    return s if plan.times_x else 1 / s
