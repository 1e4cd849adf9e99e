"""Remez's exchange: published errors, equioscillation, degenerate types, the search."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.approximations import (
    TARGETS,
    Approximant,
    ApproximationError,
    Function,
    Interval,
    Target,
    approximate,
    get_function,
)
from odp.approximations.fits.remez import Problem, alternation, lower_bound, minimax
from odp.approximations.schemes import Request
from odp.approximations.schemes.rational_function import RationalProblem

from .cases import functions, narrow


def polynomial_error(
    f: Callable[[np.ndarray], np.ndarray], lo: float, hi: float, degree: int, *, relative: bool
) -> float:
    t = -np.cos(np.linspace(0, math.pi, 4001))
    y = f((lo + hi) / 2 + (hi - lo) / 2 * t)
    basis = np.polynomial.chebyshev.chebvander(t, degree)
    weight = 1 / np.abs(y) if relative else np.ones_like(y)
    fit = minimax(Problem(basis, np.ones((t.size, 1)), y, weight))
    assert fit is not None
    # A level fit: nothing of this degree is better.
    assert fit.bound <= fit.error <= 1.001 * fit.bound
    return fit.error


def test_exp_of_degree_5_is_sollyas() -> None:
    # Sollya's documentation: remez(exp, 5, [-1;1]).
    assert polynomial_error(np.exp, -1, 1, 5, relative=False) == pytest.approx(4.52055e-5, rel=1e-5)


@pytest.mark.parametrize(
    "f, domain, relative, errors",
    [
        (np.exp, (-10, 0), False, {1: 3.3e-1, 5: 1.2e-2, 9: 6.5e-5, 15: 2.2e-9}),
        (np.exp, (-10, 0), True, {5: 3.0e-1, 9: 3.1e-3, 15: 1.6e-7}),
        (np.sqrt, (0.01, 100), True, {1: 6.7e-1, 8: 2.6e-1, 15: 1.5e-1}),
        (np.sqrt, (1, 4), True, {3: 1.1e-3, 10: 1.0e-7, 15: 2.4e-10}),
        (np.log, (1, 2), False, {4: 6.1e-5, 10: 7.1e-10}),
        (np.reciprocal, (1, 256), True, {1: 9.7e-1, 15: 2.7e-1}),
    ],
)
def test_polynomials_reach_the_tables(
    f: Callable[[np.ndarray], np.ndarray],
    domain: tuple[float, float],
    relative: bool,
    errors: dict[int, float],
) -> None:
    for degree, expected in errors.items():
        # The tables (shared facts, section 8) give two digits.
        assert polynomial_error(f, *domain, degree, relative=relative) == pytest.approx(
            expected, rel=0.05
        )


def gelu_even_part(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return np.asarray(0.5 * x * erf(x / math.sqrt(2)))


GELU = Function("gelu_even_part", "x*erf(x/sqrt(2))/2", gelu_even_part, parity="even")


@pytest.mark.parametrize(
    "function, domain, relative, types",
    [
        ("exp", (-10, 0), False, {(0, 1): 9.4e-2, (2, 2): 2.8e-3, (1, 4): 3.9e-4, (5, 1): 5.7e-4}),
        ("rsqrt", (0.01, 100), True, {(1, 1): 3.3e-1, (3, 3): 1.3e-2, (5, 4): 1.3e-3}),
        ("rsqrt", (2**-10, 2**6), True, {(2, 2): 1.1e-1, (4, 4): 6.6e-3}),
        ("rsqrt", (1, 4), True, {(2, 2): 1.9e-5, (3, 2): 2.2e-6}),
        ("sqrt", (0.01, 100), True, {(3, 3): 1.3e-2, (5, 4): 1.1e-3}),
        ("log", (0.01, 100), False, {(2, 2): 1.9e-1, (5, 5): 1.4e-3}),
        ("log", (1, 2), False, {(2, 1): 5.0e-5, (2, 2): 1.7e-6}),
        # In x^2: (1, 2) is (3, 4) in x.
        ("sigmoid", (-8, 8), False, {(1, 1): 2.6e-3, (1, 2): 1.5e-4, (2, 2): 5.5e-6}),
        ("tanh", (-8, 8), False, {(1, 2): 4.0e-3, (3, 3): 2.4e-6}),
        ("sin", (-math.pi, math.pi), False, {(1, 1): 9.3e-3, (2, 2): 6.6e-6}),
        ("cos", (-math.pi, math.pi), False, {(1, 1): 6.1e-2, (2, 2): 7.1e-5}),
        (GELU, (-6, 6), False, {(1, 1): 9.1e-2, (2, 2): 3.1e-3, (3, 3): 4.7e-4, (4, 3): 5.0e-5}),
    ],
    ids=lambda v: str(v) if isinstance(v, (str, tuple)) else "",
)
def test_rational_types_reach_the_tables(
    function: str | Function,
    domain: tuple[float, float],
    relative: bool,
    types: dict[tuple[int, int], float],
) -> None:
    for (m, n), expected in types.items():
        approximant = approximate(
            function,
            domain,
            error=math.inf,
            relative=relative,
            scheme="minimax",
            numerator=m,
            denominator=n,
        )
        # Two digits in the tables, and coefficients that are rounded to float32 here.
        assert approximant.error <= 1.06 * expected


@pytest.mark.parametrize("m, n", [(2, 2), (1, 2), (2, 3), (3, 2), (0, 3), (9, 1), (1, 9), (10, 10)])
def test_degenerate_and_high_types_are_answered_honestly(
    m: int, n: int, check: Callable[[Approximant], None]
) -> None:
    # erf(x/sqrt 2) on [-6, 6] has degenerate cells (facts, section 8, starred); (10, 10) is beyond
    # what float64 resolves.
    for name, domain in [("normal_cdf", (-6, 6)), ("exp", (-1, 0)), ("rsqrt", (1e-3, 1e3))]:
        try:
            approximant = approximate(
                name, domain, error=math.inf, scheme="minimax", numerator=m, denominator=n
            )
        except ApproximationError as error:
            assert "\n" not in str(error)
            continue
        check(approximant)


def test_a_degenerate_type_is_no_worse_than_a_smaller_one() -> None:
    def error(m: int, n: int) -> float:
        return approximate(
            "normal_cdf", (-6, 6), error=math.inf, scheme="minimax", numerator=m, denominator=n
        ).error

    assert error(2, 2) <= 1.001 * min(error(1, 1), error(1, 2), error(2, 1))


@pytest.mark.parametrize("function", functions(), ids=lambda f: f.name)
def test_minimax_is_never_dearer_than_what_it_starts_from(function: Function) -> None:
    for error in (1e-2, 1e-4):
        cheapest = approximate(function, narrow(function), error=error, scheme="minimax")
        for scheme in ("chebyshev_pade", "chebyshev"):
            if scheme == "chebyshev" and function.name == "exp":
                continue
            other = approximate(function, narrow(function), error=error, scheme=scheme)
            assert cheapest.target.cost(cheapest.counts) <= other.target.cost(other.counts)


def test_the_error_alternates_at_one_height() -> None:
    request = Request(GELU, Interval(-6, 6), 1e-3, relative=False)
    system = RationalProblem(request).system(3, 3, math.inf, 900)
    assert system is not None
    start = np.zeros(4), np.eye(4)[0]
    start[0][:2] = 1.0
    fit = minimax(system, start)
    assert fit is not None
    error = system.error(fit.p, fit.q)
    peaks = np.abs(error[alternation(error, system.reference_size)])
    if fit.bound > 0:
        assert peaks.size == system.reference_size
        assert peaks.min() >= 0.999 * peaks.max()
    assert fit.error == pytest.approx(np.abs(error).max())


@settings(max_examples=80, deadline=None)
@given(
    rate=st.floats(-3, 3), angle=st.floats(0.5, 6), share=st.floats(-2, 2), degree=st.integers(0, 6)
)
def test_no_polynomial_beats_the_fit(rate: float, angle: float, share: float, degree: int) -> None:
    t = np.linspace(-1, 1, 400)
    basis = np.polynomial.chebyshev.chebvander(t, degree)
    target = np.exp(rate * t) + share * np.sin(angle * t)
    problem = Problem(basis, np.ones((t.size, 1)), target, np.ones_like(t))
    fit = minimax(problem)
    assert fit is not None
    least_squares = np.linalg.lstsq(basis, target, rcond=None)[0]
    other = float(np.abs(basis @ least_squares - target).max())
    assert fit.bound <= fit.error <= other * (1 + 1e-9) + 1e-12
    assert lower_bound(problem, least_squares, np.ones(1)) <= fit.error * (1 + 1e-9) + 1e-12


@settings(max_examples=80, deadline=None)
@given(values=st.lists(st.floats(-1, 1), min_size=12, max_size=40), degree=st.integers(0, 6))
def test_the_lower_bound_holds_for_any_values(values: list[float], degree: int) -> None:
    t = np.linspace(-1, 1, len(values))
    basis = np.polynomial.chebyshev.chebvander(t, degree)
    target = np.array(values)
    fit = minimax(Problem(basis, np.ones((t.size, 1)), target, np.ones_like(t)))
    assert fit is not None
    least_squares = np.linalg.lstsq(basis, target, rcond=None)[0]
    assert fit.bound <= float(np.abs(basis @ least_squares - target).max()) * (1 + 1e-9) + 1e-12


def test_a_fixed_degree_and_form_are_taken() -> None:
    a = approximate("sin", (-1, 1), error=1.0, scheme="minimax", degree=5, form="horner")
    assert dict(a.parameters) == {"degree": 5, "form": "horner"}
    assert a.absolute_error < 1e-5


@pytest.mark.parametrize(
    "domain, degree, squarings, expected",
    [
        ((-10, 0), 3, 2, 4.355e-4),
        ((-10, 0), 3, 3, 4.930e-5),
        ((-16, 0), 3, 3, 4.929e-5),
        ((-10, 0), 3, 4, 5.576e-6),
        ((-32, 0), 3, 4, 5.579e-6),
        ((-10, 0), 4, 3, 3.053e-6),
        ((-10, 0), 2, 2, 9.4e-3),
    ],
)
def test_squared_polynomials_reach_the_tables(
    domain: tuple[float, float], degree: int, squarings: int, expected: float
) -> None:
    a = approximate(
        "exp",
        domain,
        error=math.inf,
        relative=False,
        scheme="squaring",
        degree=degree,
        squarings=squarings,
    )
    assert a.counts.multiplications == degree + squarings
    # K squarings enlarge the rounding of the coefficients to float32 by 2^K.
    assert a.absolute_error <= 1.02 * expected + 2.0 ** (squarings - 25)
    assert a.error_kind == "certified"


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.name)
def test_the_quick_bound_of_a_cost_is_one(target: Target) -> None:
    for name, domain in [("exp", (-1.0, 0.0)), ("sigmoid", (-8.0, 8.0)), ("gelu", (-6.0, 6.0))]:
        request = Request(get_function(name), Interval(*domain), 1e-3, False, target=target)
        problem = RationalProblem(request)
        for m in range(7):
            for n in range(5):
                assert problem.least_cost(m, n) <= problem.cost(m, n) + 1e-9
