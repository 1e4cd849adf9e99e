"""Budgets of several parts and histograms: what they allow, and that answers keep them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.approximations import ApproximationError, Histogram, Tolerance, approximate


def worst_share(approximant: object, tolerance: Tolerance) -> float:
    function, domain = approximant.function, approximant.domain  # type: ignore[attr-defined]
    x = np.linspace(domain.lo, domain.hi, 20_001)
    exact = function.numpy(x)
    error = np.abs(approximant(x) - exact)  # type: ignore[operator]
    return float((error / tolerance.allowed(x, exact)).max())


@pytest.mark.parametrize(
    "error",
    [(1e-6, 1e-4, 0.0), (0.0, 1e-4, 0.0), (1e-4, 0.0, 0.0), (0.0, 0.0, 4096.0), (1e-5, 0.0, 16.0)],
)
@pytest.mark.parametrize("name, domain", [("exp", (-6, 6)), ("sqrt", (0.01, 4))])
def test_an_answer_keeps_every_part_of_its_budget(
    name: str, domain: tuple[float, float], error: tuple[float, float, float]
) -> None:
    a = approximate(name, domain, error=error)
    # 20,001 points of a smooth curve: what lies between them is not 1 % higher.
    assert worst_share(a, Tolerance(*error)) <= 1.01


def test_a_sum_of_parts_costs_no_more_than_one_of_them() -> None:
    def cost(error: object) -> float:
        a = approximate("exp", (-6, 6), error=error)  # type: ignore[arg-type]
        return a.target.cost(a.counts)

    both = cost((1e-4, 1e-4, 0.0))
    assert both <= cost((1e-4, 0.0, 0.0))
    assert both <= cost((0.0, 1e-4, 0.0))


def test_a_triple_with_one_part_is_that_error() -> None:
    assert approximate("exp", (-4, 0), error=(1e-4, 0, 0)) == approximate(
        "exp", (-4, 0), error=1e-4, relative=False
    )
    assert approximate("exp", (-4, 0), error=Tolerance(relative=1e-3)) == approximate(
        "exp", (-4, 0), error=1e-3, relative=True
    )


def test_a_histogram_buys_accuracy_where_inputs_are() -> None:
    random = np.random.default_rng(3)
    histogram = Histogram.of(random.normal(0, 1, 10_000), floor=0.01)
    plain = approximate("sigmoid", (-8, 8), error=1e-4)
    weighted = approximate("sigmoid", (-8, 8), error=1e-4, histogram=histogram)
    assert weighted.target.cost(weighted.counts) <= plain.target.cost(plain.counts)
    tolerance = Tolerance(absolute=1e-4, histogram=histogram)
    assert worst_share(weighted, tolerance) <= 1.01
    # The declared error is that of the whole domain, rare inputs included.
    x = np.linspace(-8, 8, 20_001)
    seen = np.abs(weighted(x) - weighted.function.numpy(x)).max()
    assert seen <= weighted.absolute_error * (1 + 1e-3) + 1e-15
    assert weighted.absolute_error <= 1e-4 / 0.01 * 1.01


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=50).filter(lambda v: max(v) > min(v) + 1e-6))
def test_weights_are_between_the_floor_and_one(inputs: list[float]) -> None:
    histogram = Histogram.of(inputs, bins=8, floor=0.05)
    weight = histogram.weight(np.linspace(-10, 10, 999))
    assert weight.min() >= 0.05
    assert weight.max() <= 1.0


def test_ulps_are_those_of_float32() -> None:
    allowed = Tolerance(ulps=2.0).allowed(np.zeros(3), np.array([1.0, 1.5, -4.0]))
    assert allowed.tolist() == [2 * 2.0**-23, 2 * 2.0**-23, 2 * 2.0**-21]


@pytest.mark.parametrize(
    "build, words",
    [
        (Tolerance, "zero cannot be met"),
        (lambda: Tolerance(-1.0), "must be a positive number"),
        (lambda: Tolerance(math.nan), "must be a positive number"),
        (lambda: Tolerance("small"), "must be a positive number"),  # type: ignore[arg-type]
        (lambda: Histogram((0.0, 1.0), ()), "needs 1 edges"),
        (lambda: Histogram((0.0, 1.0), (1.0, 2.0)), "needs 3 edges"),
        (lambda: Histogram((1.0, 0.0), (1.0,)), "ascend"),
        (lambda: Histogram((0.0, 1.0), (0.0,)), "all zero"),
        (lambda: Histogram((0.0, 1.0), (-1.0,)), "negative"),
        (lambda: Histogram((0.0, 1.0), (1.0,), floor=0.0), "floor"),
        (lambda: approximate("exp", (-1, 0), error=(1e-3, 1e-3)), "several parts"),  # type: ignore[arg-type]
        (lambda: approximate("exp", (-1, 0), error=1e-3, operations=3), "not both"),
        (lambda: approximate("exp", (-1, 0), operations=-1), "zero or a positive number"),
        (lambda: approximate("exp", (-1, 0), operations=math.nan), "zero or a positive number"),
    ],
)
def test_a_bad_budget_is_one_clear_line(build: object, words: str) -> None:
    with pytest.raises(ApproximationError, match=words) as caught:
        build()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Histogram.of([]),
        lambda: Histogram.of([0.0, math.nan]),
        lambda: Histogram.of(["a"]),
        lambda: Histogram.of([0.0, 1.0], bins=0),
        lambda: Histogram((0.0, 1.0), ("a",)),  # type: ignore[arg-type]
        lambda: Histogram((0.0, 1.0), (1.0,), floor="a"),  # type: ignore[arg-type]
        lambda: Histogram((0.0, 1.0), (1.0,), floor=0.0),
    ],
)
def test_a_bad_histogram_is_one_clear_line(build: Callable[[], Histogram]) -> None:
    with pytest.raises(ApproximationError, match="histogram"):
        build()
