"""The cheapest program at a scale: the fixed-point limits of the facts page, and bad requests."""

from __future__ import annotations

import pytest

from odp.approximations import ApproximationError, Interval, approximate, get_function
from odp.approximations.fixed_point import best_fixed_point, exhaustive_error, rounding_limit

# The best numbers of the facts page, section 4: exp and sigmoid absolute, rsqrt relative.
LIMITS = [
    ("exp", (-10.0, 0.0), {7: 4.0e-3, 10: 5.2e-4, 13: 6.6e-5, 16: 1.1e-5}),
    ("sigmoid", (-8.0, 8.0), {7: 9.5e-3, 10: 1.4e-3, 13: 2.3e-4, 16: 2.5e-5}),
    ("rsqrt", (0.0625, 16.0), {7: 1.7e-2, 10: 2.7e-3, 13: 3.4e-4, 16: 4.2e-5}),
    ("rsqrt", (0.01, 100.0), {10: 5.4e-3, 13: 7.0e-4, 16: 7.9e-5}),
]


CASES = [
    (name, domain, scale, limit, uniform)
    for name, domain, row in LIMITS
    for scale, limit in row.items()
    for uniform in (False, True)
    # With one scale for everything, roots need quotients of wide integers, slow to enumerate.
    if not uniform or name != "rsqrt" or scale == 10
]


@pytest.mark.parametrize(("name", "domain", "scale", "limit", "uniform"), CASES)
def test_within_the_limits_of_every_scale(
    name: str, domain: tuple[float, float], scale: int, limit: float, uniform: bool
) -> None:
    choice = best_fixed_point(name, domain, scale=scale, uniform=uniform)
    certified = choice.certified
    assert certified.relative == (name == "rsqrt")
    assert certified.error <= 1.1 * limit
    half = rounding_limit(certified.function, Interval(*domain), scale, certified.relative)
    assert certified.error <= 1.1 * half
    assert certified.program.bits is not None
    assert certified.program.bits <= 64
    # Every representable input, also where the certificate is by analysis.
    confirmed = exhaustive_error(certified.program, certified.function)
    reached = confirmed.relative if certified.relative else confirmed.absolute
    assert confirmed.inputs == certified.program.inputs
    assert 0.9 * half < reached <= certified.error
    if uniform:
        assert all(
            step.scale == scale + certified.program.guard_bits
            for step in certified.program.steps
            if step.rounds and step.op != "round"
        )


def test_an_error_may_be_asked_for() -> None:
    coarse = best_fixed_point("exp", (-10, 0), scale=13, error=1e-2)
    fine = best_fixed_point("exp", (-10, 0), scale=13, error=1e-4)
    assert coarse.certified.error <= 1e-2
    assert fine.certified.error <= 1e-4
    assert coarse.cost < fine.cost
    assert coarse.certified.program.guard_bits <= fine.certified.program.guard_bits


def test_guard_bits_and_schemes_may_be_fixed() -> None:
    choice = best_fixed_point(
        "exp", (-10, 0), scale=10, guard_bits=7, schemes=("squaring",), error=7e-4
    )
    assert choice.scheme == "squaring"
    assert choice.certified.program.guard_bits == 7
    assert choice.certified.error <= 7e-4
    with pytest.raises(ApproximationError, match="guard bits"):
        best_fixed_point("exp", (-10, 0), scale=10, guard_bits=0, schemes=("squaring",))


def test_inputs_may_have_a_scale_of_their_own() -> None:
    choice = best_fixed_point("exp", (-10, 0), scale=7, input_scale=12)
    assert choice.certified.program.inputs == 40961
    assert choice.certified.error <= 1.1 * 2**-8


def test_narrow_integers_are_respected() -> None:
    choice = best_fixed_point("sigmoid", (-8, 8), scale=7, width=32)
    assert choice.certified.program.bits is not None
    assert choice.certified.program.bits <= 32
    with pytest.raises(ApproximationError, match="bits"):
        best_fixed_point("exp", (-10, 0), scale=13, width=20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("exp", (-10, 0), 7, 1e-3), "rounding the result alone costs 0.00391; use a larger scale"),
        (("exp", (-10, 0), 7, -1.0), "rounding the result alone"),
        (("rsqrt", (-1, 1), 7, None), "real only on"),
        (("nothing", (-1, 1), 7, None), "unknown function"),
    ],
)
def test_impossible_requests_are_one_clear_error(
    arguments: tuple[str, tuple[float, float], int, float | None], message: str
) -> None:
    name, domain, scale, error = arguments
    with pytest.raises(ApproximationError, match=message):
        best_fixed_point(name, domain, scale=scale, error=error)


def test_wider_integers_where_one_word_is_too_narrow() -> None:
    choice = best_fixed_point("sinh", (-10, 10), scale=14)
    assert choice.certified.error <= 1.1 * 2**-15
    assert choice.certified.program.bits is not None
    assert 64 < choice.certified.program.bits <= 128
    with pytest.raises(ApproximationError, match="64"):
        best_fixed_point("sinh", (-10, 10), scale=14, width=64)


def test_oscillations_and_angle_doubling_are_seen() -> None:
    choice = best_fixed_point("sin", (-100, 100), scale=10)
    assert choice.certified.error <= 1.1 * 2**-11
    confirmed = exhaustive_error(choice.certified.program, choice.certified.function)
    assert confirmed.absolute <= choice.certified.error


def test_a_function_with_a_zero_gets_an_absolute_error() -> None:
    choice = best_fixed_point("sqrt", (0, 4), scale=8)
    assert not choice.certified.relative
    assert choice.certified.error <= 1.1 * 2**-9
    assert exhaustive_error(choice.certified.program, get_function("sqrt")).inputs == 1025


def test_relative_errors_need_a_function_without_a_zero() -> None:
    with pytest.raises(ApproximationError, match="has a zero"):
        best_fixed_point("sin", (0, 3), scale=10, relative=True)


def test_the_program_is_that_of_the_expression_found() -> None:
    choice = best_fixed_point("rsqrt", (0.0625, 16), scale=10)
    real = approximate("rsqrt", (0.0625, 16), scheme=choice.scheme, error=0.5, **choice.parameters)
    assert real.counts.divisions == choice.expression.counts.divisions
    rsqrt = get_function("rsqrt")
    assert abs(choice.certified(4.0) - 0.5) <= choice.certified.error * 0.5 + 1e-15
    assert choice.certified.function == rsqrt
