"""Every function of the registry against mpmath, and what it declares about itself."""

import pickle
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from odp.approximations import (
    FUNCTIONS,
    ApproximationError,
    Function,
    Interval,
    get_function,
    power,
)
from odp.approximations.functions import FUNCTIONS as REGISTRY

from .cases import functions, narrow

ALL = functions()


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.name)
def test_numpy_agrees_with_mpmath_to_a_few_ulps(function: Function) -> None:
    lo, hi = narrow(function)
    points = np.linspace(lo, hi, 41)
    if function.domain.lo == -np.inf and function.name not in ("sin", "cos", "tan", "sinh", "cosh"):
        points = np.concatenate([points, [-300.0, -40.0, -6.0, 6.0, 40.0, 300.0]])
    with mpmath.workdps(40):
        reference = np.array([float(function.mpmath(float(p))) for p in points])
    assert np.abs(function.numpy(points) - reference).max() <= 1e-15 * max(
        1.0, np.abs(reference).max()
    )


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


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.name)
def test_functions_pickle_and_print(function: Function) -> None:
    assert pickle.loads(pickle.dumps(function)) == function
    assert function.latex
    assert function.sympy.free_symbols
    assert hash(function) == hash(get_function(function.name))


@pytest.mark.parametrize("function", ALL, ids=lambda f: f.name)
def test_singularities_are_refused(function: Function) -> None:
    for point in function.singularities:
        with pytest.raises(ApproximationError, match=r"pole or branch point|real only"):
            function.check_domain(Interval(point, point + 0.5))
        with pytest.raises(ApproximationError, match=r"pole or branch point|real only"):
            function.check_domain(Interval(point - 0.5, point))


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
