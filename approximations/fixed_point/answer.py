"""Answers of the search for targets whose numbers are integers at a scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from odp.approximations.approximant import Approximant
from odp.approximations.arithmetic import FLOAT64, FixedPointArithmetic
from odp.approximations.errors import ApproximationError
from odp.approximations.fixed_point.certified import (
    NEAR_LIMIT,
    CertifiedProgram,
    rounding_limit,
    sampled_error,
)
from odp.approximations.fixed_point.choice import (
    FixedPointChoice,
    best_fixed_point,
    given_fixed_point,
)
from odp.approximations.measure import measure, safe_interval
from odp.approximations.schemes import Candidate
from odp.approximations.search import SearchProblem, sharper_searches
from odp.approximations.target import Target

__all__ = ["cheapest", "front", "given", "sharpest"]

# The search for programs leaves the expression three quarters of what is above the rounding of the
# result; 1.4 of them are enough for the expression that is known, with constants rounded.
_CLOSE = 1.4


def cheapest(problem: SearchProblem) -> Approximant:
    """The cheapest program within the budget, with the fewest guard bits, proven.

    Raises:
        ApproximationError: if there is none, or the budget has several parts.
    """
    _check_budget(problem)
    return _approximant(problem, _choice(problem, problem.error))


def given(problem: SearchProblem, candidate: Candidate, scheme: str) -> Approximant:
    """The program of an expression that is given, instead of one that is searched for.

    Without a budget it is as close to the expression as the rounding of the result allows, or has
    the guard bits of the target.

    Raises:
        ApproximationError: if it does not keep the budget, diverges, or cannot be proven.
    """
    _check_budget(problem)
    function, domain, relative = problem.function, problem.domain, problem.relative
    arithmetic = _arithmetic(problem.target)
    error = problem.error
    if math.isinf(error) and arithmetic.guard_bits is None:
        limit = rounding_limit(function, domain, arithmetic.scale, relative)
        real = sampled_error(candidate.expression, function, domain, relative=relative)
        error = NEAR_LIMIT * limit + _CLOSE * real
    choice = given_fixed_point(
        candidate,
        scheme,
        function,
        domain,
        target=problem.target,
        error=error,
        relative=relative,
    )
    return _approximant(problem, choice)


def _check_budget(problem: SearchProblem) -> None:
    if problem.tolerance.kind == "mixed":
        raise ApproximationError(
            f"{problem.function.name} on {problem.domain}: a fixed-point target takes one absolute"
            f" or one relative error, not {problem.tolerance}"
        )


def sharpest(problem: SearchProblem) -> Approximant:
    """The program with the smallest error at a cost of at most the problem's largest.

    Raises:
        ApproximationError: if no program is that cheap.
    """
    best: Approximant | None = None
    for approximant in front(problem):
        best = approximant
    if best is None:
        raise ApproximationError(
            f"{problem.function.name} on {problem.domain}: no program at cost"
            f" {problem.largest_cost:g} works in {problem.target.name}; allow more operations"
        )
    return best


def front(problem: SearchProblem) -> Iterator[Approximant]:
    """Programs of rising cost and falling error, up to the budget or the rounding of the result.

    One for every expression of the front in real arithmetic, as close to it as the rounding of the
    result allows.
    """
    scale = _arithmetic(problem.target).scale
    limit = rounding_limit(problem.function, problem.domain, scale, problem.relative)
    exact = replace(problem, target=replace(problem.target, arithmetic=FLOAT64))
    best: Approximant | None = None
    best_cost, last = 0.0, math.inf
    for found in sharper_searches(exact):
        cost, real = found.best_cost[0], found.error * found.error_share
        error = NEAR_LIMIT * limit + _CLOSE * real
        if error >= last:
            continue
        try:
            choice = _choice(replace(problem, largest_cost=cost), error)
        except ApproximationError:
            continue
        approximant = _approximant(problem, choice)
        if approximant.error >= last:
            continue
        if best is not None and choice.cost > best_cost * (1 + 1e-9):
            yield best
        best, best_cost, last = approximant, choice.cost, approximant.error
        if last <= problem.error or last <= NEAR_LIMIT * limit:
            break
    if best is not None:
        yield best


def _choice(problem: SearchProblem, error: float) -> FixedPointChoice:
    arithmetic = _arithmetic(problem.target)
    return best_fixed_point(
        problem.function,
        problem.domain,
        scale=arithmetic.scale,
        guard_bits=arithmetic.guard_bits,
        error=error,
        relative=problem.relative,
        schemes=problem.schemes,
        target=problem.target,
        parameters=problem.parameters,
        largest_cost=problem.largest_cost,
    )


def _arithmetic(target: Target) -> FixedPointArithmetic:
    assert isinstance(target.arithmetic, FixedPointArithmetic)
    return target.arithmetic


def _approximant(problem: SearchProblem, choice: FixedPointChoice) -> Approximant:
    certified = choice.certified
    expression = certified.program.expression
    measured = measure(expression, problem.function, problem.domain)
    relative = certified.certificate.relative
    return Approximant(
        function=problem.function,
        domain=problem.domain,
        expression=expression,
        scheme=choice.scheme,
        parameters=choice.parameters,
        description=f"{choice.description}, {_digits(certified)}",
        absolute_error=certified.certificate.absolute,
        relative_error=relative if math.isfinite(relative) else None,
        error_kind="certified",
        float32_error=measured.float32_absolute,
        safe_interval=safe_interval(
            expression, problem.function, problem.domain, measured, relative=problem.relative
        ),
        relative=problem.relative,
        target=replace(
            problem.target,
            arithmetic=replace(
                _arithmetic(problem.target), guard_bits=certified.program.guard_bits
            ),
        ),
        tolerance=problem.tolerance,
        fixed_point=certified,
    )


def _digits(certified: CertifiedProgram) -> str:
    program = certified.program
    return f"{program.scale} + {program.guard_bits} bits"
