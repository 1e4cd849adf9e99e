"""Forms of evaluation: all of them say the same, and each keeps the count that it is for."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.polynomial import Chebyshev, Polynomial

from odp.approximations import ApproximationError, Expression, variable
from odp.approximations.arithmetic import CoefficientRangeError
from odp.approximations.forms.evaluation_forms import (
    by_cost,
    cheapest_forms,
    chebyshev_forms,
    polynomial_forms,
    rational_forms,
)
from odp.approximations.forms.polynomial_forms import (
    giant_steps,
    polynomial_builders,
)
from odp.approximations.forms.polynomials import horner
from odp.approximations.forms.preprocessed_forms import (
    AGREEMENT,
    eve,
    factored,
    knuth_quartic,
    preprocessed_forms,
)
from odp.approximations.target import TARGETS

t = variable("t")
FLOAT32, FHE = TARGETS["float32"], TARGETS["fhe"]
INEXACT = ("eve", "factored")

fractions = st.one_of(
    st.sampled_from([Fraction(0), Fraction(1), Fraction(-1)]),
    st.fractions(min_value=-8, max_value=8, max_denominator=32),
)
points = st.fractions(min_value=-3, max_value=3, max_denominator=16)


def polynomials(most: int) -> st.SearchStrategy[list[Fraction]]:
    return st.lists(fractions, min_size=1, max_size=most + 1)


def value(coefficients: list[Fraction], point: Fraction) -> Fraction:
    return sum((c * point**k for k, c in enumerate(coefficients)), Fraction(0))


def generic(degree: int, seed: int = 0) -> list[float]:
    """Coefficients of no particular shape."""
    coefficients: list[float] = np.random.default_rng(seed).normal(size=degree + 1).tolist()
    return coefficients


def products(expression: Expression) -> int:
    """Multiplications of two values."""
    return expression.counts.multiplications - expression.counts.constant_multiplications


@settings(max_examples=60, deadline=None)
@given(polynomials(17), points)
def test_forms_of_a_polynomial_are_equal(coefficients: list[Fraction], point: Fraction) -> None:
    expected = value(coefficients, point)
    for name, expression in polynomial_forms(coefficients, t):
        assert expression(t=point) == expected, name
    while len(coefficients) > 1 and not coefficients[-1]:
        coefficients.pop()
    for name, build in polynomial_builders(len(coefficients) - 1, preprocessed=True):
        assert build(coefficients, t)(t=point) == expected, name
    if len(coefficients) == 5:
        assert knuth_quartic(coefficients, t)(t=point) == expected


@settings(max_examples=60, deadline=None)
@given(polynomials(7), polynomials(6), points)
def test_forms_of_a_quotient_are_equal(
    above: list[Fraction], below: list[Fraction], point: Fraction
) -> None:
    assume(value(below, point) != 0)
    expected = value(above, point) / value(below, point)
    for name, expression in rational_forms(above, below, t, preprocessed=True):
        if name.startswith(INEXACT):
            continue
        try:
            assert expression(t=point) == expected, name
        except ZeroDivisionError:
            # Its partial denominators have zeros of their own.
            assert name == "continued_fraction"


@settings(max_examples=60, deadline=None)
@given(polynomials(20), points)
def test_forms_of_a_chebyshev_series_are_equal(
    coefficients: list[Fraction], point: Fraction
) -> None:
    before, now, expected = Fraction(1), point, coefficients[0]
    for coefficient in coefficients[1:]:
        expected += coefficient * now
        before, now = now, 2 * point * now - before
    for name, expression in chebyshev_forms(coefficients, t):
        assert expression(t=point) == expected, name


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-8, 8), min_size=4, max_size=11),
    st.sampled_from([0.5, 1.0, 3.0, 100.0]),
    st.fractions(min_value=-1, max_value=1, max_denominator=64),
)
def test_preprocessed_forms_agree_as_declared(
    coefficients: list[float], radius: float, where: Fraction
) -> None:
    assume(abs(coefficients[-1]) > 1e-3)
    point = where * Fraction(radius)
    exact = [Fraction(c) for c in coefficients]
    # AGREEMENT is declared for the power of two above the radius.
    scale = Fraction(2) ** math.ceil(math.log2(radius))
    allowed = Fraction(AGREEMENT) * sum(abs(c) * scale**k for k, c in enumerate(exact))
    for name, expression in preprocessed_forms(coefficients, t, radius):
        assert abs(expression(t=point) - value(exact, point)) <= allowed, name


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=9),
    st.sampled_from([1e-200, 1e-9, 1.0, 1e9, 1e200]),
)
def test_preprocessing_survives_every_finite_coefficient(
    coefficients: list[float], radius: float
) -> None:
    assume(coefficients[-1] != 0)
    for _, expression in preprocessed_forms(coefficients, t, radius):
        assert expression.variables == ("t",)


def test_preprocessed_forms_are_found() -> None:
    exponential = [1 / math.factorial(k) for k in range(8)]
    assert [name for name, _ in preprocessed_forms(exponential, t)] == [
        "eve",
        "factored",
        "factored_squares",
    ]
    assert "knuth" in dict(preprocessed_forms(exponential[:5], t))


@pytest.mark.parametrize("degree", range(64))
def test_least_depth(degree: int) -> None:
    forms = dict(polynomial_forms(generic(degree), t))
    least = min(expression.counts.multiplicative_depth for expression in forms.values())
    assert least == math.ceil(math.log2(degree + 1))


# OpenFHE's documentation, "Arbitrary Smooth Function Evaluation": degrees up to ... take levels.
OPENFHE = [(5, 4), (13, 5), (27, 6), (59, 7), (119, 8)]


@pytest.mark.parametrize("degree", [3, 5, 6, 9, 13, 14, 20, 27, 28, 40, 59])
def test_encrypted_evaluation_needs_no_more_levels_than_openfhe(degree: int) -> None:
    levels = next(depth for largest, depth in OPENFHE if degree <= largest)
    name, best = cheapest_forms(generic(degree), t, FHE, limit=1)[0]
    assert best.counts.multiplicative_depth <= levels, name
    assert FHE.cost(best.counts) < FHE.cost(horner(generic(degree), t).counts)
    series = by_cost(chebyshev_forms(generic(degree), t), FHE)[0][1]
    assert series.counts.multiplicative_depth <= levels


@pytest.mark.parametrize("degree", range(4, 64))
def test_giant_steps_take_two_square_roots_of_products(degree: int) -> None:
    best = min(products(giant_steps(generic(degree), t, w)) for w in range(2, degree))
    assert best <= 2 * math.sqrt(degree + 1) - 1


def test_dividing_halves_the_products_of_blocks() -> None:
    forms = {name: products(e) for name, e in polynomial_forms(generic(31), t, preprocessed=True)}
    shared = min(count for name, count in forms.items() if name.startswith("giant"))
    divided = min(count for name, count in forms.items() if name.startswith("paterson"))
    assert (shared, divided) == (10, 9)


@pytest.mark.parametrize("degree", range(21))
def test_horner_is_first_by_default(degree: int) -> None:
    forms = cheapest_forms(generic(degree), t, FLOAT32)
    assert forms[0][0] == "horner"
    assert forms[0][1] is horner(generic(degree), t)
    assert FLOAT32.cost(forms[0][1].counts) == degree
    assert 1 <= len(forms) <= 3


@pytest.mark.parametrize("above", range(6))
@pytest.mark.parametrize("below", range(1, 6))
def test_quotients_are_never_dearer_than_horner_over_monic_horner(above: int, below: int) -> None:
    p, q = generic(above, 1), generic(below, 2)
    best = cheapest_forms(p, t, FLOAT32, denominator=q)[0][1]
    # Where the polynomial part is divided out, one multiplication less.
    saved = 1 if above >= below else 0
    assert FLOAT32.cost(best.counts) <= 3 + above + (below - 1) - (saved if above else 0)


def test_polynomials_without_odd_powers_are_polynomials_in_the_square() -> None:
    name, best = cheapest_forms([1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 4.0], t, FLOAT32)[0]
    assert (name, best.counts.multiplications) == ("even_odd", 4)


def test_numerator_and_denominator_share_powers() -> None:
    forms = dict(rational_forms(generic(7, 1), [*generic(6, 2), 1.0], t))
    alone = dict(polynomial_forms(generic(7, 1), t))["estrin"]
    # t^2 and t^4 are there already; the denominator is monic.
    assert products(forms["estrin"]) == 2 * products(alone) - 2


@pytest.mark.parametrize("degree", range(5, 9))
def test_preprocessing_saves_the_multiplications_it_promises(degree: int) -> None:
    exponential = [1 / math.factorial(k) for k in range(degree + 1)]
    form = eve(exponential, t)
    assert form is not None
    assert form.counts.multiplications == degree // 2 + 2
    assert form.counts.additions <= degree + 1
    assert knuth_quartic(exponential[:5], t).counts.multiplications == 3
    name, best = cheapest_forms(exponential, t, FLOAT32, preprocessed=True)[0]
    assert FLOAT32.cost(best.counts) < degree, name


@pytest.mark.parametrize("degree", [6, 8, 10])
def test_factors_keep_their_accuracy_on_wide_domains(degree: int) -> None:
    """Horner in a raw variable on [-10, 0] loses 100 roundings and more; factors lose a few."""
    fit = Chebyshev.interpolate(np.exp, degree, domain=[-10, 0]).convert(kind=Polynomial)
    coefficients = fit.coef.tolist()
    x = np.linspace(-10, 0, 997, dtype=np.float32)
    expected = Chebyshev.interpolate(np.exp, degree, domain=[-10, 0])(x.astype(np.float64))

    def roundings(form: Expression | None) -> float:
        assert form is not None
        return float(np.abs(form(x) - expected).max()) / 2.0**-24

    assert roundings(horner(coefficients, t)) > 100
    assert roundings(factored(coefficients, t, 10.0)) < 10


def test_continued_fractions_win_where_division_is_cheap() -> None:
    cheap = replace(FLOAT32, division=1.0)
    p, q = generic(3, 1), generic(3, 2)
    name, best = cheapest_forms(p, t, cheap, denominator=q, preprocessed=True)[0]
    assert name == "continued_fraction"
    assert (best.counts.divisions, best.counts.multiplications) == (3, 0)


def test_what_a_target_cannot_compute_is_left_out() -> None:
    assert cheapest_forms([1.0, 2.0], t, FHE, denominator=[1.0, 3.0]) == []


def test_a_constant_denominator_divides_the_coefficients() -> None:
    name, best = cheapest_forms([1.0, 2.0, 4.0], t, FLOAT32, denominator=[2.0])[0]
    assert best(t=Fraction(3)) == Fraction(1 + 6 + 36, 2), name
    assert best.counts.divisions == 0
    with pytest.raises(ApproximationError, match="zero"):
        cheapest_forms([1.0], t, FLOAT32, denominator=[0.0, 0.0])


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_coefficients_are_finite(bad: float) -> None:
    with pytest.raises(CoefficientRangeError):
        cheapest_forms([1.0, bad, 1.0], t, FLOAT32)
    with pytest.raises(CoefficientRangeError):
        cheapest_forms([1.0], t, FLOAT32, denominator=[bad, 1.0])
    with pytest.raises(CoefficientRangeError):
        list(polynomial_forms([bad], t))
