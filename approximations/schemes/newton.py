"""Steps towards x^(-1/q) from a seed centred on the domain: reciprocal, rsqrt, sqrt and roots.

``y <- y R(w)``, ``w = x y^q``, evaluated as ``(x y) y``: Newton's step for R of degree 1, steps of
order 3 and 5 for degree 2 and 4, and Halley's, which has a division and is best far away.  With
the best constants in every step (`root_steps`) a seed ``s + c/(x + g)`` and three Newton steps have
1.3e-10 on a domain of ratio 100 and 2.1e-5 on one of ratio 1e4, where ``2/(1 + x)`` and Newton's
own constants have 8e-3 and 0.4.  Without a division the seed is a polynomial.

Source of the composition: arXiv 2505.16932; of the steps: A. S. Householder, The Numerical
Treatment of a Single Nonlinear Equation (1970), section 4.4.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import CoefficientRangeError, FixedPointArithmetic
from odp.approximations.expression import Expression, variable
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.root_plan import (
    RootPlan,
    Sequence,
    absolute_error,
    root_plan,
    seeds,
    sequences,
    working_interval,
)
from odp.approximations.schemes.root_seeds import SEEDS, SeedKind, best_seed
from odp.approximations.schemes.root_steps import (
    STEPS,
    Step,
    StepKind,
    best_steps,
    normalised,
    plain_steps,
)
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = [
    "PRODUCTS",
    "NewtonScheme",
    "iterated",
    "power_of_root",
    "seed_additions",
]

PRODUCTS = {1: 1, 2: 2, 3: 3, 4: 3}
"""Multiplications, one after the other, from y to w = x y^q."""

Iteration = Callable[[RootPlan, Expression, list[Step]], Expression]

_MOST_PLAIN_STEPS = 40
# Roundings that may carry z above the interval of a step, with room to spare.
_ROUNDINGS = 64


def rounding_margin(request: Request) -> float:
    """How far above its interval rounding may carry z on the target, as a share."""
    arithmetic = request.target.arithmetic
    guard = arithmetic.guard_bits or 0 if isinstance(arithmetic, FixedPointArithmetic) else 0
    return _ROUNDINGS * arithmetic.unit_roundoff * 2.0**-guard


class NewtonScheme(Scheme):
    """Seeds and steps of four kinds, with the best constants for the domain in each."""

    name = "newton"
    summary = "Newton, Halley and higher steps for roots from a seed centred on the domain"
    parameters: ClassVar[Mapping[str, str]] = {
        "steps": "number of iterations",
        "seed": "shifted s+c/(x+g), rational c/(x+g), constant, linear, quadratic or quartic",
        "step": "newton, third, fifth (the order) or halley, for every step; left out, any mixture",
        "scaled": "whether the constants of each step are optimised for the domain",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Powers n - m/q with q at most 4 and small n and m, on positive numbers."""
        return root_plan(function) is not None and domain.lo >= 0

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Seeds and sequences of steps, by cost."""
        plan = root_plan(request.function)
        interval = None if plan is None else working_interval(request, plan)
        if plan is None or interval is None:
            return
        ratio = interval.hi / interval.lo
        scaled = request.parameters.get("scaled", True) is not False
        for option in _options(request, plan, ratio, scaled=scaled):
            parameters = Parameters(
                steps=len(option.kinds), seed=option.seed, step=option.kind, scaled=scaled
            )
            expression = iterated(
                request, plan, interval, option, parameters, _iteration, scaled=scaled
            )
            if expression is not None:
                yield Candidate(
                    expression, parameters, _description(request, option, scaled=scaled)
                )


def iterated(
    request: Request,
    plan: RootPlan,
    interval: Interval,
    option: Sequence,
    parameters: Parameters,
    iteration: Iteration,
    *,
    scaled: bool = True,
) -> Expression | None:
    """A seed and steps with the best constants, if they are wanted and close enough.

    Args:
        request: what is asked for.
        plan: how the function is made from a root.
        interval: where the relative error counts.
        option: seed and steps.
        parameters: what the scheme calls them.
        iteration: writes the steps after the seed.
        scaled: whether the constants are made for the interval; otherwise they are Newton's own.
    """
    if not request.wants(option.cost, **parameters):
        return None
    if not request.accepts(absolute_error(request, plan, option.error)):
        return None
    seed = best_seed(plan.root, option.seed, interval.hi / interval.lo)
    if scaled:
        margin = rounding_margin(request)
        upper, steps, error = best_steps(plan.root, option.kinds, seed.rho, margin)
    else:
        upper, steps, error = plain_steps(plan.root, len(option.kinds), seed.rho)
    if not request.accepts(absolute_error(request, plan, error)):
        return None
    scale, steps = normalised(plan.root, steps)
    centre = (interval.hi * interval.lo) ** 0.5
    try:
        y = seed.expression(centre, scale * upper / seed.peak * centre ** (-1 / plan.root))
        return iteration(plan, y, steps)
    except CoefficientRangeError:
        return None


def _options(request: Request, plan: RootPlan, ratio: float, *, scaled: bool) -> Iterator[Sequence]:
    def cost(seed: SeedKind, kinds: tuple[StepKind, ...]) -> float:
        products, constants, divisions = SEEDS[seed]
        additions = seed_additions(seed)
        depth = products + divisions
        for kind in kinds:
            step = STEPS[kind]
            products += PRODUCTS[plan.root] + step.multiplications + 1
            divisions += step.divisions
            additions += step.additions
            depth += PRODUCTS[plan.root] + step.multiplications + step.divisions + 1
        products += plan.products if kinds else plan.x_power + plan.y_power - 1
        return request.cost(products, constants, divisions, additions, depth)

    if scaled:
        yield from sequences(request, plan, ratio, cost)
        return
    # Newton's own constants, for comparison.
    fixed = request.parameters.get("steps")
    counts = [fixed] if isinstance(fixed, int) else range(_MOST_PLAIN_STEPS + 1)
    newton: tuple[StepKind, ...] = ("newton",)
    for price, _, count, seed in sorted(
        (cost(seed, newton * count), index, count, seed)
        for index, seed in enumerate(seeds(request, plan))
        for count in counts
    ):
        yield Sequence(price, seed, newton * count, 0.0)


def seed_additions(seed: SeedKind) -> int:
    """Additions of a seed."""
    return {"constant": 0, "linear": 1, "quadratic": 2, "quartic": 5, "rational": 1, "shifted": 2}[
        seed
    ]


def _iteration(plan: RootPlan, y: Expression, steps: list[Step]) -> Expression:
    """The steps, and the power of x and y that is wanted."""
    x = variable("x")
    product: Expression | None = None
    for step in steps:
        if plan.root == 4:
            square = y * y
            factor = step.factor(x * square * square)
        else:
            product = w = x * y
            for _ in range(plan.root - 1):
                w = w * y
            factor = step.factor(w)
        # For sqrt and the like x y is wanted: the last step multiplies it instead of y.
        product = None if product is None else product * factor
        y = y * factor
    return power_of_root(plan, y, product)


def power_of_root(plan: RootPlan, y: Expression, product: Expression | None) -> Expression:
    """``x^n y^m`` as the plan wants it; `product` is x y where that is there already."""
    factors = [variable("x")] * plan.x_power + [y] * plan.y_power
    if plan.x_power and product is not None and plan.root in (2, 3):
        factors = [product, *factors[1:-1]]
    result = factors[0]
    for factor in factors[1:]:
        result = factor * result
    return result


def _description(request: Request, option: Sequence, *, scaled: bool) -> str:
    if not option.kinds:
        return f"{request.function.name}: a {option.seed} seed"
    runs = [(kind, len(list(run))) for kind, run in itertools.groupby(option.kinds)]
    steps = " + ".join(f"{count} {kind}" if count > 1 else kind for kind, count in runs)
    best = "best " if scaled else ""
    return f"{request.function.name}: {best}{steps} steps after a {option.seed} seed"
