"""Which functions steps towards x^(-1/q) give, and which sequences of steps are worth a fit."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.root_seeds import SEEDS, SeedKind, best_seed
from odp.approximations.schemes.root_steps import STEPS, StepKind, error_after
from odp.approximations.schemes.scheme import Request
from odp.approximations.tolerance import Tolerance

__all__ = [
    "RootPlan",
    "Sequence",
    "absolute_error",
    "root_plan",
    "seeds",
    "sequences",
    "working_interval",
]

_LARGEST_ROOT = 4
_LARGEST_POWER = 3
_MOST_STEPS = 40
# The table of step errors is right to about this share.
_TABLE = 0.97
# Below this the error is rounding.
_EXACT = 2.0**-50


@dataclass(frozen=True)
class RootPlan:
    """A power of x as ``x^x_power * y^y_power`` with ``y = x^(-1/root)``."""

    root: int
    x_power: int
    y_power: int

    @property
    def products(self) -> int:
        """Multiplications that turn the last y into the function."""
        shared = self.x_power > 0 and self.root in (2, 3)
        # The last step multiplies x y, which it has, instead of y.
        alone = shared and self.y_power == 1
        return self.x_power + self.y_power - 1 - (1 if alone else 0)


def root_plan(function: Function) -> RootPlan | None:
    """How a power is made from x^(-1/q), q at most 4; None where it is not."""
    p = function.exponent
    if p is None or p.denominator > _LARGEST_ROOT:
        return None
    q = p.denominator
    if q == 1:
        return RootPlan(1, 0, -p.numerator) if -_LARGEST_POWER <= p.numerator < 0 else None
    power = -p.numerator % q
    whole = p + type(p)(power, q)
    while whole < 0:
        power, whole = power + q, whole + 1
    if power > _LARGEST_POWER or whole > _LARGEST_POWER:
        return None
    return RootPlan(q, int(whole), power)


def working_interval(request: Request, plan: RootPlan) -> Interval | None:
    """The part of the domain on which the relative error counts; None if there is none.

    Where x is so small that the value is below the budget, any value between 0 and twice the right
    one will do, and steps that start below their interval end below it.
    """
    domain = request.domain
    exponent = request.function.exponent
    assert exponent is not None
    if domain.lo > 0 and (request.relative or exponent < 0):
        return domain
    if request.relative or request.mixed or exponent < 0:
        return domain if domain.lo > 0 else None
    smallest = (request.error / (2**plan.y_power - 1)) ** float(1 / exponent)
    low = max(domain.lo, min(smallest, domain.hi / 4))
    return Interval(low, domain.hi) if low < domain.hi else None


@dataclass(frozen=True)
class Sequence:
    """A seed and the steps after it, with their cost and about the final error."""

    cost: float
    seed: SeedKind
    kinds: tuple[StepKind, ...]
    error: float

    @property
    def kind(self) -> str:
        """The kind of all its steps, or ``mixed``."""
        return self.kinds[0] if len(set(self.kinds)) == 1 else "mixed"


def sequences(
    request: Request,
    plan: RootPlan,
    ratio: float,
    cost: Callable[[SeedKind, tuple[StepKind, ...]], float],
) -> Iterator[Sequence]:
    """Seeds with steps by rising cost, without those that a cheaper sequence beats.

    Args:
        request: whose cost limit and fixed parameters count; it may change between two sequences.
        plan: what is wanted.
        ratio: of the bounds of the interval.
        cost: what a seed with steps costs.
    """
    fixed = request.parameters.get("steps")
    most = fixed if isinstance(fixed, int) else _MOST_STEPS
    waiting: list[tuple[float, int, SeedKind, tuple[StepKind, ...], float]] = []
    number = 0

    def wait(seed: SeedKind, kinds: tuple[StepKind, ...], rho: float) -> None:
        nonlocal number
        price = cost(seed, kinds)
        if price < request.cost_limit:
            number += 1
            heapq.heappush(waiting, (price, number, seed, kinds, rho))

    for seed in seeds(request, plan):
        wait(seed, (), best_seed(plan.root, seed, ratio).rho)
    # With a fixed number of steps, one that has fewer left is no worse for a larger spread.
    best: dict[int, float] = {}
    while waiting:
        price, _, seed, kinds, rho = heapq.heappop(waiting)
        if price >= request.cost_limit:
            return
        key = len(kinds) if isinstance(fixed, int) else 0
        if rho <= best.get(key, 0.0):
            continue
        best[key] = rho
        error = (1 - rho) / (1 + rho)
        yield Sequence(price, seed, kinds, error * _TABLE)
        if len(kinds) >= most or error < _EXACT:
            continue
        for kind, step in STEPS.items():
            if plan.root == 1 and step.divisions:
                continue
            if request.parameters.get("step", kind) == kind:
                reached = error_after(plan.root, kind, rho)
                wait(seed, (*kinds, kind), (1 - reached) / (1 + reached))


def seeds(request: Request, plan: RootPlan) -> list[SeedKind]:
    """The seeds that a request may use."""
    fixed = request.parameters.get("seed")
    # With a division there is nothing left to iterate for 1/x.
    return [
        kind
        for kind, (_, _, divisions) in SEEDS.items()
        if fixed in (None, kind) and not (plan.root == 1 and divisions)
    ]


def absolute_error(request: Request, plan: RootPlan, relative: float) -> float:
    """The error of the request's kind that goes with a relative error of y.

    The relative error is reached at both ends of the domain, so the absolute one at the larger
    value there.
    """
    error = relative * plan.y_power
    if request.relative:
        return error
    values = abs(request.function.numpy([request.domain.lo, request.domain.hi]))
    if not request.mixed:
        return error * float(values.max())
    tolerance = request.tolerance or Tolerance(absolute=request.error)
    import numpy as np

    ends = np.array([request.domain.lo, request.domain.hi])
    share = error * values / tolerance.allowed(ends, values)
    return float(share.max()) * request.error
