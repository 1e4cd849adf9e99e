"""Expressions are called on every kind of number, and keep its type and precision."""

import copy
import gc
import pickle
import weakref
from fractions import Fraction
from typing import Any

import flint
import mpmath
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from odp.approximations import ApproximationError, Expression, approximate, constant, variable
from odp.approximations.straight_line_program import StraightLineProgram

x, y = variable("x"), variable("y")
RATIONAL = (x * Fraction(1, 3) + 1) / (x * x + 2)
SEVENTH = RATIONAL(Fraction(1, 7))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool"])
def test_integer_arrays_do_not_wrap_around(dtype: str) -> None:
    points = np.array([0, 1, 100]).astype(dtype)
    value = (x * x * x + 1)(points)
    assert value.dtype == np.float64
    assert value.tolist() == [float(int(p)) ** 3 + 1 for p in points]
    scalar = (x * x * x)(points[2])
    assert scalar == float(points[2]) ** 3


@pytest.mark.parametrize("given_points", [[1, 2, 3], (1.0, 2.0, 3.0), [[1], [2]]])
def test_lists_are_arrays(given_points: Any) -> None:
    value = RATIONAL(given_points)
    assert isinstance(value, np.ndarray)
    assert value.tolist() == RATIONAL(np.array(given_points, dtype=np.float64)).tolist()


def test_python_numbers() -> None:
    assert RATIONAL(2) == Fraction(5, 18)
    assert isinstance(RATIONAL(2), Fraction)
    assert isinstance(RATIONAL(2.0), float)
    assert isinstance(RATIONAL(1j), complex)
    assert (x + y)(1, Fraction(1, 3)) == Fraction(4, 3)
    assert isinstance((x + y)(1, 0.5), float)
    assert isinstance((x * 2)(True), (int, Fraction))


@pytest.mark.parametrize("digits", [20, 60])
def test_mpmath_keeps_its_working_precision(digits: int) -> None:
    exact = Fraction(SEVENTH)
    with mpmath.workdps(digits):
        truth = mpmath.mpf(exact.numerator) / exact.denominator
        tolerance = mpmath.mpf(10) ** (2 - digits)
        real = RATIONAL(mpmath.mpf(1) / 7)
        assert isinstance(real, mpmath.mpf)
        assert abs(real - truth) < tolerance
        assert abs(RATIONAL(mpmath.mpc(mpmath.mpf(1) / 7, 0)) - truth) < tolerance
    with mpmath.workdps(digits):
        ball = RATIONAL(mpmath.iv.mpf([1, 2]) / 7)
        assert ball.a <= mpmath.mpf(exact.numerator) / exact.denominator <= ball.b


def test_flint_balls_and_series() -> None:
    ball = RATIONAL(flint.arb(1) / 7)
    assert ball.contains(flint.fmpq(SEVENTH.numerator, SEVENTH.denominator))
    assert float(ball.rad()) < 1e-14
    series = RATIONAL(flint.arb_series([flint.arb(1) / 7, 1], prec=3))
    derivative = sympy.diff(RATIONAL.to_sympy(), sympy.Symbol("x")).subs("x", sympy.Rational(1, 7))
    assert series[1].contains(flint.fmpq(int(derivative.p), int(derivative.q)))
    rational = RATIONAL(flint.fmpq(1, 7))
    assert rational == flint.fmpq(SEVENTH.numerator, SEVENTH.denominator)
    assert RATIONAL(flint.acb(1, 1)).real.rad() < 1e-10


def test_sympy_stays_symbolic() -> None:
    z = sympy.Symbol("z")
    assert sympy.simplify(RATIONAL(z) - (z / 3 + 1) / (z**2 + 2)) == 0
    assert RATIONAL(sympy.Rational(1, 7)) == sympy.Rational(SEVENTH.numerator, SEVENTH.denominator)


def test_arrays_of_objects_are_exact() -> None:
    points = np.array([Fraction(1, 7), Fraction(2)], dtype=object)
    assert RATIONAL(points).tolist() == [SEVENTH, Fraction(5, 18)]
    many = np.array([mpmath.mpf(1), mpmath.mpf(2)], dtype=object)
    assert isinstance(RATIONAL(many)[1], mpmath.mpf)


