"""Proven bounds: above every error that can be found, close to it, and never of a wrong claim."""

from fractions import Fraction

import flint
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.approximations import (
    FUNCTIONS,
    Approximant,
    Expression,
    Function,
    Interval,
    approximate,
    constant,
    get_function,
    variable,
)
from odp.approximations.error_analysis import rounding_error
from odp.approximations.measure import measure
from odp.approximations.proofs.arb_evaluation import (
    PRECISION,
    ArbExpression,
    NoEnclosure,
    arb_evaluator,
)
from odp.approximations.proofs.certify import certify, supremum

from .cases import WIDE, functions, narrow
from .conftest import independent_points

x = variable("x")


def errors_at(
    expression: Expression, function: Function, points: np.ndarray
) -> tuple[list[mpmath.mpf], list[mpmath.mpf]]:
    """Absolute and relative errors in 40 digits: nothing of them is rounding."""
    absolute, relative = [], []
    with mpmath.workdps(40):
        for point in points:
            exact = function.mpmath(float(point))
            error = abs(expression(mpmath.mpf(float(point))) - exact)
            absolute.append(error)
            if exact != 0:
                relative.append(error / abs(exact))
    return absolute, relative


@pytest.mark.parametrize("function", functions(), ids=lambda f: f.name)
def test_ball_evaluators_agree_with_mpmath(function: Function) -> None:
    evaluator = arb_evaluator(function)
    assert evaluator is not None
    lo, hi = narrow(function)
    previous = flint.ctx.prec, flint.ctx.cap
    try:
        flint.ctx.prec, flint.ctx.cap = PRECISION, 4
        for point in np.linspace(lo, hi, 7)[1:-1].tolist():
            series = evaluator(flint.arb_series([flint.arb(point), 1], 4))
            with mpmath.workdps(40):
                taylor = mpmath.taylor(function.mpmath, mpmath.mpf(point), 3)
                for k, coefficient in enumerate(taylor):
                    ball = mpmath.mpf(series[k].mid().str(38, radius=False))
                    assert abs(ball - coefficient) <= mpmath.mpf(10) ** (-9 if k else -30)
    finally:
        flint.ctx.prec, flint.ctx.cap = previous


@pytest.mark.parametrize("function", functions(), ids=lambda f: f.name)
@pytest.mark.parametrize("error", [1e-3, 1e-5])
def test_every_function_gets_a_proof_close_to_its_largest_error(
    function: Function, error: float
) -> None:
    approximant = approximate(function, narrow(function), error=error)
    assert approximant.error_kind == "certified"
    assert approximant.error <= error
    measured = measure(approximant.expression, function, approximant.domain)
    # 2**-48: float64 measures no smaller errors.
    assert approximant.absolute_error <= 1.02 * measured.absolute + 2.0**-48
    if approximant.relative_error is not None and measured.relative is not None:
        assert approximant.relative_error <= 1.02 * measured.relative + 2.0**-48
    _assert_encloses(approximant)


def _assert_encloses(approximant: Approximant) -> None:
    points = independent_points(approximant.function, approximant.domain, 60)
    absolute, relative = errors_at(approximant.expression, approximant.function, points)
    assert max(absolute) <= approximant.absolute_error
    if approximant.relative_error is not None:
        assert max(relative) <= approximant.relative_error


@pytest.mark.parametrize("name, domain, error", WIDE)
def test_the_domains_of_models_get_proofs(
    name: str, domain: tuple[float, float], error: float
) -> None:
    approximant = approximate(name, domain, error=error)
    assert approximant.error_kind == "certified"
    assert approximant.error <= error
    _assert_encloses(approximant)
    bounds = supremum(
        approximant.expression,
        approximant.function,
        approximant.domain,
        relative=approximant.relative,
    )
    assert bounds is not None
    assert bounds.upper <= max(1.011 * bounds.lower, 2.0**-90)
    # float64 measures no error below its own rounding, and the bound is as near as it was asked.
    assert approximant.error <= 1.02 * bounds.lower + 2.0**-48


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_bound_encloses_the_error_everywhere(data: st.DataObject) -> None:
    function = data.draw(st.sampled_from(functions()))
    approximant = approximate(function, narrow(function), error=1e-4)
    assert approximant.error_kind == "certified"
    lo, hi = narrow(function)
    point = data.draw(st.floats(lo, hi))
    absolute, relative = errors_at(approximant.expression, function, np.array([point]))
    assert absolute[0] <= approximant.absolute_error
    if approximant.relative_error is not None and relative:
        assert relative[0] <= approximant.relative_error


