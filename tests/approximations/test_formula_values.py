"""Values of formulas: in float64 to a few ulps, in balls around the truth, at 0/0 the limit."""

import math
from collections.abc import Callable

import flint
import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from odp.approximations import ApproximationError, Function, Interval, get_function
from odp.approximations.functions.arb_elementary import NoEnclosure
from odp.approximations.functions.arb_formula import ArbFormula
from odp.approximations.functions.arb_functions import arb_evaluator
from odp.approximations.functions.formula import Formula
from odp.approximations.functions.parsing import parse

from ..hanging import must_end

ULP = 2.0**-52

ACCURATE = [
    ("x*exp(-x**2)", -6, 6),
    ("(exp(x) - 1)/x", -1, 1),
    ("log(1 + exp(-x))", -50, 50),
    ("exp(x) - exp(-x)", -5, 5),
    ("sqrt(1 + x) - sqrt(x)", 0.1, 1e6),
    ("1/(1 + exp(-3*x))", -200, 200),
    ("x*(1 + tanh(0.7*(x + 0.04*x**3)))/2", -6, 6),
    ("x*(1 + erf(x))/2", -6, 6),
    ("gamma(x)", 0.1, 10),
    ("loggamma(x)", 0.1, 10),
    ("x**0.3*exp(-x)", 0, 30),
    ("tan(x) + cot(x)", 0.1, 1.5),
    ("exp(x)/(2 + exp(x))", -900, 900),
    ("log(cosh(x))", -10, 10),
    ("sin(x)**2*cos(3*x)", -30, 30),
    ("x**3 - 2*x + 1", -2, 2),
    ("acosh(1 + x**2)", -2, 2),
    ("asinh(x)/x", -2, 2),
    ("atan(x)*acos(x)*atanh(x)", -0.9, 0.9),
    ("2**x - 3**x", -2, 2),
    ("max(x, x**2, 0.1) + abs(x)", -2, 2),
]


@pytest.mark.parametrize("text, lo, hi", ACCURATE, ids=[text for text, _, _ in ACCURATE])
def test_float64_values_are_within_a_few_ulps(text: str, lo: float, hi: float) -> None:
    function = get_function(text)
    random = np.random.default_rng(5)
    x = np.concatenate([random.uniform(lo, hi, 60), np.linspace(lo, hi, 21)])
    if lo < 0 < hi:
        x = np.concatenate([x, 10.0 ** random.uniform(-14, -1, 20), [0.0]])
    values = function.numpy(x)
    assert function.numpy(x.reshape(1, -1)).shape == (1, x.size)
    with mpmath.workdps(30):
        for point, value in zip(x.tolist(), values.tolist(), strict=True):
            exact = function.mpmath(point)
            assert abs(value - exact) <= 8 * ULP * abs(exact) + mpmath.mpf(10) ** -300, point


def test_values_outside_of_the_domain_are_nan() -> None:
    values = get_function("log(x)*exp(-x)").numpy([-1.0, 1.0, math.nan, math.inf])
    assert np.isnan(values[[0, 2]]).all()
    assert values[1] == 0.0


@pytest.mark.parametrize(
    "text, point, value",
    [
        ("tanh(x)/x", 0.0, 1.0),
        ("(1 - cos(x))/x**2", 0.0, 0.5),
        ("1/x - 1/sin(x)", 0.0, 0.0),
        ("1/(exp(x) - 1) - 1/x", 0.0, -0.5),
        ("log(x)/(x - 1)", 1.0, 1.0),
        ("(x**2 - 4)/(x - 2)", 2.0, 4.0),
        ("(sin(x) - x)/x**3", 0.0, -1 / 6),
    ],
)
def test_removable_singularities_have_their_limit(text: str, point: float, value: float) -> None:
    function = get_function(text)
    assert function.numpy([point])[0] == value
    assert abs(float(function.mpmath(point)) - value) <= 1e-15
    # And between 1e-30 and 1e-3 next to it no digits are lost.
    for step in (1e-30, 1e-12, 1e-6, 1e-3):
        near = point + step
        exact = function.mpmath(near)
        assert abs(function.numpy([near])[0] - exact) <= 8 * ULP * abs(exact)


@pytest.mark.parametrize(
    "text, zero",
    [("sin(x)/x", 0.0), ("(1 - cos(x))/x**2", 0.0), ("log(x)/(x - 1)", 1.0), ("x/sinh(x)", 0.0)],
)
def test_balls_over_a_removable_singularity_enclose_every_coefficient(
    text: str, zero: float
) -> None:
    formula = ArbFormula(parse(text))
    previous = flint.ctx.prec, flint.ctx.cap
    flint.ctx.prec, flint.ctx.cap = 128, 8
    try:
        for lo, hi in [(zero - 0.2, zero + 0.3), (zero - 0.01, zero + 0.3), (zero, zero + 0.1)]:
            box = flint.arb_series([flint.arb(lo).union(flint.arb(hi)), 1], 8)
            over = formula(box)
            assert over.prec == 8
            for x in np.linspace(lo, hi, 9).tolist():
                at = formula(flint.arb_series([flint.arb(x), 1], 8))
                for k in range(8):
                    assert over[k].is_finite()
                    assert over[k].overlaps(at[k])
            assert (flint.ctx.prec, flint.ctx.cap) == (128, 8)
    finally:
        flint.ctx.prec, flint.ctx.cap = previous


Evaluator = Callable[[mpmath.mpf], mpmath.mpf]


def _positive(a: mpmath.mpf) -> mpmath.mpf:
    if not a > 0:
        raise ValueError("mpmath would go on with complex numbers")
    return a


