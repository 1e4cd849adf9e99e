"""Goldschmidt's iteration for roots: the steps of `newton`, with fewer multiplications in sequence.

Instead of computing ``w = x y^q`` anew in every step, w is carried along: ``y <- y R(w)`` and
``w <- w R(w)^q``.  As many multiplications, but those for y and for w go side by side, which saves
a level for each step after the first where depth counts.  Rounding errors of w are never corrected,
so in short words it loses a few digits more than Newton.

Source: R. E. Goldschmidt, Applications of division by convergence, MSc thesis, MIT (1964); P.
Markstein, Software division and square root using Goldschmidt's algorithms, RNC 6 (2004).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.expression import Expression, variable
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.newton import (
    PRODUCTS,
    iterated,
    power_of_root,
    seed_additions,
)
from odp.approximations.schemes.root_plan import (
    RootPlan,
    root_plan,
    sequences,
    working_interval,
)
from odp.approximations.schemes.root_seeds import SEEDS, SeedKind
from odp.approximations.schemes.root_steps import STEPS, Step, StepKind
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["GoldschmidtScheme"]

# Levels of multiplications from R to w R^q.
_LEVELS = {1: 1, 2: 2, 3: 3, 4: 3}


class GoldschmidtScheme(Scheme):
    """Seeds and best steps, y and w side by side."""

    name = "goldschmidt"
    summary = "roots by Goldschmidt's iteration: the steps of newton in fewer levels"
    parameters: ClassVar[Mapping[str, str]] = {
        "steps": "number of iterations",
        "seed": "shifted s+c/(x+g), rational c/(x+g), constant, linear, quadratic or quartic",
        "step": "newton, third, fifth (the order) or halley, for every step; left out, any mixture",
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
        if not request.target.depth and request.cost_limit < math.inf:
            # Where levels are free Newton's steps cost the same and round better.
            return

        def cost(seed: SeedKind, kinds: tuple[StepKind, ...]) -> float:
            return _cost(request, plan, seed, kinds)

        for option in sequences(request, plan, interval.hi / interval.lo, cost):
            if not option.kinds:
                continue
            parameters = Parameters(steps=len(option.kinds), seed=option.seed, step=option.kind)
            expression = iterated(request, plan, interval, option, parameters, _iteration)
            if expression is not None:
                yield Candidate(
                    expression,
                    parameters,
                    f"{request.function.name}: {len(option.kinds)} Goldschmidt steps after a"
                    f" {option.seed} seed",
                )


def _cost(request: Request, plan: RootPlan, seed: SeedKind, kinds: tuple[StepKind, ...]) -> float:
    products, constants, divisions = SEEDS[seed]
    additions, depth = seed_additions(seed), products + divisions
    for index, kind in enumerate(kinds):
        step, last = STEPS[kind], index == len(kinds) - 1
        # x y^q before the first step; then y R, and w R^q but for the last.
        products += PRODUCTS[plan.root] + step.multiplications + 1
        divisions += step.divisions
        additions += step.additions
        depth += PRODUCTS[plan.root] if index == 0 else 0
        depth += step.multiplications + step.divisions + (1 if last else _LEVELS[plan.root])
    products += plan.products if kinds else 0
    return request.cost(products, constants, divisions, additions, depth)


def _iteration(plan: RootPlan, y: Expression, steps: list[Step]) -> Expression:
    """The steps, and the power of x and y that is wanted."""
    x = variable("x")
    product: Expression | None = None
    if plan.root == 4:
        square = y * y
        w = x * square * square
    else:
        product = w = x * y
        for _ in range(plan.root - 1):
            w = w * y
    # Of x y and y only one is carried along; what is not used in the end is no part of the result.
    if plan.y_power > 1:
        product = None
    for index, step in enumerate(steps):
        factor = step.factor(w)
        product = None if product is None else product * factor
        y = y * factor
        if index < len(steps) - 1:
            power = factor
            if plan.root in (2, 4):
                power = factor * factor
            if plan.root == 4:
                power = power * power
            if plan.root == 3:
                power = factor * factor * factor
            w = w * power
    return power_of_root(plan, y, product)
