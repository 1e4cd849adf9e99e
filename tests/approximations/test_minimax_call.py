"""`minimax` as users call it: arguments, constraints, weights, hard types, other packages."""

import math
import pickle
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import pytest

from odp.approximations import (
    ApproximationError,
    Histogram,
    Interval,
    get_function,
    minimax,
)
from odp.approximations import expression as expressions
from odp.approximations.fits.fit_problem import FitProblem
from odp.approximations.fits.minimax_fit import fit_type


@pytest.mark.parametrize(
    "name, domain, degree",
    [
        ("exp", (-10, 0), (2, 2)),
        ("exp", (-10, 0), (3, 3)),
        ("exp", (-10, 0), (4, 4)),
        ("exp", (-10, 0), (3, 2)),
        ("exp", (-10, 0), (1, 3)),
        ("sigmoid", (0, 8), (3, 3)),
        ("rsqrt", (1, 4), (2, 2)),
        ("log", (0.01, 100), (4, 4)),
        ("log", (1, 2), (2, 2)),
        ("atan", (0, 10), (3, 3)),
    ],
)
def test_baryrat_finds_the_same_error(
    name: str, domain: tuple[float, float], degree: tuple[int, int]
) -> None:
    baryrat = pytest.importorskip("baryrat")
    f = get_function(name).numpy
    ours = minimax(name, domain, degree, parity="none")
    theirs = baryrat.brasil(f, domain, degree, tol=1e-5)
    x = np.linspace(*domain, 200_001)
    assert ours.fit.error == pytest.approx(float(np.abs(theirs(x) - f(x)).max()), rel=1e-3)


def test_exact_coefficients_are_those_of_the_fit() -> None:
    for name, domain, degree, relative in [
        ("exp", (-10, 0), (3, 2), False),
        ("rsqrt", (2.0**-10, 64), (4, 4), True),
        ("sigmoid", (-8, 8), (5, 4), False),
        ("gelu", (-6, 6), (6, 6), False),
        ("log", (1, 2), (5, 5), False),
        ("sin", (-math.pi, math.pi), 9, False),
    ]:
        a = minimax(name, domain, degree, relative=relative)
        assert a.fit.denominator[0] == 1
        with mpmath.workdps(40):
            p, q = (
                [mpmath.mpf(c.numerator) / c.denominator for c in reversed(part)]
                for part in (a.fit.numerator, a.fit.denominator)
            )
            heights = []
            for x in a.fit.extrema:
                f = a.function.mpmath(x)
                error = mpmath.polyval(p, x) / mpmath.polyval(q, x) - f
                heights.append(float(error / abs(f) if relative else error))
        # Level, up to the points between which the extrema lie, and of the error that is said.
        assert max(map(abs, heights)) == pytest.approx(a.fit.error, rel=1e-3)
        assert min(map(abs, heights)) == pytest.approx(a.fit.error, rel=1e-3)


def test_the_error_alternates_once_more_than_there_are_coefficients() -> None:
    for degree, count in [(5, 7), ((2, 2), 6), ((0, 3), 5)]:
        a = minimax("exp", (-1, 1), degree)
        assert len(a.fit.extrema) == count
        errors = [float(a(x)) - math.exp(x) for x in a.fit.extrema]
        assert all(one * other < 0 for one, other in pairwise(errors))


@pytest.mark.parametrize("degree", [4, 7, (2, 2), (1, 2), (3, 1)])
@pytest.mark.parametrize("value", [1, 0, Fraction(5, 4)])
def test_the_value_at_zero_can_be_fixed(degree: Any, value: Fraction) -> None:
    a = minimax("exp", (-1, 1), degree, fixed={0: value})
    assert a.expression(Fraction(0)) == value
    free = minimax("exp", (-1, 1), degree)
    assert a.fit.error >= free.fit.error
    # The fit cannot be better than what is fixed of it.
    assert a.fit.error >= abs(float(value) - 1)
    assert a.certified_error is not None
    if value == 1:
        assert a.fit.is_minimax
        assert a.fit.error < 4 * free.fit.error


