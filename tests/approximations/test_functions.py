"""Every function of the registry against mpmath, and what it declares about itself."""

import math
import pickle
from fractions import Fraction

import flint
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from odp.approximations import (
    FUNCTIONS,
    ApproximationError,
    Function,
    Interval,
    get_function,
    power,
)
from odp.approximations.functions.arb_elementary import NoEnclosure
from odp.approximations.functions.arb_functions import arb_evaluator
from odp.approximations.functions.registry import FUNCTIONS as REGISTRY

from .cases import POWERS, WIDE, functions, narrow

ALL = functions()
LINE = [f for f in ALL if f.domain.lo < 0 < f.domain.hi and 0.0 not in f.singularities]


def wide(function: Function) -> tuple[float, float]:
    """The widest promised domain that is not a test of periods, or the narrow one."""
    domains = [d for name, d, _ in WIDE if name == function.name and max(map(abs, d)) <= 100]
    return max(domains, key=lambda d: d[1] - d[0], default=narrow(function))


def points_of(function: Function) -> NDArray[np.float64]:
    """Ends, dense and random points, and both sides of 0 down to 1e-12."""
    lo, hi = wide(function)
    random = np.random.default_rng(3)
    parts = [np.linspace(lo, hi, 41), random.uniform(lo, hi, 20)]
    if lo < 0 < hi:
        small = 10.0 ** random.uniform(-12, -1, 8) * min(-lo, hi)
        parts += [small, -small, np.zeros(1)]
    if lo > 0:
        parts.append(np.exp(random.uniform(math.log(lo), math.log(hi), 20)))
    return np.unique(np.clip(np.concatenate(parts), lo, hi))


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.name)
def test_numpy_agrees_with_mpmath_to_a_few_ulps(function: Function) -> None:
    lo, hi = narrow(function)
    points = np.linspace(lo, hi, 41)
    if function.domain.lo == -np.inf and function.name not in (
        *("sin", "cos", "tan", "sinh", "cosh", "sinc"),
        *("expm1", "exp2"),
    ):
        points = np.concatenate([points, [-300.0, -40.0, -6.0, 6.0, 40.0, 300.0]])
    with mpmath.workdps(40):
        reference = np.array([float(function.mpmath(float(p))) for p in points])
    assert np.abs(function.numpy(points) - reference).max() <= 1e-15 * max(
        1.0, np.abs(reference).max()
    )


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.name)
def test_numpy_keeps_its_relative_accuracy(function: Function) -> None:
    points = points_of(function)
    values = function.numpy(points)
    with mpmath.workdps(30):
        for x, value in zip(points.tolist(), values.tolist(), strict=True):
            exact = function.mpmath(x)
            if abs(exact) < 1e-290:
                continue
            # What rounding the argument does is no fault of the implementation; a few such
            # roundings happen inside of it.
            step = mpmath.mpf(2) ** -40
            shifted = function.mpmath(x * (1 - step))
            condition = min(abs((exact - shifted) / (exact * step)), mpmath.mpf(10) ** 6)
            assert abs(value - exact) <= 2.0**-52 * (6 + 4 * condition) * abs(exact), x


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.name)
def test_balls_agree_with_mpmath(function: Function) -> None:
    evaluator = arb_evaluator(function)
    assert evaluator is not None
    previous = flint.ctx.prec, flint.ctx.cap
    flint.ctx.prec, flint.ctx.cap = 128, 3
    try:
        with mpmath.workdps(45):
            for x in points_of(function).tolist():
                try:
                    ball = evaluator(flint.arb_series([flint.arb(x), 1], 3))[0]
                except NoEnclosure:
                    # At the very end of a domain there may be a branch point.
                    assert x in (function.domain.lo, function.domain.hi), x
                    continue
                middle = mpmath.mpf(ball.mid().str(50, radius=False))
                radius = mpmath.mpf(ball.rad().str(20, radius=False))
                exact = function.mpmath(x)
                assert abs(middle - exact) <= radius * 1.01 + mpmath.mpf(10) ** -40 * abs(exact)
                assert radius <= mpmath.mpf(10) ** -25 * max(1, abs(exact)), x
    finally:
        flint.ctx.prec, flint.ctx.cap = previous


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_balls_enclose_all_values_and_slopes(data: st.DataObject) -> None:
    function = data.draw(st.sampled_from(ALL))
    lo, hi = narrow(function)
    a, b = sorted(data.draw(st.floats(lo, hi)) for _ in range(2))
    inside = min(max(a + data.draw(st.floats(0, 1)) * (b - a), a), b)
    evaluator = arb_evaluator(function)
    assert evaluator is not None
    previous = flint.ctx.prec, flint.ctx.cap
    flint.ctx.prec, flint.ctx.cap = 128, 4
    try:
        box = flint.arb_series([flint.arb(a).union(flint.arb(b)), 1], 4)
        try:
            over = evaluator(box)
        except NoEnclosure:
            return
        at = evaluator(flint.arb_series([flint.arb(inside), 1], 4))
        for k in range(4):
            assert over[k].overlaps(at[k])
    finally:
        flint.ctx.prec, flint.ctx.cap = previous


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.name)
def test_declared_symmetry_holds(function: Function) -> None:
    points = np.linspace(0.05, 0.95, 19)
    left, right = function.numpy(-points), function.numpy(points)
    if function.parity == "odd":
        assert np.allclose(left, -right, rtol=1e-14, atol=0)
        assert function.centre == 0
    elif function.parity == "even":
        assert np.allclose(left, right, rtol=1e-14, atol=0)
    elif function.centre is not None:
        assert np.allclose(left + right, 2 * float(function.centre), rtol=1e-14, atol=0)
    elif not function.positive_scale:
        assert not np.allclose(left, right)