UNARY: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "exp": mpmath.exp,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "tanh": mpmath.tanh,
    "atan": mpmath.atan,
    "erf": mpmath.erf,
    "asinh": mpmath.asinh,
    "sqrt": lambda a: mpmath.sqrt(_positive(a)),
    "log": lambda a: mpmath.log(_positive(a)),
    "sigmoid": lambda a: 1 / (1 + mpmath.exp(-a)),
    "abs": abs,
}


def _combined(parts: st.SearchStrategy[tuple[str, Evaluator]]) -> st.SearchStrategy:
    def unary(name: str, part: tuple[str, Evaluator]) -> tuple[str, Evaluator]:
        return f"{name}({part[0]})", lambda x: UNARY[name](part[1](x))

    def binary(
        operator: str, a: tuple[str, Evaluator], b: tuple[str, Evaluator]
    ) -> tuple[str, Evaluator]:
        table: dict[str, Callable[[mpmath.mpf, mpmath.mpf], mpmath.mpf]] = {
            "+": lambda u, v: u + v,
            "-": lambda u, v: u - v,
            "*": lambda u, v: u * v,
            "/": lambda u, v: u / v,
        }
        return f"({a[0]} {operator} {b[0]})", lambda x: table[operator](a[1](x), b[1](x))

    def whole_power(part: tuple[str, Evaluator], n: int) -> tuple[str, Evaluator]:
        return f"({part[0]})**{n}", lambda x: part[1](x) ** n

    return st.one_of(
        st.builds(unary, st.sampled_from(sorted(UNARY)), parts),
        st.builds(binary, st.sampled_from("+-*/"), parts, parts),
        st.builds(whole_power, parts, st.integers(2, 4)),
    )


LEAVES = st.one_of(
    st.just(("x", lambda x: x)),
    st.integers(1, 9).map(lambda n: (str(n), lambda x: mpmath.mpf(n))),
    st.sampled_from(["0.25", "1.5", "2.75"]).map(lambda t: (t, lambda x: mpmath.mpf(t))),
    st.just(("pi", lambda x: +mpmath.pi)),
)
FORMULAS = st.recursive(LEAVES, _combined, max_leaves=7)


@settings(max_examples=150, deadline=None)
@given(formula=FORMULAS, point=st.floats(-3, 3))
@example(formula=("sin(x + pi)", lambda x: mpmath.sin(x + mpmath.pi)), point=0.0)
def test_any_formula_reads_back_and_has_the_values_it_says(
    formula: tuple[str, Evaluator], point: float
) -> None:
    text, evaluate = formula
    try:
        function = get_function(text)
    except ApproximationError as error:
        assert "\n" not in str(error)
        return
    if isinstance(function, Formula):
        assert str(parse(function.source)) == function.source == function.name
    # The straightforward evaluation may cancel: of sin(x + pi) at 0 it leaves what pi lacks, which
    # at 260 digits is below all that is compared here.
    with mpmath.workdps(260):
        try:
            exact = evaluate(mpmath.mpf(point))
        except (ZeroDivisionError, ValueError, OverflowError):
            return
        assume(isinstance(exact, mpmath.mpf) and mpmath.isfinite(exact))
        assume(1e-200 < abs(exact) < 1e200)
    with mpmath.workdps(60):
        ours = function.mpmath(point)
        assert abs(ours - exact) <= mpmath.mpf(10) ** -20 * abs(exact)
        if isinstance(function, Formula):
            value = function.numpy([point])[0]
            assert abs(value - ours) <= 16 * ULP * abs(ours)
    _balls_agree(function, point)


def _balls_agree(function: Function, point: float) -> None:
    evaluator = arb_evaluator(function)
    assert evaluator is not None
    previous = flint.ctx.prec, flint.ctx.cap
    flint.ctx.prec, flint.ctx.cap = 256, 2
    try:
        ball = evaluator(flint.arb_series([flint.arb(point), 1], 2))[0]
        if ball.is_finite():
            with mpmath.workdps(60):
                middle = mpmath.mpf(ball.mid().str(70, radius=False))
                radius = mpmath.mpf(ball.rad().str(20, radius=False))
                exact = function.mpmath(point)
                assert abs(middle - exact) <= 1.01 * radius + mpmath.mpf(10) ** -50 * abs(exact)
    except NoEnclosure:
        pass
    finally:
        flint.ctx.prec, flint.ctx.cap = previous


@settings(max_examples=60, deadline=None)
@given(formula=FORMULAS, lo=st.floats(-3, 3), width=st.floats(0.01, 3))
def test_a_domain_that_is_accepted_has_finite_values(
    formula: tuple[str, Evaluator], lo: float, width: float
) -> None:
    try:
        function = get_function(formula[0])
        function.check_domain(Interval(lo, lo + width))
    except ApproximationError as error:
        assert "\n" not in str(error)
        return
    points = np.linspace(lo, lo + width, 33)
    assert np.isfinite(function.numpy(points)).all()
    for symmetric in (function.parity, function.centre_value, function.slope):
        if symmetric is not None:
            mirrored = function.numpy(-points)
            both = np.isfinite(mirrored)
            values, mirrored, x = function.numpy(points)[both], mirrored[both], points[both]
            scale = 1e-12 * (1 + np.abs(values) + np.abs(mirrored))
            if function.parity == "even":
                assert (np.abs(values - mirrored) <= scale).all()
            elif function.centre is not None:
                assert (np.abs(values + mirrored - 2 * float(function.centre)) <= scale).all()
            elif function.slope is not None:
                assert (np.abs(values - mirrored - 2 * float(function.slope) * x) <= scale).all()


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="x1.0+-*/()eplogsin,^ yE_[]'", max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    with must_end():
        try:
            parse(text)
        except ApproximationError as error:
            assert "\n" not in str(error)