def test_fixed_coefficients_of_a_polynomial_stay_exact() -> None:
    a = minimax("sin", (-1, 1), 7, fixed={1: 1, 3: Fraction(-1, 8)})
    x = expressions.variable("x")
    derivative = a.expression.to_sympy().diff()
    assert a.expression.variables == x.variables
    assert derivative.subs(derivative.free_symbols.pop(), 0) == 1
    assert a.fit.numerator[3] == Fraction(-1, 8)
    # A gap on both sides of 0: no alternation is known, linear programs decide.
    gap = minimax("exp", (-1, 1), 5, fixed={2: Fraction(1, 2)})
    assert gap.fit.numerator[2] == Fraction(1, 2)
    assert gap.fit.is_minimax
    assert minimax("exp", (-1, 1), 5).fit.error < gap.fit.error < 2e-4
    taylor = np.array([1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1])
    t = np.linspace(-1, 1, 999)
    assert gap.fit.error < np.abs(np.polyval(taylor, t) - np.exp(t)).max()


def test_a_parity_can_be_demanded_or_forbidden() -> None:
    odd = minimax("sin", (0, math.pi / 2), 7, parity="odd")
    assert not any(odd.fit.numerator[0::2])
    assert odd.fit.error == pytest.approx(
        minimax("sin", (-math.pi / 2, math.pi / 2), 7).fit.error, rel=1e-4
    )
    left = minimax("exp", (-2, -1), 4, parity="even")
    assert not any(left.fit.numerator[1::2])
    assert left.fit.is_minimax
    plain = minimax("sin", (-1, 1), 4, parity="none")
    assert plain.fit.error == pytest.approx(minimax("sin", (-1, 1), 3).fit.error, rel=1e-3)


def test_tanh_is_twice_sigmoid() -> None:
    for degree in [7, (3, 2), (5, 4)]:
        tanh = minimax("tanh", (-4, 4), degree).fit.error
        sigmoid = minimax("sigmoid", (-8, 8), degree).fit.error
        assert tanh == pytest.approx(2 * sigmoid, rel=1e-4)


@pytest.mark.parametrize(
    "name, domain, degree, expected",
    [
        ("gelu", (-6, 6), (6, 6), 4.8e-4),
        ("gelu", (-6, 6), (8, 6), 5.05e-5),
        ("silu", (-10, 10), (6, 4), 9.75e-5),
        ("sigmoid", (-8, 8), (5, 4), 5.45e-6),
    ],
)
def test_structural_forms_reach_the_facts(
    name: str, domain: tuple[float, float], degree: tuple[int, int], expected: float
) -> None:
    a = minimax(name, domain, degree, target="float32")
    assert a.certified_error is not None
    assert a.certified_error <= 1.01 * expected


def test_weights_by_function_text_and_histogram() -> None:
    by_function = minimax("exp", (-10, 0), 5, weight=lambda x: np.exp(-x))
    by_text = minimax("exp", (-10, 0), 5, weight="exp(-x)")
    relative = minimax("exp", (-10, 0), 5, relative=True)
    assert by_function.fit.error == pytest.approx(relative.fit.error, rel=1e-9)
    assert by_text.fit.error == pytest.approx(relative.fit.error, rel=1e-9)
    assert by_function.certified_error is not None
    inputs = np.concatenate([np.linspace(-1, 0, 900), np.linspace(-10, -1, 100)])
    histogram = Histogram.of(inputs, floor=0.05)
    weighted = minimax("exp", (-10, 0), 5, weight=histogram)
    plain = minimax("exp", (-10, 0), 5)
    often = np.linspace(-0.9, 0, 300)

    def error_there(a: Callable[[Any], Any]) -> float:
        return float(np.abs(a(often) - np.exp(often)).max())

    assert weighted.fit.is_minimax
    assert error_there(weighted) < 0.5 * error_there(plain)


@pytest.mark.parametrize("degree", [(10, 10), (9, 1), (1, 9), (5, 5), 20])
@pytest.mark.parametrize(
    "name, domain, relative",
    [
        ("rsqrt", (1e-3, 1e3), True),
        ("rsqrt", (1, 1e12), True),
        ("log", (1e-6, 1e6), False),
        ("exp", (-100, 0), False),
        ("exp", (-1, 0), False),
        ("normal_cdf", (-6, 6), False),
    ],
)
def test_hard_types_are_answered_honestly(
    name: str, domain: tuple[float, float], relative: bool, degree: Any
) -> None:
    try:
        a = minimax(name, domain, degree, relative=relative)
    except ApproximationError as error:
        assert "\n" not in str(error)
        return
    x = np.concatenate([np.linspace(*domain, 3001), np.array(domain)])
    if domain[0] > 0:
        x = np.concatenate([x, np.geomspace(*domain, 3001)])
    with mpmath.workdps(30):
        reference = np.array([float(a.function.mpmath(v)) for v in x[::10]])
    values = np.array([float(a.expression(Fraction(v))) for v in x[::10]])
    error = np.abs(values - reference) / (np.abs(reference) if relative else 1.0)
    # Certified: proven.  Otherwise a maximum over a grid.
    slack = 1.0 if a.error_kind == "certified" else 1.01
    assert error.max() <= slack * a.error + 2.0**-52
    if a.fit.is_minimax:
        assert a.fit.bound > 0
    assert a.fit.error <= 1.01 * a.error


