"""Taylor models: the radius holds at every point, against exact rational arithmetic."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from odp.approximations import Expression, constant, variable
from odp.approximations.proofs.taylor_model import TERMS, ModelAlgebra, TaylorModels

x = variable("x")
POSITIONS = [Fraction(k, 8) for k in range(-8, 9)]

numbers = st.one_of(
    st.integers(-8, 8).map(Fraction),
    st.fractions(-4, 4, max_denominator=9),
    st.floats(-1e3, 1e3, allow_subnormal=False).map(Fraction),
)


def expressions() -> st.SearchStrategy[Expression]:
    """Anything made of + - * / and x; shared nodes by way of equal constants and the variable."""

    def combined(children: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        def build(pair: tuple[Expression, Expression], op: str) -> Expression:
            a, b = pair
            if op == "/" and b.op == "constant" and b.value == 0:
                return a
            return {"+": a + b, "-": a - b, "*": a * b}[op] if op != "/" else a / b

        return st.builds(build, st.tuples(children, children), st.sampled_from("+-*/"))

    return st.recursive(st.one_of(st.just(x), numbers.map(constant)), combined, max_leaves=12)


def models(expression: Expression, middle: list[float], radius: list[float]) -> TaylorModels:
    with np.errstate(all="ignore"):
        variable_models = TaylorModels.variable(np.array(middle), np.array(radius))
        return expression.emit(ModelAlgebra(), x=variable_models)


def exact(expression: Expression, point: Fraction) -> Fraction | None:
    """The value; None where a divisor is zero."""
    try:
        value = expression(point) if expression.variables else expression.value
    except ZeroDivisionError:
        return None
    return Fraction(value)


def polynomial(model: TaylorModels, box: int, t: Fraction) -> Fraction:
    column = box if model.coefficients.shape[1] > 1 else 0
    total = Fraction(0)
    for k, c in enumerate(model.coefficients[:, column].tolist()):
        total += Fraction(c) * t**k
    return total


def radius_of(model: TaylorModels, box: int) -> float:
    radius = np.broadcast_to(model.radius, (max(box + 1, model.radius.size),))
    return float(radius[box])


@settings(max_examples=300, deadline=None)
@given(
    expression=expressions(),
    middle=st.floats(-8, 8, allow_subnormal=False),
    radius=st.floats(1e-6, 2, allow_subnormal=False),
)
@example(expression=1 / (x * x - 2), middle=1.0, radius=0.4)
@example(expression=(x + constant(2.0**60)) - constant(2.0**60), middle=0.1, radius=0.01)
@example(expression=constant(Fraction(1, 3)) * x / (1 + x * x), middle=0.0, radius=0.9)
def test_no_value_is_further_from_the_polynomial_than_the_radius(
    expression: Expression, middle: float, radius: float
) -> None:
    model = models(expression, [middle], [radius])
    bound = radius_of(model, 0)
    if not math.isfinite(bound):
        return
    for t in POSITIONS:
        value = exact(expression, Fraction(middle) + Fraction(radius) * t)
        # A finite radius is a proof that no divisor vanishes.
        assert value is not None
        assert abs(value - polynomial(model, 0, t)) <= Fraction(bound)


@settings(max_examples=60, deadline=None)
@given(expression=expressions(), middle=st.floats(-4, 4), radius=st.floats(1e-3, 1))
def test_values_and_slack_bound_the_range(
    expression: Expression, middle: float, radius: float
) -> None:
    model = models(expression, [middle], [radius])
    with np.errstate(all="ignore"):
        values, slack = model.values()[:, 0], float(np.max(model.slack()))
    if not math.isfinite(slack):
        return
    for k in range(len(values) - 1):
        lo, hi = sorted((float(values[k]), float(values[k + 1])))
        for share in (Fraction(0), Fraction(3, 7), Fraction(1, 2), Fraction(1)):
            t = Fraction(-1) + (k + share) * Fraction(1, 16)
            value = exact(expression, Fraction(middle) + Fraction(radius) * t)
            assert value is not None
            assert Fraction(lo) - Fraction(slack) <= value <= Fraction(hi) + Fraction(slack)


def test_many_boxes_are_as_good_as_each_alone() -> None:
    expression = (1 + x * (x - Fraction(1, 3))) / (2 + x * x) + x / 7
    middle, radius = [-1.5, 0.25, 3.0], [0.5, 0.25, 1.0]
    together = models(expression, middle, radius)
    for box, (m, r) in enumerate(zip(middle, radius, strict=True)):
        alone = models(expression, [m], [r])
        assert np.array_equal(together.coefficients[:, box], alone.coefficients[:, 0])
        assert radius_of(together, box) == radius_of(alone, 0)


def test_a_divisor_with_a_zero_has_no_finite_radius() -> None:
    for divisor, middle, radius in [
        (x, 0.5, 0.5),  # at the end of the box
        (x - 1, 0.5, 1.0),
        ((x - 1) * (x - 1), 0.9, 0.2),  # double: the values never change their sign
        (x * x - 2, 1.4, 0.1),  # between two floats
        (x - Fraction(1, 3), 0.3, 0.1),
        (x - x, 0.5, 0.1),
    ]:
        assert radius_of(models(1 / divisor, [middle], [radius]), 0) == math.inf


def test_narrow_boxes_have_small_radii() -> None:
    expression = (1 + x / 3) ** 8 / (1 + x * x)
    model = models(expression, [0.7], [0.05])
    assert model.coefficients.shape == (TERMS, 1)
    assert radius_of(model, 0) < 1e-12 * float(model.norm[0])


def test_constants_beyond_float64_prove_nothing() -> None:
    model = models(constant(Fraction(10) ** 400) * x, [1.0], [0.5])
    assert not math.isfinite(radius_of(model, 0))
