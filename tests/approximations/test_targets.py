"""Targets: what they charge for, what they refuse, and that the choice follows their costs."""

import math

import pytest

from odp.approximations import (
    TARGETS,
    Approximant,
    ApproximationError,
    OperationCounts,
    Target,
    approximate,
    get_target,
    variable,
)
from odp.approximations.arithmetic import (
    FLOAT32,
    FLOAT64,
    CoefficientRangeError,
    FixedPointArithmetic,
    FloatArithmetic,
    round_constants,
)

FLOATS = [t for t in TARGETS.values() if isinstance(t.arithmetic, FloatArithmetic)]


def cost(approximant: Approximant) -> float:
    return approximant.target.cost(approximant.counts)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.name)
def test_every_target_charges_for_what_there_is(target: Target) -> None:
    x = variable("x")
    product = x * x
    assert target.cost(x.counts) == 0
    assert target.cost(product.counts) > 0
    assert target.cost((x * 3).counts) <= target.cost(product.counts)
    assert target.cost((product * x).counts) > target.cost(product.counts)
    quotient = target.cost((1 / x).counts)
    assert quotient == math.inf if target.division is None else quotient > 0
    assert "\n" not in target.summary
    assert get_target(target.name) is target


@pytest.mark.parametrize("target", FLOATS, ids=lambda t: t.name)
@pytest.mark.parametrize(
    "name, domain", [("exp", (-10, 0)), ("sigmoid", (-8, 8)), ("rsqrt", (0.1, 10))]
)
def test_no_target_would_rather_have_what_another_one_got(
    target: Target, name: str, domain: tuple[float, float]
) -> None:
    own = approximate(name, domain, error=1e-3, target=target)
    assert own.error <= 1e-3
    assert own.target == target
    assert math.isfinite(cost(own))
    for other in FLOATS:
        # Expressions with float32 constants are expressions with float64 constants as well.
        if other.arithmetic == FLOAT32 or target.arithmetic == FLOAT64:
            theirs = approximate(name, domain, error=1e-3, target=other)
            assert cost(own) <= target.cost(theirs.counts) * (1 + 1e-9)


def test_a_target_without_division_gets_none() -> None:
    for name, domain in [("sigmoid", (-8, 8)), ("rsqrt", (0.1, 10)), ("reciprocal", (1, 16))]:
        assert approximate(name, domain, error=1e-2, target="fhe").counts.divisions == 0


def test_multiplicative_depth_counts_the_longest_chain_of_products() -> None:
    x = variable("x")
    assert (x + 1).counts.multiplicative_depth == 0
    assert (x * x + x * 3).counts.multiplicative_depth == 1
    assert (((x * x) * x) / (x + 1)).counts.multiplicative_depth == 3
    assert ((x * x) * (x * x)).counts.multiplicative_depth == 2


def test_the_cost_of_an_expression() -> None:
    target = Target("t", "", 5.0, 3.0, 7.0, 0.5, 0.25)
    counts = OperationCounts(
        multiplications=4,
        constant_multiplications=1,
        divisions=2,
        additions=6,
        depth=9,
        multiplicative_depth=4,
    )
    assert target.cost(counts) == 3 * 5 + 3 + 2 * 7 + 6 * 0.5 + 4 * 0.25


@pytest.mark.parametrize(
    "text, arithmetic",
    [
        ("fixed{scale=13,guard=6}", FixedPointArithmetic(13, 6)),
        ("fixed{ scale = 7 }", FixedPointArithmetic(7, None)),
        ("ezkl{scale=10}", FixedPointArithmetic(10, None)),
        ("float64", FLOAT64),
    ],
)
def test_targets_are_read(text: str, arithmetic: object) -> None:
    assert get_target(text).arithmetic == arithmetic


@pytest.mark.parametrize(
    "text, words",
    [
        ("ezlk", "did you mean ezkl"),
        ("zzz", "known: float32"),
        ("fixed{guard=3}", "need a scale"),
        ("fixed{scale=-3}", "whole numbers"),
        ("fixed{scale=99}", "up to 60"),
        ("fixed{bits=3}", "options are"),
        ("fixed{scale=3", "unknown target"),
        ("", "unknown target"),
    ],
)
def test_a_bad_target_is_one_clear_line(text: str, words: str) -> None:
    with pytest.raises(ApproximationError, match=words) as caught:
        approximate("exp", (-1, 0), target=text)
    assert "\n" not in str(caught.value)


def test_a_cost_that_is_no_number_is_refused() -> None:
    with pytest.raises(ApproximationError, match="cost of a multiplication"):
        Target("mine", "", multiplication="dear")  # type: ignore[arg-type]
    with pytest.raises(ApproximationError, match="cost of a depth"):
        Target("mine", "", depth=None)  # type: ignore[arg-type]


def test_a_cost_below_zero_is_refused() -> None:
    with pytest.raises(ApproximationError, match="must be zero or a positive number"):
        Target("t", "", multiplication=-1.0)


def test_constants_are_rounded_to_the_arithmetic() -> None:
    x = variable("x")
    third = (x * (1 / 3)) + 0.5
    single = round_constants(third, FLOAT32)
    assert single != third
    assert round_constants(single, FLOAT64) is single
    assert round_constants(third, FLOAT64) is third
    with pytest.raises(CoefficientRangeError):
        round_constants(x * 1e-40, FLOAT32)
    with pytest.raises(CoefficientRangeError):
        round_constants(x * 1e39, FLOAT32)


def test_float64_reaches_errors_that_float32_cannot() -> None:
    a = approximate("erf", (-1, 1), error=1e-10, relative=False, target="float64")
    assert a.absolute_error <= 1e-10
    assert a.error_kind == "certified"
    with pytest.raises(ApproximationError, match="no expression reaches"):
        approximate("erf", (-1, 1), error=1e-10, relative=False)