def test_degenerate_types_are_proven_by_linear_programs() -> None:
    # erf(x/sqrt 2) on [-6, 6], (5, 4): the facts' solver found no better than (5, 2).
    problem = FitProblem(
        get_function("normal_cdf"), Interval(-6, 6), lambda x, values: np.ones_like(x)
    )
    fit = fit_type(problem, 2, 2, thorough=True)
    smaller = fit_type(problem, 2, 1, thorough=True)
    assert fit is not None
    assert smaller is not None
    assert fit.bound <= fit.error < smaller.error
    assert fit.error <= 1.001 * fit.bound
    # x^2 on [-1, 1] is a polynomial: every larger type is degenerate and exact.
    even = minimax(get_function("cosh"), (-1, 1), (3, 3), parity="none")
    assert even.fit.error <= 1.001 * minimax("cosh", (-1, 1), (2, 2)).fit.error


def test_tiny_errors_are_proven_too() -> None:
    a = minimax("exp", (-1, 0), 12)
    assert a.fit.is_minimax
    assert a.fit.error == pytest.approx(2.92e-18, rel=1e-2)
    # Rounding the coefficients to float64 costs more than that, and the proof says so.
    assert a.certified_error is not None
    assert a.fit.error < a.certified_error < 1e-15


def test_an_approximant_of_a_fit_pickles() -> None:
    a = minimax("exp", (-1, 0), (2, 1))
    again = pickle.loads(pickle.dumps(a))
    assert again == a
    assert again.fit == a.fit


@pytest.mark.parametrize(
    "arguments, options, words",
    [
        (("exp", (-1, 0), -1), {}, "degree"),
        (("exp", (-1, 0), 2.5), {}, "degree"),
        (("exp", (-1, 0), (1, 2, 3)), {}, "degree"),
        (("exp", (-1, 0), True), {}, "degree"),
        (("exp", (-1, 0), 1000), {}, "degree"),
        (("exp", (0, -1), 3), {}, "reversed"),
        (("log", (0, 1), 3), {}, "branch point"),
        (("exp", (-1, math.inf), 3), {}, "infinite"),
        (("sin", (-1, 1), 3), {"parity": "both"}, "parity"),
        (("exp", (-1, 1), 3), {"parity": "odd"}, "not odd"),
        (("exp", (-1, 1), 3), {"fixed": {0: math.nan}}, "fixed"),
        (("exp", (-1, 1), 3), {"fixed": {-1: 1}}, "power"),
        (("exp", (-1, 1), (2, 2)), {"fixed": {1: 1}}, "value at 0"),
        (("sin", (-1, 1), 3), {"fixed": {0: 1}}, "symmetry"),
        (("log", (0.5, 2), 3), {"relative": True}, "zero"),
        (("exp", (-1, 1), 3), {"weight": lambda x: x}, "positive"),
        (("exp", (-1, 1), 3), {"weight": 3}, "weight"),
        (("exp", (-1, 1), 3), {"weight": lambda x: "heavy"}, "no function of an array"),
        (("exp", (-1, 1), 3), {"weight": lambda x: 1 / 0}, "no function of an array"),
        (("exp", (-1, 1), 3), {"target": "abacus"}, "target"),
        (("exp", (-1, 1), 1), {"fixed": {0: 1, 1: 1}}, "type"),
    ],
)
def test_bad_arguments_are_one_clear_line(
    arguments: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ApproximationError, match=words) as caught:
        minimax(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_a_falling_odd_function_has_a_relative_error() -> None:
    # 1/x - 1/sin(x) = -x/6 - ...: the zero at 0 is kept by the form.
    fit = minimax("1/x - 1/sin(x)", (-2, 2), 5, relative=True)
    assert fit.certified_error is not None
    assert fit.relative_error == fit.certified_error < 1e-2


def test_a_type_that_is_higher_than_the_function_is_no_crash() -> None:
    # min(exp(x), 2) is 2 there: in several hundred bits leading coefficients are exactly zero.
    fit = minimax("min(exp(x), 2)", (0.8433684953493801, 2), (3, 2), relative=True)
    assert fit.absolute_error < 1e-12
