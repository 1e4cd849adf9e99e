"""The Pareto front: for every cost the smallest error, and the limit that one fit could reach."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from numbers import Real

from odp.approximations import cache
from odp.approximations.approximant import Approximant
from odp.approximations.arithmetic import FLOAT64, FixedPointArithmetic
from odp.approximations.choose import checked_domain, checked_tolerance
from odp.approximations.errors import ApproximationError
from odp.approximations.functions.function import Function
from odp.approximations.functions.registry import get_function
from odp.approximations.interval import Interval
from odp.approximations.search import (
    SearchProblem,
    check_scheme,
    find_scheme,
    sharper_searches,
)
from odp.approximations.target import Target, get_target

__all__ = ["limits", "pareto"]


def pareto(
    function: str | Function,
    domain: Interval | tuple[float, float],
    *,
    error: float = 1e-6,
    relative: bool | None = None,
    target: str | Target = "float32",
    largest_cost: float = math.inf,
    schemes: Sequence[str] | None = None,
    progress: Callable[[Approximant], None] | None = None,
) -> list[Approximant]:
    """All approximants that nothing cheaper is as good as, from the cheapest to the sharpest.

    Args:
        function: a registered name, an expression of one variable, or a Function.
        domain: where the errors must hold.
        error: smallest error wanted; the front ends with the first approximant that meets it.
        relative: as in `approximate`; it is decided once, for `error`.
        target: decides the costs and the arithmetic.
        largest_cost: in the target's units; the front ends before it.
        schemes: names of the schemes that compete; None for all.
        progress: called with every approximant as it is found.

    Returns:
        Rising in cost, falling in error as evaluated on the target; at least one.

    Raises:
        ApproximationError: for bad input as in `approximate`, or if nothing is as cheap as
            `largest_cost`.

    >>> front = pareto("exp", (-10, 0), error=1e-4)
    >>> [a.counts.multiplications for a in front][-1]
    5
    """
    chosen = get_function(function)
    interval = checked_domain(domain)
    chosen.check_domain(interval)
    place = get_target(target)
    tolerance = checked_tolerance(chosen, interval, error, relative, place)
    if not isinstance(largest_cost, Real) or not largest_cost >= 0:
        raise ApproximationError(
            f"{chosen.name}: the largest cost must be zero or a positive number,"
            f" not {largest_cost!r}"
        )
    if isinstance(schemes, str) or (schemes is not None and not schemes):
        raise ApproximationError(
            f"{chosen.name}: schemes is a list of names, or None for all, not {schemes!r}"
        )
    names = None if schemes is None else tuple(schemes)
    for name in names or ():
        check_scheme(find_scheme(name), chosen, interval)
    problem = SearchProblem(chosen, interval, tolerance, place, names, largest_cost=largest_cost)
    kept = cache.load(problem, "front")
    front: list[Approximant] = []
    for point in kept or _points(problem):
        # Its place on the front, no budget, is what it was chosen for.
        front.append(replace(point, tolerance=None))
        if progress is not None:
            progress(front[-1])
    if not kept:
        cache.store(problem, "front", front)
    return front


def limits(
    function: str | Function,
    domain: Interval | tuple[float, float],
    costs: Sequence[float],
    *,
    relative: bool,
    target: str | Target = "float32",
) -> list[float]:
    """What no single polynomial or rational function of each cost is better than.

    Coefficients are not rounded to the target's numbers.  An approximant below the limit is a
    composition, whose degree is higher than that of one fit of its cost.

    Args:
        function: as in `pareto`.
        domain: likewise.
        costs: in the target's units.
        relative: whether errors are relative.
        target: decides the costs.

    Returns:
        The smallest error of a fit of at most each cost; infinity where there is none.
    """
    if not len(costs):
        return []
    chosen = get_function(function)
    ends = _limits(chosen, checked_domain(domain), max(costs), relative, get_target(target))
    steps = [cost for cost, _ in ends]
    found = (bisect.bisect_right(steps, cost * (1 + 1e-9)) for cost in costs)
    return [ends[index - 1][1] if index else math.inf for index in found]


@lru_cache(maxsize=64)
def _limits(
    function: Function, domain: Interval, largest_cost: float, relative: bool, target: Target
) -> list[tuple[float, float]]:
    exact = replace(target, arithmetic=FLOAT64)
    tolerance = checked_tolerance(function, domain, 1e-13, relative, exact)
    problem = SearchProblem(
        function, domain, tolerance, exact, ("minimax",), largest_cost=largest_cost
    )
    try:
        ends = []
        for found in sharper_searches(problem):
            ends.append((found.best_cost[0], found.error * found.error_share))
            if ends[-1][1] <= problem.error:
                break
        return ends
    except ApproximationError:
        return []


def _points(problem: SearchProblem) -> Iterator[Approximant]:
    if isinstance(problem.target.arithmetic, FixedPointArithmetic):
        from odp.approximations.fixed_point import answer

        yield from answer.front(problem)
    else:
        for found in sharper_searches(problem):
            point = found.result()
            yield point
            # The proof may be a little above the largest error seen, float32's error far above.
            if max(point.error, found.error * found.error_share) <= problem.error:
                return
