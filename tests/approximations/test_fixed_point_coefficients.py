"""Constants rounded together, by lattice reduction and integer programs, and one by one."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Chebyshev, Polynomial

from odp.approximations import Expression, Interval, approximate, get_function, variable
from odp.approximations.fits.remez import Problem, minimax
from odp.approximations.fixed_point import lower
from odp.approximations.fixed_point.coefficient_search import round_jointly
from odp.approximations.fixed_point.digits import extra_digits
from odp.approximations.fixed_point.integer_minimax import integer_minimax
from odp.approximations.forms.polynomials import horner
from odp.approximations.proofs.certify import certify

X = variable("x")


def real_minimax(name: str, domain: tuple[float, float], degree: int, odd: bool) -> Expression:
    """The real minimax polynomial in powers of x; sigmoid less 1/2 where only odd ones count."""
    lo, hi = domain
    shift = 0.5 if name == "sigmoid" else 0.0
    s = -np.cos(np.linspace(0, math.pi, 1500))
    x = (lo + hi) / 2 + (hi - lo) / 2 * s
    values = get_function(name).numpy(x) - shift
    if odd:
        half = (degree - 1) // 2
        basis = x[:, None] * np.polynomial.chebyshev.chebvander(2 * x * x / hi**2 - 1, half)
    else:
        basis = np.polynomial.chebyshev.chebvander(s, degree)
    fit = minimax(Problem(basis, np.ones((x.size, 1)), values, np.ones_like(x)))
    assert fit is not None
    series = Chebyshev(fit.p / fit.q[0], domain=[0, hi**2] if odd else [lo, hi])
    coefficients = series.convert(kind=Polynomial).coef.tolist()
    if odd:
        inner = X * horner(coefficients, X * X)
        return inner + shift if shift else inner
    return horner(coefficients, X)


# function, domain, degree, only odd powers, scale, and the page's columns "naive" and "MILP".
TABLE = [
    ("exp", (-1, 0), 3, False, 10, 5.8e-4, 3.7e-4),
    ("exp", (-1, 0), 4, False, 7, 8.5e-3, 6.9e-4),
    ("exp", (-1, 0), 5, False, 16, 1.0e-5, 5.3e-6),
    ("exp", (-1.25, 0), 4, False, 10, 1.3e-3, 2.9e-4),
    ("exp", (-1.25, 0), 5, False, 16, 3.8e-5, 5.3e-6),
    ("exp", (-10, 0), 4, False, 7, 9.0, 0.155),
    ("exp", (-10, 0), 6, False, 13, 22.7, 1.6e-2),
    ("exp", (-10, 0), 6, False, 16, 6.5, 6.4e-3),
    ("sin", (0, math.pi), 7, True, 16, 2.1e-2, 5.4e-4),
    ("sigmoid", (0, 8), 9, True, 16, 8.2, 4.4e-2),
    ("rsqrt", (1, 4), 4, False, 10, 9.7e-2, 2.1e-3),
    ("rsqrt", (1, 4), 4, False, 16, 2.3e-3, 1.6e-3),
]


@pytest.mark.parametrize(("name", "domain", "degree", "odd", "scale", "naive", "best"), TABLE)
def test_the_table_of_coefficient_rounding(
    name: str,
    domain: tuple[float, float],
    degree: int,
    odd: bool,
    scale: int,
    naive: float,
    best: float,
) -> None:
    polynomial = real_minimax(name, domain, degree, odd)
    function, interval = get_function(name), Interval(*domain)
    rounded = round_jointly(polynomial, function, interval, scale)
    assert rounded.nearest_error == pytest.approx(naive, rel=0.03)
    for node in rounded.expression.nodes():
        assert (node.value * 2**scale).denominator == 1
    proof = certify(rounded.expression, function, interval, absolute=rounded.error)
    assert proof is not None
    assert proof.absolute <= 1.05 * best


def test_high_degrees_take_the_lattice() -> None:
    found = approximate("exp", (-10, 0), scheme="minimax", degree=10, error=1e-3, target="float64")
    interval = Interval(-10, 0)
    rounded = round_jointly(found.expression, found.function, interval, 16)
    assert rounded.method == "lattice"
    assert rounded.error < 1e-2
    assert rounded.nearest_error > 100
    # With digits of their own the coefficients lose nothing that counts.
    extra = extra_digits(found.expression, interval, relative=False)
    adapted = round_jointly(found.expression, found.function, interval, 16, extra=extra)
    assert adapted.error < 1.2 * found.error


OTHER_FORMS = [
    ("exp", (-10, 0), "squaring", {"degree": 4, "squarings": 3}, 16, 4.0),
    ("exp", (-10, 0), "minimax", {"numerator": 3, "denominator": 3}, 7, 10.0),
    ("sigmoid", (-8, 8), "minimax", {"numerator": 2, "denominator": 3}, 7, 20.0),
]


@pytest.mark.parametrize(("name", "domain", "scheme", "parameters", "scale", "gain"), OTHER_FORMS)
def test_quotients_and_powers_gain_too(
    name: str,
    domain: tuple[float, float],
    scheme: str,
    parameters: dict[str, int],
    scale: int,
    gain: float,
) -> None:
    found = approximate(name, domain, scheme=scheme, error=0.5, target="float64", **parameters)
    rounded = round_jointly(found.expression, found.function, Interval(*domain), scale)
    assert rounded.error * gain <= rounded.nearest_error


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("digits", [4, 9, 14])
def test_never_worse_than_rounding_one_by_one(digits: int, relative: bool) -> None:
    for name, domain in (("rsqrt", (0.25, 4)), ("exp", (-4, 0)), ("log", (1.5, 6))):
        found = approximate(name, domain, error=1e-3, relative=relative, target="float64")
        rounded = round_jointly(
            found.expression, found.function, Interval(*domain), digits, relative=relative
        )
        assert rounded.error <= rounded.nearest_error


def test_a_program_with_few_guard_bits_gains_from_the_search() -> None:
    found = approximate("exp", (-10, 0), scheme="minimax", degree=6, error=0.5, target="float64")
    arguments = (found.expression, found.function, Interval(-10, 0))
    nearest, searched = (
        lower(*arguments, scale=13, guard_bits=0, error=1.0, search=flag) for flag in (False, True)
    )
    assert searched.error < nearest.error
    assert searched.error < 1.1 * (found.error + 2**-14) + 7 * 2**-14


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_small_systems_are_solved_to_optimality(unknowns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(25, unknowns))
    real = random.normal(size=unknowns) * 3
    target = matrix @ real + random.normal(size=25) * 0.1
    found = integer_minimax(matrix, target, real)
    nearest = np.round(real)
    assert found.error == pytest.approx(
        np.abs(matrix @ np.array(found.integers) - target).max(), rel=1e-9
    )
    candidates = [nearest + np.array(step) for step in product(range(-4, 5), repeat=unknowns)]
    best = min(float(np.abs(matrix @ n - target).max()) for n in candidates)
    # Branch and bound stops within 0.2 % of the optimum, at the points and over all of them.
    assert found.error <= best * 1.005
