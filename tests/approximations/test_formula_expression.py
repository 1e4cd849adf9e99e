"""A user's own formula: read without being evaluated, in the order in which it is written."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.approximations import ApproximationError, variable
from odp.approximations.formula_expression import formula_expression

x = variable("x")
NEWTON = "y=2/(1+x); y=y*(1.5-0.5*x*y*y); y"


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("x", x),
        ("x+1", x + 1),
        ("1-x", 1 - x),
        ("-x", 0 - x),
        ("-x**2", 0 - x * x),
        ("(-x)**2", (0 - x) * (0 - x)),
        ("+x*2", x * 2),
        # Operators of one rank from left to right, and never in another order.
        ("x*2*3", (x * 2) * 3),
        ("x*(2*3)", x * 6),
        ("0.5*x*x", (Fraction(1, 2) * x) * x),
        ("0.5*(x*x)", Fraction(1, 2) * (x * x)),
        ("1+x+2", (1 + x) + 2),
        ("1-x-2", (1 - x) - 2),
        ("x/2/3", (x / 2) / 3),
        ("x/2*3", (x / 2) * 3),
        ("1-(x-2)", 1 - (x - 2)),
        ("1+x*2", 1 + x * 2),
        # Numbers are exact, whatever is not x is computed beforehand.
        ("0.1*x", Fraction(1, 10) * x),
        ("1e-3*x", Fraction(1, 1000) * x),
        ("1/3*x", Fraction(1, 3) * x),
        ("2**10*x", 1024 * x),
        ("0x10*x", 16 * x),
        ("1_000.5*x", Fraction(2001, 2) * x),
        # Powers.
        ("x**1", x),
        ("x**2", x * x),
        ("x^2", x * x),
        ("2*x^2+1", 2 * (x * x) + 1),
        ("x**3", x * (x * x)),
        ("x**4", (x * x) * (x * x)),
        ("x**6", (x * x) * ((x * x) * (x * x))),
        # Programs.
        ("y=x*x", x * x),
        ("y=x*x;", x * x),
        ("t = x/8 ; (1+t)**2", (1 + x / 8) * (1 + x / 8)),
        ("y=x+1; y=y*y; y-2", (x + 1) * (x + 1) - 2),
        ("x=x/4; x+1", x / 4 + 1),
        (" a_1 =\n x*x;\n\ta_1 + 1\n", x * x + 1),
    ],
)
def test_the_expression_that_is_spelled_out(text: str, expression: object) -> None:
    assert formula_expression(text) is expression


@pytest.mark.parametrize(
    ("text", "multiplications", "divisions", "additions"),
    [
        ("(1+x/8)**8", 3, 1, 1),
        ("(1+x*0.125)**8", 4, 0, 1),
        ("(1+x/1024)^1024", 10, 1, 1),
        # The squarings, and one product less than the exponent has ones.
        ("x**7", 4, 0, 0),
        ("x**15", 6, 0, 0),
        ("x**65536", 16, 0, 0),
        # Equal parts once.
        ("(x+1)*(x+1)", 1, 0, 1),
        ("x**2 + x**4", 2, 0, 1),
        (NEWTON, 4, 1, 2),
    ],
)
def test_counts(text: str, multiplications: int, divisions: int, additions: int) -> None:
    counts = formula_expression(text).counts
    assert (counts.multiplications, counts.divisions, counts.additions) == (
        multiplications,
        divisions,
        additions,
    )


def test_the_order_of_evaluation_shows_in_float32() -> None:
    points = np.linspace(0.1, 3.0, 1001, dtype=np.float32)
    single = np.float32
    left, right = formula_expression("0.1*x*x*x"), formula_expression("0.1*(x*(x*x))")
    np.testing.assert_array_equal(left(points), single(0.1) * points * points * points)
    np.testing.assert_array_equal(right(points), single(0.1) * (points * (points * points)))
    assert (left(points) != right(points)).any()


def test_values_of_a_program() -> None:
    def newton(value: Fraction) -> Fraction:
        y = 2 / (1 + value)
        return y * (Fraction(3, 2) - Fraction(1, 2) * value * y * y)

    for value in (Fraction(1, 3), Fraction(4), Fraction(7, 5)):
        assert formula_expression(NEWTON)(value) == newton(value)


TREES = st.recursive(
    st.sampled_from(["x", "2", "0.5", "3", "1.25"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map("({0[0]}{0[1]}{0[2]})".format),
        inner.map("(-{})".format),
        st.tuples(inner, st.integers(1, 5)).map("({0[0]})**{0[1]}".format),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(text=TREES, at=st.fractions(min_value=-3, max_value=3, max_denominator=16))
def test_a_formula_means_what_it_means_in_python(text: str, at: Fraction) -> None:
    # Binary fractions alone, so that Python's floats in between are exact Fractions too.
    exact = text.replace("0.5", "Fraction(1, 2)").replace("1.25", "Fraction(5, 4)")
    expected = eval(exact, {"Fraction": Fraction, "x": at})
    assert formula_expression(f"x + {text}")(at) == at + expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        (" ; ;", "it is empty"),
        ("3*2", "does not depend on x, its value is 6"),
        ("0*x", "does not depend on x, its value is 0"),
        ("1+t", "unknown name 't'; known here: x (column 3)"),
        ("y=x; 1+z", "unknown name 'z'; known here: x, y (column 8)"),
        ("x^2 + t", "unknown name 't'; known here: x (column 7)"),
        ("y=y*x; y", "unknown name 'y'; known here: x (column 3)"),
        ("pi*x", "unknown name 'pi'"),
        ("1+exp(x)", "exp is a function; there are only numbers"),
        ("2+x(3)", "'x' is called; write * to multiply (column 3)"),
        ("x.real", "'x.real' has no place here"),
        ("x.f(2)", "'x.f' is called"),
        ("(1+x", "'(' was never closed in '(1+x' (column 1)"),
        ("y = 1; (1+x", "'(' was never closed in '(1+x' (column 8)"),
        ("x+", "invalid syntax in 'x+'"),
        ("2x", "invalid decimal literal in '2x'"),
        ("x x", "invalid syntax in 'x x' (column 3)"),
        ("x; x+1", "the value of 'x' is not used; name it"),
        ("a=b=x", "more than one '=' in a part"),
        ("y==x", "more than one '=' in a part"),
        ("y+=x", "'y+' is no name to assign to"),
        ("2=x", "'2' is no name to assign to"),
        ("lambda=x", "'lambda' is no name to assign to"),
        ("=x", "'' is no name to assign to"),
        ("y=", "there is no value after '='"),
        ("x//2", "only + - * / ** are operators (column 4)"),
        ("x%2", "'%' has no place here"),
        ("x<2", "'<' has no place here"),
        ("max(x,0)", "',' has no place here"),
        ("x²", "'²' has no place here"),
        ("2·x", "'·' has no place here; there are numbers"),
        ("x \u2212 1", "'\u2212' has no place here"),
        ("x # y", "'#' has no place here"),
        ("x[0]", "'[' has no place here"),
        ("__import__('os')", "has no place here"),
        ("x if x else x", "'x if x else x' has no place here"),
        ("x and x", "'x and x' has no place here"),
        ("not x", "'not x' has no place here"),
        ("1j*x", "'1j' is no real number"),
        ("True*x", "'True' is no real number"),
        ("...*x", "'...' is no real number"),
        ("1e400*x", "beyond what float64 represents"),
        ("1e-400*x", "beyond what float64 represents"),
        ("1e-310*x", "beyond what float64 represents"),
        (f"{'1' * 65}*x", "more than 64 characters"),
        ("x/0", "division by zero (column 3)"),
        ("x/(2-2)", "division by zero"),
        ("x**0", "an exponent is a whole number from 1 to 65536, not '0' (column 4)"),
        ("x**-1", "not '-1'"),
        ("x**2.0", "not '2.0'"),
        ("x**x", "not 'x'"),
        ("x**True", "not 'True'"),
        ("x^2^3", "not '2**3'"),
        ("x**65537", "not '65537'"),
        ("9**9**9*x", "not '9**9'"),
        ("99**9999*x", "a power is too long a number"),
        ("*".join(["123456789012345678901234567890"] * 60) + "*x", "a number is too long"),
        ("x+" * 700 + "x", "more than 1000 numbers"),
        ("-" * 300 + "x", "nested more than 200 deep"),
        ("(" * 300 + "x" + ")" * 300, "too many nested parentheses"),
        ("x" * 5000, "longer than 4000 characters"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_read_is_one_clear_line(text: str, words: str) -> None:
    with pytest.raises(ApproximationError) as caught:
        formula_expression(text)
    assert words in str(caught.value)
    assert str(caught.value).startswith("formula ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [5, None, ["x"], x])
def test_what_is_no_text(value: object) -> None:
    with pytest.raises(ApproximationError, match="a formula is a text"):
        formula_expression(value)  # type: ignore[arg-type]


def test_numbers_that_double_do_not_fill_the_memory() -> None:
    text = "t=1.5;" + "t=t*t;" * 40 + "x*t"
    with pytest.raises(ApproximationError, match="too long"):
        formula_expression(text)


def test_a_deep_program_is_read() -> None:
    coefficients = [random.Random(3).random() for _ in range(60)]
    nested = "+x*(".join(f"{c:.6f}" for c in coefficients) + ")" * 59
    summed = "+".join(f"{c:.6f}*x**{k}" for k, c in enumerate(coefficients) if k)
    at = Fraction(2, 3)
    summed_value = formula_expression(summed)(at) + Fraction(f"{coefficients[0]:.6f}")
    assert formula_expression(nested)(at) == summed_value
    chained = formula_expression("t=x;" + "t=t*x+1;" * 150 + "t")
    assert chained.counts.multiplications == 150


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=30) | st.text(alphabet="xyt=;+-*/^()0123456789.e _", max_size=30))
def test_any_text_is_an_expression_or_one_line(text: str) -> None:
    try:
        expression = formula_expression(text)
    except ApproximationError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert expression.variables == ("x",)