@pytest.mark.parametrize("function", LINE, ids=lambda f: f.name)
def test_every_symmetry_is_declared_and_none_too_many(function: Function) -> None:
    with mpmath.workdps(40):
        points = [mpmath.mpf(x) for x in (0.11, 0.42, 0.83)]
        pairs = [(x, function.mpmath(x), function.mpmath(-x)) for x in points]

        def same(values: list[mpmath.mpf], value: mpmath.mpf, digits: int) -> bool:
            return all(abs(v - value) <= mpmath.mpf(10) ** -digits for v in values)

        sums = [right + left for _, right, left in pairs]
        slopes = [(right - left) / (2 * x) for x, right, left in pairs]
        assert (function.parity == "odd") == same(sums, mpmath.mpf(0), 35)
        assert (function.parity == "even") == same(slopes, mpmath.mpf(0), 35)
        if function.centre is None:
            assert not same(sums, sums[0], 35)
        else:
            # pi/2 is declared as the nearest float64.
            assert same(sums, 2 * mpmath.mpf(float(function.centre)), 15)
        if function.slope is not None:
            exact = mpmath.mpf(function.slope.numerator) / function.slope.denominator
            assert same(slopes, exact, 35)
        elif function.parity != "even":
            assert not same(slopes, slopes[0], 35)


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.name)
def test_functions_pickle_and_print(function: Function) -> None:
    assert pickle.loads(pickle.dumps(function)) == function
    assert function.latex
    assert function.sympy.free_symbols
    assert hash(function) == hash(get_function(function.name))
    assert get_function(function) is function


def test_content_keys_tell_functions_apart() -> None:
    keys = {f.content_key for f in ALL}
    assert len(keys) == len(ALL)
    assert FUNCTIONS["gelu"].content_key == get_function("gelu").content_key


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.name)
def test_singularities_are_refused(function: Function) -> None:
    for point in function.singularities:
        with pytest.raises(ApproximationError, match=r"pole or branch point|real only"):
            function.check_domain(Interval(point, point + 0.5))
        with pytest.raises(ApproximationError, match=r"pole or branch point|real only"):
            function.check_domain(Interval(point - 0.5, point))


def test_monotonicity_is_proven_or_not_claimed() -> None:
    rising = ["exp", "log", "sqrt", "sigmoid", "tanh", "erf", "softplus", "log_sigmoid", "cbrt"]
    falling = ["rsqrt", "reciprocal", "erfc", "acos", "pow(-0.25)"]
    for names, expected in ((rising, "increasing"), (falling, "decreasing")):
        for name in names:
            function = get_function(name)
            assert function.monotonicity(Interval(*narrow(function))) == expected
    for name in ("cos", "gelu", "silu", "mish", "cosh", "sinc"):
        function = get_function(name)
        assert function.monotonicity(Interval(-2, 2)) is None
    assert get_function("gelu").monotonicity(Interval(0, 6)) == "increasing"
    mine = Function("mine", "exp(x)", np.exp)
    assert mine.monotonicity(Interval(-1, 1)) is None


def test_names_are_looked_up_with_hints() -> None:
    assert get_function("pow(0.75)") is power(0.75)
    assert get_function("pow( -1/3 )").exponent == Fraction(-1, 3)
    assert power(0.1).exponent == Fraction(1, 10)
    assert power(Fraction(1, 3)).name == "pow(1/3)"
    assert REGISTRY is FUNCTIONS
    with pytest.raises(ApproximationError, match="did you mean sigmoid"):
        get_function("sigmod")
    with pytest.raises(ApproximationError, match="known: exp"):
        get_function("qqq")


@pytest.mark.parametrize("name", ["pow(a)", "pow(1/0)", "pow(1)", "pow(0)", "pow(inf)", "pow()"])
def test_bad_exponents_are_one_line(name: str) -> None:
    with pytest.raises(ApproximationError) as caught:
        get_function(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", POWERS)
def test_powers_written_out_are_the_registered_ones(name: str) -> None:
    exponent = get_function(name).exponent
    assert exponent is not None
    written = get_function(f"t**({exponent})")
    if exponent.denominator > 1:
        assert written == get_function(name)
    else:
        # Whole powers are defined on the whole line, pow(3) on half of it.
        assert written.domain.lo == -math.inf
