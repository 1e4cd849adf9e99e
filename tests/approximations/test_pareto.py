"""The front: rising in cost, falling in error, nothing on it beaten, and the limit beside it."""

import math

import pytest

from odp.approximations import ApproximationError, approximate, limits, pareto

CASES = [("exp", (-10, 0)), ("sigmoid", (-8, 8)), ("rsqrt", (0.1, 10)), ("log", (1, 2))]


@pytest.mark.parametrize("name, domain", CASES)
def test_a_front_rises_in_cost_and_falls_in_error(name: str, domain: tuple[float, float]) -> None:
    front = pareto(name, domain, error=1e-5)
    costs = [a.target.cost(a.counts) for a in front]
    errors = [a.error for a in front]
    assert costs == sorted(set(costs))
    assert errors == sorted(set(errors), reverse=True)
    assert errors[-1] <= 1e-5 < errors[-2]


@pytest.mark.parametrize("name, domain", CASES)
def test_nothing_beats_the_front(name: str, domain: tuple[float, float]) -> None:
    front = pareto(name, domain, error=1e-5)
    for error in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
        answer = approximate(name, domain, error=error, relative=front[0].relative)
        meets = next(a for a in front if a.error <= error)
        assert meets.target.cost(meets.counts) <= answer.target.cost(answer.counts)


@pytest.mark.parametrize("name, domain", CASES)
def test_operations_give_a_point_of_the_front(name: str, domain: tuple[float, float]) -> None:
    front = pareto(name, domain, error=1e-5)
    for point in front[1::3]:
        cost = point.target.cost(point.counts)
        answer = approximate(name, domain, operations=cost, relative=point.relative)
        assert answer.target.cost(answer.counts) <= cost
        # The proof, not the expression, may differ in the last percent.
        assert answer.error <= 1.01 * point.error


@pytest.mark.parametrize("name, domain", CASES)
def test_one_fit_never_beats_the_limit_of_its_cost(name: str, domain: tuple[float, float]) -> None:
    front = pareto(name, domain, error=1e-5, schemes=("minimax",))
    costs = [a.target.cost(a.counts) for a in front]
    bounds = limits(name, domain, costs, relative=front[0].relative)
    assert bounds == sorted(bounds, reverse=True)
    for point, bound in zip(front, bounds, strict=True):
        # Constants rounded to float32 may be lucky by as much as their rounding, no more.
        assert point.error >= bound * (1 - 1e-3) - 2.0**-24


@pytest.mark.parametrize("name, domain", CASES)
def test_one_fit_in_float64_reaches_the_limit_of_its_cost(
    name: str, domain: tuple[float, float]
) -> None:
    # In float32 the forms with fewest multiplications may round too coarsely.
    front = pareto(name, domain, error=1e-5, schemes=("minimax",), target="float64")
    costs = [a.target.cost(a.counts) for a in front]
    bounds = limits(name, domain, costs, relative=front[0].relative, target="float64")
    for point, bound in zip(front, bounds, strict=True):
        # A proof is within 1 % of the largest error seen.
        assert point.error <= 1.02 * bound


def test_squarings_beat_the_limit_of_one_fit() -> None:
    a = approximate("exp", (-10, 0), operations=7)
    (limit,) = limits("exp", (-10, 0), [7.0], relative=False)
    assert a.absolute_error < limit / 50


def test_a_front_ends_where_it_is_told() -> None:
    front = pareto("exp", (-10, 0), error=1e-9, target="float64", largest_cost=5.0)
    assert front[-1].target.cost(front[-1].counts) <= 5.0
    seen: list[object] = []
    assert pareto("exp", (-10, 0), error=1e-2, progress=seen.append) == seen


def test_limits_and_fronts_say_where_there_is_nothing() -> None:
    first, second = limits("log", (1, 2), [-1.0, 1.0], relative=False)
    assert first == math.inf
    # The minimax straight line (facts, table T1).
    assert second == pytest.approx(3.0e-2, rel=0.02)
    with pytest.raises(ApproximationError):
        pareto("rsqrt", (0, 1))