@settings(max_examples=40, deadline=None)
@given(
    coefficients=st.lists(st.integers(-64, 64), min_size=1, max_size=6),
    lo=st.floats(-4, 3),
    width=st.floats(1e-3, 4),
)
def test_any_polynomial_is_bounded_by_what_exact_arithmetic_finds(
    coefficients: list[int], lo: float, width: float
) -> None:
    # No approximation at all: the bound has to be found, whatever the goal it starts from.
    expression = constant(0)
    for c in coefficients:
        expression = expression * x + Fraction(c, 16)
    domain = Interval(lo, lo + width)
    function = FUNCTIONS["exp"]
    proof = certify(expression, function, domain, absolute=1e-9)
    points = np.linspace(domain.lo, domain.hi, 101)
    absolute, _ = errors_at(expression, function, points)
    assert proof is not None
    # The largest error may lie between the points; theirs is a lower bound.
    assert max(absolute) <= proof.absolute <= 1.03 * float(max(absolute)) + 1e-3


def test_a_wrong_coefficient_shows_in_the_bound() -> None:
    good = approximate("exp", (-1, 0), error=1e-6)
    wrong = good.expression + constant(1e-3) * x
    measured = good.absolute_error
    proof = certify(wrong, good.function, good.domain, absolute=measured)
    assert proof is not None
    assert 0.99e-3 <= proof.absolute <= 1.03e-3


def test_a_divisor_that_vanishes_is_refused() -> None:
    function = FUNCTIONS["exp"]
    # The pole is cancelled by its numerator: the values are harmless, the division is not.
    for root in (Fraction(1, 2), Fraction(1, 3), Fraction(0), Fraction(1)):
        expression = 1 + x * (x - root) / (x - root)
        assert certify(expression, function, Interval(0, 1), absolute=0.8) is None
    # Just outside, it is not in the way.
    outside = 1 + x * (x + Fraction(1, 100)) / (x + Fraction(1, 100))
    assert certify(outside, function, Interval(0, 1), absolute=0.72) is not None


def test_a_function_of_ones_own_stays_measured() -> None:
    mine = Function("exp", "exp(x)/2", lambda v: np.exp(v) / 2)
    approximant = approximate(mine, (-1, 0), error=1e-3, scheme="chebyshev_pade")
    assert approximant.error_kind == "measured"


def test_without_python_flint_errors_stay_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "flint", None)
    approximant = approximate("exp", (-1.125, 0), error=1e-3)
    assert approximant.error_kind == "measured"


def test_a_proof_leaves_flint_as_it_was() -> None:
    previous = flint.ctx.prec, flint.ctx.cap
    approximate("exp", (-1.375, 0), error=1e-3)
    assert (flint.ctx.prec, flint.ctx.cap) == previous


def test_work_that_runs_out_is_no_proof() -> None:
    a = approximate("rsqrt", (0.01, 100))
    measured = measure(a.expression, a.function, a.domain)
    assert certify(a.expression, a.function, a.domain, absolute=measured.absolute, work=200) is None


def test_balls_and_floats_agree() -> None:
    a = approximate("erf", (-4, 4))
    evaluate = ArbExpression(a.expression)
    points = np.linspace(-4, 4, 33)
    bound = rounding_error(a.expression, points, 2.0**-53)
    for point, value, margin in zip(points, a(points), bound, strict=True):
        assert abs(float(evaluate(flint.arb(float(point)))) - value) <= margin + 1e-17
    with pytest.raises(NoEnclosure):
        ArbExpression(1 / x)(flint.arb(0, 1))
    assert get_function("erf") == a.function
