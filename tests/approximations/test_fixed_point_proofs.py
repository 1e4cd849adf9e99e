"""Certificates of integer programs: analysis, enumeration, and refusals."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.approximations import (
    ApproximationError,
    Expression,
    Function,
    Interval,
    approximate,
    constant,
    get_function,
    variable,
)
from odp.approximations.fits.remez import Problem, minimax
from odp.approximations.fixed_point import (
    FixedPointRefusal,
    analyse,
    exhaustive_error,
    lower,
    lower_expression,
    rounding_limit,
)
from odp.approximations.fixed_point.balls import Ball
from odp.approximations.fixed_point.certified import sampled_error
from odp.approximations.fixed_point.enclosed_values import enclosed_values

from .random_expressions import expressions

X = variable("x")

numbers = st.fractions(min_value=-50, max_value=50, max_denominator=99)


@given(numbers, numbers, numbers, numbers)
def test_balls_enclose(a: Fraction, da: Fraction, b: Fraction, db: Fraction) -> None:
    def ball(middle: Fraction, radius: Fraction) -> Ball:
        exact = Ball.exact(middle, (1,))
        return exact.widened(np.array([abs(float(radius)) * (1 + 2**-50)]))

    p, q = ball(a, da), ball(b, db)
    for x in (a - abs(da), a, a + abs(da)):
        for y in (b - abs(db), b, b + abs(db)):
            results = [(p + q, x + y), (p - q, x - y), (p * q, x * y), (-p, -x)]
            if abs(db) < abs(b):
                results.append((p / q, x / y))
            for enclosure, value in results:
                distance = abs(value - Fraction(float(enclosure.middle[0])))
                assert distance <= Fraction(float(enclosure.radius[0]))
    if abs(db) > abs(b):
        assert math.isinf((p / q).radius[0])


QUOTIENTS = expressions(st.fractions(min_value=-2, max_value=2, max_denominator=500), max_leaves=8)


@settings(max_examples=60, deadline=None)
@given(QUOTIENTS, st.integers(3, 10), st.integers(0, 6), st.booleans())
def test_the_analysis_bounds_every_input_and_every_intermediate(
    expression: Expression, scale: int, guard: int, uniform: bool
) -> None:
    domain = Interval(-1, 1.5)
    program = lower_expression(
        expression, domain, scale=scale, guard_bits=guard, input_scale=6, uniform=uniform
    )
    analysis = analyse(program)
    if analysis is None:
        return
    for n in range(program.lowest, program.highest + 1):
        registers = program.registers(n)
        exact = program.expression(Fraction(n, 2**6)) if program.expression.variables else None
        value = program.expression.value if exact is None else exact
        error = abs(Fraction(registers[-1], 2**scale) - value)
        assert error <= Fraction(analysis.absolute)
        if value and math.isfinite(analysis.relative):
            assert error <= Fraction(analysis.relative) * abs(value)
        for step in program.steps:
            a, b = registers[step.left], registers[step.right]
            widest = [abs(register) for register in registers]
            if step.op == "mul":
                widest.append(abs(a * b) + (1 << step.right_shift >> 1))
            if step.op == "div":
                widest.append(abs(2 * (a << step.left_shift) + (b << step.right_shift)))
            assert max(widest).bit_length() + 1 <= analysis.bits


CASES = [
    ("exp", (-10.0, 0.0), False, {"scheme": "squaring", "error": 1e-4}),
    ("sigmoid", (-8.0, 8.0), False, {"scheme": "minimax", "error": 1e-4}),
    ("tanh", (-4.0, 4.0), False, {"error": 1e-3}),
    ("log", (0.5, 4.0), False, {"error": 1e-4}),
    ("rsqrt", (0.0625, 16.0), True, {"scheme": "newton", "error": 1e-4}),
    ("rsqrt", (0.01, 100.0), True, {"scheme": "newton", "steps": 5, "error": 1e-2}),
    ("reciprocal", (1.0, 16.0), True, {"scheme": "newton", "error": 1e-3}),
    ("sqrt", (0.01, 100.0), True, {"error": 1e-3}),
]


@pytest.mark.parametrize(("name", "domain", "relative", "how"), CASES)
@pytest.mark.parametrize("uniform", [False, True])
def test_the_two_proofs_agree(
    name: str,
    domain: tuple[float, float],
    relative: bool,
    how: dict[str, object],
    uniform: bool,
) -> None:
    found = approximate(name, domain, relative=relative, target="float64", **how)  # type: ignore[arg-type]
    interval = Interval(*domain)
    for scale, guard in ((8, 8), (11, 6)):
        options = {"scale": scale, "guard_bits": guard, "relative": relative, "uniform": uniform}
        arguments = (found.expression, found.function, interval)
        proven = lower(*arguments, **options, error=0.9, proof="analysis")  # type: ignore[arg-type]
        counted = lower(*arguments, **options, error=0.9, proof="enumeration")  # type: ignore[arg-type]
        assert proven.certificate.proof == "analysis"
        assert counted.certificate.proof == "enumeration"
        assert counted.certificate.inputs == counted.program.inputs
        assert counted.error <= proven.error
        # The real error, the rounding of the result and the guard bits' share, no more.
        limit = rounding_limit(found.function, interval, scale, relative)
        assert proven.error <= 2.2 * (found.error + limit)
        assert counted.certificate.absolute <= proven.certificate.absolute


@pytest.mark.parametrize("name", ["exp", "sigmoid", "rsqrt", "sqrt", "erf", "asin", "sin", "tan"])
def test_enclosed_values_are_those_of_mpmath(name: str) -> None:
    function = get_function(name)
    domains = {"rsqrt": (0.01, 100), "sqrt": (0, 4), "asin": (-1, 1), "tan": (-1.5, 1.5)}
    lo, hi = domains.get(name, (-8, 8))
    points = np.arange(math.ceil(lo * 2**9), math.floor(hi * 2**9) + 1) / 2**9
    runs = enclosed_values(function, points, 1e-12)
    assert runs is not None
    random = np.random.default_rng(3)
    next_index = 0
    for where, values, bound in runs:
        assert where.start == next_index
        next_index = where.stop
        assert bound <= 1e-12
        for i in random.integers(where.start, where.stop, 12):
            with mpmath.workdps(40):
                exact = function.mpmath(float(points[i]))
                assert abs(exact - mpmath.mpf(float(values[i - where.start]))) <= bound
    assert next_index == points.size


def test_enumeration_finds_the_worst_input() -> None:
    sigmoid = get_function("sigmoid")
    program = lower_expression(X * 0.2 + 0.5, Interval(-3, 3), scale=8, guard_bits=4)
    errors = exhaustive_error(program, sigmoid)
    n = np.arange(program.lowest, program.highest + 1)
    naive = np.abs(program.integers(n) / 2.0**8 - sigmoid.numpy(n / 2.0**8))
    assert errors.absolute == pytest.approx(naive.max(), rel=1e-3)
    assert errors.absolute >= naive.max()
    assert naive[errors.worst_input - program.lowest] == pytest.approx(naive.max(), rel=1e-9)
    part = exhaustive_error(program, sigmoid, Interval(0, 1))
    assert part.inputs == 257
    assert part.absolute < errors.absolute
    with pytest.raises(ApproximationError, match="no inputs"):
        exhaustive_error(program, sigmoid, Interval(5, 6))


def test_without_an_enclosure_nothing_is_proven() -> None:
    own = Function("mine", "exp(x)", np.exp)
    program = lower_expression(X + 1, Interval(-1, 1), scale=8)
    with pytest.raises(ApproximationError, match="cannot be enclosed"):
        exhaustive_error(program, own)
    with pytest.raises(FixedPointRefusal) as refusal:
        lower(X + 1, own, Interval(-1, 1), scale=8, guard_bits=4)
    assert refusal.value.reason == "not proven"


def quintic_composition(domain: Interval, steps: int) -> Expression:
    """rsqrt by steps y (a + b z + c z^2), z = x y^2, each minimax for what the last one left.

    The first step starts from y = 1/sqrt(hi), where z = x/hi.
    """
    y: Expression | None = None
    lo, hi = (domain.lo / domain.hi) ** 0.5, 1.0
    for _ in range(steps):
        t = lo * (hi / lo) ** np.linspace(0, 1, 4001)
        basis = np.stack([t, t**3, t**5], axis=1)
        ones = np.ones(t.size)
        fit = minimax(Problem(basis, ones[:, None], ones, ones))
        assert fit is not None
        a, b, c = (float(v) for v in fit.p / fit.q[0])
        z = X * (1 / domain.hi) if y is None else (X * y) * y
        step = (z * c + b) * z + a
        y = step * domain.hi**-0.5 if y is None else y * step
        lo, hi = 1 - fit.error, 1 + fit.error
    assert y is not None
    return y


def test_a_composition_that_diverges_at_a_scale_is_refused_there() -> None:
    domain = Interval(0.01, 100)
    rsqrt = get_function("rsqrt")
    composition = quintic_composition(domain, 5)
    for scale in (10, 13):
        with pytest.raises(FixedPointRefusal) as refusal:
            lower(composition, rsqrt, domain, scale=scale, guard_bits=0, uniform=True)
        assert refusal.value.reason == "diverges"
        assert "guard bits or another scheme" in str(refusal.value)
    offered = lower(composition, rsqrt, domain, scale=10, guard_bits=8)
    assert offered.error <= 1.5 * 5.4e-3
    # What it does where it is refused, run on every input: the facts page has 590 at 2^13.
    program = lower_expression(composition, domain, scale=13, uniform=True)
    assert exhaustive_error(program, rsqrt).relative == pytest.approx(590, rel=1e-3)


def test_newton_whose_seed_is_rounded_past_its_limit_is_refused() -> None:
    # y (1.5 - 0.5 x y^2) turns negative above sqrt(3/x) = 0.612 at x = 8: 0.6 is 0.625 at 2^-3.
    y: Expression = constant(0.6)
    for _ in range(8):
        y = y * (1.5 - (X * 0.5 * y) * y)
    arguments = (y, get_function("rsqrt"), Interval(0.5, 8))
    with pytest.raises(FixedPointRefusal) as refusal:
        lower(*arguments, scale=3, guard_bits=0, input_scale=8, uniform=True)
    assert refusal.value.reason == "diverges"
    real = sampled_error(*arguments, relative=True)
    assert lower(*arguments, scale=10, guard_bits=6, uniform=True).error < 1.1 * real


def test_a_polynomial_in_an_unscaled_variable_needs_digits_of_its_own() -> None:
    found = approximate("exp", (-10, 0), scheme="minimax", degree=10, error=1e-3, target="float64")
    arguments = (found.expression, found.function, Interval(-10, 0))
    with pytest.raises(FixedPointRefusal) as refusal:
        lower(*arguments, scale=8, guard_bits=8, uniform=True)
    assert refusal.value.reason == "diverges"
    assert lower(*arguments, scale=8, guard_bits=8).error < 1.2 * 2**-9


def test_divisors_that_may_be_zero_are_refused() -> None:
    # 0.001 is 0 at 2^-6, and so is the divisor at the smallest inputs.
    expression = 1 / (X * X + 0.001)
    function = get_function("reciprocal")
    with pytest.raises(FixedPointRefusal) as refusal:
        lower(
            expression, function, Interval(0.01, 1), scale=6, guard_bits=0, uniform=True, error=1e9
        )
    assert refusal.value.reason == "divisor may be zero"


def test_overflow_and_too_large_errors_are_refused() -> None:
    exp = get_function("exp")
    cubic = approximate("exp", (-1, 0), scheme="minimax", degree=3, error=1e-3).expression
    arguments = (cubic, exp, Interval(-1, 0))
    fits = lower(*arguments, scale=12, guard_bits=2, width=32)
    assert fits.program.bits is not None
    assert fits.program.bits <= 32
    with pytest.raises(FixedPointRefusal, match="bits") as refusal:
        lower(*arguments, scale=24, guard_bits=4, width=32)
    assert refusal.value.reason == "overflow"
    with pytest.raises(FixedPointRefusal, match="larger scale") as refusal:
        lower(*arguments, scale=8, guard_bits=4, error=1e-5)
    assert refusal.value.reason == "error too large"
    again = pickle.loads(pickle.dumps(refusal.value))
    assert (str(again), again.reason) == (str(refusal.value), "error too large")


def test_a_certified_program_is_a_value() -> None:
    cubic = approximate("exp", (-1, 0), scheme="minimax", degree=3, error=1e-3).expression
    first = lower(cubic, get_function("exp"), Interval(-1, 0), scale=8, guard_bits=4)
    assert pickle.loads(pickle.dumps(first)) == first
    assert "8 + 4 guard bits" in repr(first) or "scale 8 + 4" in repr(first)
    assert abs(first(-0.5) - math.exp(-0.5)) <= first.error
