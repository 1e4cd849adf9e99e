"""Expressions: laws, folding, sharing, and that all emitters say the same."""

import copy
import pickle
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from odp.approximations import ApproximationError, Expression, constant, variable
from odp.approximations.emitters.source_emitters import one_line
from odp.approximations.error_analysis import rounding_error

x = variable("x")
fractions = st.fractions(min_value=-8, max_value=8, max_denominator=64)
numbers = st.one_of(st.integers(-8, 8), fractions, st.sampled_from([0.5, -0.25, 3.0, 1e-3]))


def expressions(max_leaves: int = 12) -> st.SearchStrategy[Expression]:
    leaves = st.one_of(st.just(x), numbers.map(constant))

    def extend(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        def combine(op: str, a: Expression, b: Expression) -> Expression:
            if op == "div" and b.op == "constant" and b.value == 0:
                return a
            return {
                "add": lambda: a + b,
                "sub": lambda: a - b,
                "mul": lambda: a * b,
                "div": lambda: a / b,
            }[op]()

        return st.builds(combine, st.sampled_from(["add", "sub", "mul", "div"]), inner, inner)

    return st.recursive(leaves, extend, max_leaves=max_leaves)


def exact(expression: Expression, point: Fraction) -> Fraction:
    try:
        return Fraction(expression(point)) if expression.variables else expression.value
    except ZeroDivisionError:
        assume(False)
        raise


@given(expressions(), expressions(), fractions)
def test_operators_evaluate_to_the_operation(a: Expression, b: Expression, p: Fraction) -> None:
    va, vb = exact(a, p), exact(b, p)
    assert exact(a + b, p) == va + vb
    assert exact(a - b, p) == va - vb
    assert exact(a * b, p) == va * vb
    assert exact(-a, p) == -va
    if vb != 0:
        assert exact(a / b, p) == va / vb


@given(expressions(), numbers, fractions)
def test_numbers_on_either_side(a: Expression, c: Any, p: Fraction) -> None:
    va, vc = exact(a, p), Fraction(c)
    assert exact(a + c, p) == exact(c + a, p) == va + vc
    assert exact(c - a, p) == vc - va
    assert exact(a * c, p) == exact(c * a, p) == va * vc
    if vc != 0:
        assert exact(a / c, p) == va / vc
    if va != 0:
        assert exact(c / a, p) == vc / va


@given(expressions(6), st.integers(0, 9), fractions)
def test_integer_powers(a: Expression, n: int, p: Fraction) -> None:
    assert exact(a**n, p) == exact(a, p) ** n


@given(expressions(), fractions)
def test_equal_structure_is_the_same_object(a: Expression, p: Fraction) -> None:
    assert pickle.loads(pickle.dumps(a)) is a
    assert copy.deepcopy(a) is a
    assert a.substitute(x=x) is a
    assert hash(a) == hash(a.substitute(x=x))


@given(expressions(), fractions)
def test_text_emitters_say_the_same(a: Expression, p: Fraction) -> None:
    value = exact(a, p)
    scope: dict[str, Any] = {}
    source = a.to_python("g")
    exec(source, scope)
    arguments = [float(p)] if a.variables else []
    try:
        computed = scope["g"](*arguments)
        reference = a(float(p)) if a.variables else float(value)
    except (ZeroDivisionError, OverflowError):
        assume(False)
        raise
    assert computed == reference
    symbolic = a.to_sympy()
    rational = sympy.Rational(p.numerator, p.denominator)
    assert sympy.Rational(value.numerator, value.denominator) == symbolic.subs("x", rational)
    assert isinstance(a.to_latex(), str)
    assert repr(a).startswith("Expression(")


def test_neutral_elements_vanish_and_constants_fold() -> None:
    assert x * 1 is x
    assert 1 * x is x
    assert x + 0 is x
    assert x - 0 is x
    assert x / 1 is x
    assert (x * 0).value == 0
    assert (constant(1) / 3).value == Fraction(1, 3)
    assert constant(0.1).value == Fraction(0.1) != Fraction(1, 10)
    assert -(x - 1) is 1 - x
    assert (x**0).value == 1
    assert x**1 is x


def test_counts_count_shared_work_once() -> None:
    square = x * x
    expression = (square + 1) / (square * 3 - 2)
    counts = expression.counts
    assert (counts.multiplications, counts.constant_multiplications) == (2, 1)
    assert (counts.divisions, counts.additions, counts.depth) == (1, 2, 4)
    assert (x**8).counts.multiplications == 3
    assert x.counts.depth == 0


def test_order_of_operations_is_kept() -> None:
    y = variable("y")
    assert (x * y) * y is not x * (y * y)
    assert (x + 1) - 1 is not x


def test_very_deep_expressions_do_not_recurse() -> None:
    deep = x
    for _ in range(20000):
        deep = deep * 0.999 + 0.001
    assert deep(1.0) == pytest.approx(1.0)
    assert pickle.loads(pickle.dumps(deep)) is deep
    assert deep.counts.depth == 40000


def test_text_of_deep_expressions_does_not_recurse() -> None:
    deep = x
    for _ in range(1500):
        deep = deep * 0.999 + 0.001
    assert "1500 mul" in one_line(deep)
    assert deep.to_latex().count("0.999") == 1500


def test_sharing_keeps_text_short() -> None:
    c, s = x, 1 - x
    for _ in range(30):
        c, s = (c - s) * (c + s), c * s
    assert len((c + s).to_latex()) < 10000
    assert len((c + s).to_python()) < 10000


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_dtype_is_kept(dtype: Any) -> None:
    expression = (x * 0.1 + Fraction(1, 3)) / (x * x + 2)
    points = np.linspace(-1, 1, 12, dtype=dtype).reshape(3, 4)
    value = expression(points)
    assert value.dtype == dtype
    assert value.shape == points.shape
    assert expression(points[0, 0]).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_torch_dtype_is_kept_and_gradients_flow(dtype: torch.dtype) -> None:
    expression = (x * 0.1 + Fraction(1, 3)) / (x * x + 2)
    points = torch.linspace(-1, 1, 5, dtype=dtype, requires_grad=True)
    value = expression(points)
    assert value.dtype == dtype
    value.sum().backward()  # type: ignore[no-untyped-call]
    assert points.grad is not None
    assert bool(torch.isfinite(points.grad).all())


def test_mpmath_and_sympy_keep_their_precision() -> None:
    third = x * Fraction(1, 3)
    with mpmath.workdps(50):
        assert abs(third(mpmath.mpf(1)) - mpmath.mpf(1) / 3) < mpmath.mpf(10) ** -49
    assert third(sympy.Integer(1)) == sympy.Rational(1, 3)
    assert third(Fraction(1)) == Fraction(1, 3)
    assert third(1) == Fraction(1, 3)
    assert third(1.0) == 1 / 3


def test_substitution_composes() -> None:
    y = variable("y")
    composed = (x * x + y).substitute(x=y + 1, y=2)
    assert composed(Fraction(3)) == 18
    assert composed.variables == ("y",)


def test_numpy_on_the_left_of_an_expression() -> None:
    assert (np.float64(2.0) * x)(3.0) == 6.0


def test_expressions_are_immutable() -> None:
    with pytest.raises(AttributeError):
        x.name = "y"
    with pytest.raises(TypeError):
        Expression()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_constants_are_finite(value: float) -> None:
    with pytest.raises(ApproximationError):
        constant(value)
    with pytest.raises(ApproximationError):
        x + value


def test_bad_input_is_one_line() -> None:
    with pytest.raises(ApproximationError, match="constant zero"):
        x / 0
    with pytest.raises(ApproximationError, match="'x'"):
        x()
    with pytest.raises(ApproximationError, match="variable name"):
        variable("a b")
    with pytest.raises(TypeError):
        x + "1"  # type: ignore[operator]


@given(st.floats(-100, 100, width=32), st.floats(-100, 100, width=32))
def test_rounding_error_bounds_float32_evaluation(c: float, p: float) -> None:
    for expression in [
        ((x + c) * x - 0.3) * (x - 7.1),
        (x * x + 1.7) / (x * x * 0.5 + 3.1),
        ((x - c) * (x - c)) * ((x - c) * (x - c)) + 1e-3,
    ]:
        point = np.array([p], dtype=np.float32)
        computed = Fraction(float(expression(point)[0]))
        truth = expression(Fraction(float(point[0])))
        bound = rounding_error(expression, point.astype(np.float64))[0]
        # The bound itself is computed in float64.
        assert abs(float(computed - truth)) <= bound * (1 + 1e-9)