def test_torch_integers_become_its_default_type() -> None:
    value = (x * x * x)(torch.tensor([100, 3], dtype=torch.int8))
    assert value.dtype == torch.get_default_dtype()
    assert value.tolist() == [1e6, 27.0]
    assert RATIONAL(torch.tensor(2.0, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_torch_gradients_are_those_of_the_expression() -> None:
    point = torch.tensor(1 / 7, dtype=torch.float64, requires_grad=True)
    RATIONAL(point).backward()
    exact = sympy.diff(RATIONAL.to_sympy(), sympy.Symbol("x")).subs("x", sympy.Rational(1, 7))
    assert point.grad is not None
    assert float(point.grad) == pytest.approx(float(exact), rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constants_have_the_shape_and_type_of_the_argument(dtype: Any) -> None:
    seven = constant(Fraction(7, 2))
    value = seven(np.zeros((2, 3), dtype=dtype))
    assert (value.dtype, value.shape) == (dtype, (2, 3))
    assert (value == 3.5).all()
    tensor = seven(torch.zeros(2, dtype=torch.float16))
    assert (tensor.dtype, tensor.tolist()) == (torch.float16, [3.5, 3.5])
    assert seven(1.0) == 3.5
    assert seven() == Fraction(7, 2)


def test_several_variables() -> None:
    expression = x - 2 * y
    assert expression(1.0, 3.0) == -5.0
    assert expression(y=3.0, x=1.0) == -5.0
    assert expression(1.0, y=3.0) == -5.0
    assert expression(np.ones((2, 1)), np.ones(3)).shape == (2, 3)
    assert (x * y)(x + 1, 2) is (x + 1) * 2


@pytest.mark.parametrize("bad", ["1", None, b"1"])
def test_what_is_no_number_is_one_line(bad: Any) -> None:
    with pytest.raises(ApproximationError, match="numbers or arrays"):
        RATIONAL(bad)


def test_missing_and_superfluous_values_are_one_line() -> None:
    with pytest.raises(ApproximationError, match="no value for the variable 'y'"):
        (x + y)(1.0)
    with pytest.raises(ApproximationError, match="3 values for the variables x, y"):
        (x + y)(1.0, 2.0, 3.0)


@given(st.lists(st.sampled_from("+-*/"), min_size=1, max_size=40), st.randoms())
def test_programs_release_registers_but_never_too_early(operations: list[str], random: Any) -> None:
    """Random graphs with much sharing, against a walk that keeps everything."""
    made: list[Expression] = [x, y, constant(3), x + 1]
    for op in operations:
        a, b = random.choice(made), random.choice(made[-4:])
        if op == "/":
            made.append(a / (b * b + 1))
        else:
            made.append({"+": a + b, "-": a - b, "*": a * b}[op])
    expression = made[-1]
    point = {"x": Fraction(2, 3), "y": Fraction(-1, 5)}
    kept: dict[Expression, Fraction] = {}
    for node in expression.nodes():
        if node.op == "variable":
            kept[node] = point[node.name]
        elif node.op == "constant":
            kept[node] = node.value
        else:
            a_value, b_value = (kept[operand] for operand in node.operands)
            kept[node] = {
                "add": lambda p=a_value, q=b_value: p + q,
                "sub": lambda p=a_value, q=b_value: p - q,
                "mul": lambda p=a_value, q=b_value: p * q,
                "div": lambda p=a_value, q=b_value: p / q,
            }[node.op]()
    used = {name: point[name] for name in expression.variables}
    assert expression(**used) == kept[expression]


def test_a_chain_takes_one_register() -> None:
    chain = x
    for _ in range(1000):
        chain = chain * x + 0.5
    program = StraightLineProgram(chain.nodes())
    registers = {target for _, target, _, _ in program.instructions}
    assert len(registers) == 1


def test_programs_do_not_keep_expressions_alive() -> None:
    expression = (x + 0.123) * (x - 0.456)
    assert expression(1.0) == pytest.approx(1.123 * 0.544)
    reference = weakref.ref(expression)
    gc.disable()
    try:
        del expression
        assert reference() is None
    finally:
        gc.enable()


def test_pickles_and_copies_are_the_same_object() -> None:
    RATIONAL(1.0)
    assert pickle.loads(pickle.dumps(RATIONAL)) is RATIONAL
    assert copy.copy(RATIONAL) is RATIONAL
    assert copy.deepcopy([RATIONAL])[0] is RATIONAL
    approximant = approximate("exp", (-1, 0), error=1e-2)
    again = pickle.loads(pickle.dumps(approximant))
    assert again.expression is approximant.expression
    assert again == approximant


def test_repr_is_short_and_shows_the_formula() -> None:
    assert repr(x * 0.1 + 1) == "Expression(x * 0.1 + 1)"
    assert repr((x + 1) * (x + 1) - 0.333333333333) == "Expression(t1 = x + 1; t1 * t1 - 0.333333)"
    assert repr(constant(2)) == "Expression(2)"
    long = x
    for _ in range(60):
        long = long * 0.99 + 0.01
    assert repr(long) == "Expression(x: 60 mul, 0 div, 60 add, depth 120)"


def test_notebooks_show_latex() -> None:
    assert RATIONAL._repr_latex_().startswith(r"$\displaystyle \frac{x")
