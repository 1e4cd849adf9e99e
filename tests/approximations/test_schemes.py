"""Every scheme on every function it applies to, and every promised wide domain."""

import math
from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch

from odp.approximations import SCHEMES, Approximant, Function, Interval, approximate, get_function
from odp.approximations.error_analysis import rounding_error
from odp.approximations.measure import measure
from odp.approximations.schemes.halley import halley_correction
from odp.approximations.schemes.pade import pade_coefficients

from .cases import WIDE, functions, narrow

PAIRS = [
    (function, name)
    for function in functions()
    for name, scheme in SCHEMES.items()
    if scheme.applies(function, Interval(*narrow(function)))
]


@pytest.mark.parametrize("function, scheme", PAIRS, ids=lambda v: getattr(v, "name", v))
def test_every_scheme_reaches_the_error_on_a_narrow_domain(
    function: Function, scheme: str, check: Callable[[Approximant], None]
) -> None:
    approximant = approximate(function, narrow(function), error=1e-3, scheme=scheme)
    assert approximant.scheme == scheme
    assert approximant.error <= 1e-3
    assert approximant.error_kind == "certified"
    measured = measure(approximant.expression, function, approximant.domain)
    # 2**-48: float64 measures no smaller errors.
    assert approximant.absolute_error <= 1.02 * measured.absolute + 2.0**-48
    check(approximant)


@pytest.mark.parametrize(
    "name, domain, error", WIDE, ids=[f"{name}{list(domain)}" for name, domain, _ in WIDE]
)
def test_promised_domains(
    name: str, domain: tuple[float, float], error: float, check: Callable[[Approximant], None]
) -> None:
    approximant = approximate(name, domain, error=error)
    assert approximant.error <= error
    check(approximant)


@pytest.mark.parametrize(
    "name, scheme",
    [
        ("exp", "chebyshev"),
        ("exp", "pade"),
        ("erf", "chebyshev_pade"),
        ("rsqrt", "newton"),
        ("sin", "angle_doubling"),
        ("log", "halley"),
        ("tanh", "pade"),
        ("pow(0.75)", "composition"),
    ],
)
def test_emitters_agree(name: str, scheme: str) -> None:
    function = get_function(name)
    approximant = approximate(function, narrow(function), error=1e-4, scheme=scheme)
    points = np.linspace(*narrow(function), 9)
    value = approximant(points)
    bound = rounding_error(approximant.expression, points, 2.0**-53)
    on_torch = approximant(torch.from_numpy(points)).numpy()
    with mpmath.workdps(40):
        on_mpmath = np.array([float(approximant(mpmath.mpf(p))) for p in points.tolist()])
    exact = np.array([float(approximant(Fraction(p))) for p in points.tolist()])
    scope: dict[str, Callable[[float], float]] = {}
    exec(approximant.expression.to_python("f"), scope)
    source = np.array([scope["f"](p) for p in points.tolist()])
    # Exact arithmetic, the same order of operations, and nothing but float64 rounding between.
    assert (np.abs(value - exact) <= bound * (1 + 1e-9)).all()
    assert (np.abs(on_mpmath - exact) <= 1e-15 * np.abs(exact)).all()
    assert (np.abs(on_torch - exact) <= bound * (1 + 1e-9)).all()
    assert (source == value).all()


def test_halleys_correction_is_derived_and_right() -> None:
    assert halley_correction() == (2, 1, 1)


def test_pade_coefficients_of_exp_are_the_classical_ones() -> None:
    p, q = pade_coefficients("exp", 2, 2)  # type: ignore[misc]
    assert p == (1, Fraction(1, 2), Fraction(1, 12))
    assert q == (1, Fraction(-1, 2), Fraction(1, 12))


@pytest.mark.parametrize("name, domain", [("sigmoid", (-30, 30)), ("tanh", (-20, 20))])
def test_gates_have_one_division_and_stay_in_range(name: str, domain: tuple[float, float]) -> None:
    approximant = approximate(name, domain, scheme="pade")
    assert approximant.counts.divisions == 1
    x = np.linspace(*domain, 1001, dtype=np.float32)
    value = approximant(x)
    assert value.max() <= 1.0
    assert value.min() >= (0.0 if name == "sigmoid" else -1.0)


@pytest.mark.parametrize("name", ["sin", "erf", "tanh", "atan", "asinh", "sinh", "tan"])
def test_odd_functions_get_odd_expressions(name: str) -> None:
    approximant = approximate(name, (-1, 1), error=1e-4)
    x = np.linspace(0, 1, 101, dtype=np.float32)
    assert (approximant(-x) == -approximant(x)).all()


def test_scaled_newton_needs_fewer_steps() -> None:
    plain = approximate("rsqrt", (1e-4, 1e4), scheme="newton", scaled=False)
    scaled = approximate("rsqrt", (1e-4, 1e4), scheme="newton", scaled=True)
    assert scaled.parameters["steps"] < plain.parameters["steps"]  # type: ignore[operator]


def test_newton_without_division() -> None:
    approximant = approximate("reciprocal", (1, 16), scheme="newton", error=1e-4)
    assert approximant.counts.divisions == 0
    assert approximant.error <= 1e-4


def test_the_seed_formula_of_puma_is_a_pade_power() -> None:
    # (1 + x/2^5)^(2^5): facts measured 8.5e-3 on [-10, 0].
    approximant = approximate(
        "exp",
        (-10, 0),
        error=1.0,
        relative=False,
        scheme="pade",
        numerator=1,
        denominator=0,
        squarings=5,
    )
    assert approximant.absolute_error == pytest.approx(8.55e-3, rel=1e-2)


def test_exp_is_beyond_a_power_of_a_polynomial() -> None:
    # A minimax polynomial squared k times has 4.9e-5 for 6 multiplications on [-10, 0] (facts,
    # section 3); free constants between the squarings save one of them.
    approximant = approximate("exp", (-10, 0), error=4.9e-5)
    assert approximant.counts.multiplications == 5
    assert approximant.counts.divisions == 0


@pytest.mark.parametrize(
    ("name", "domain", "target", "cost", "error"),
    [
        # With the symmetry alone: 1.7e-3, 6.6e-3, nothing at all, 4e-3.
        ("silu", (0, 8), "float32", 9, 2.6e-6),
        ("softplus", (0, 5), "float32", 8, 9.4e-7),
        ("cos", (0, 1), "float32", 1, 5.4e-2),
        ("softplus", (-1, 5), "fhe", 10.6, 1e-3),
    ],
)
def test_a_symmetry_is_no_burden_on_a_lopsided_domain(
    name: str, domain: tuple[float, float], target: str, cost: float, error: float
) -> None:
    found = approximate(name, domain, operations=cost, target=target)
    assert found.certified_error is not None
    assert found.certified_error <= error
    assert found.parameters["parity"] == "none"
    # Its parameters name it.
    again = approximate(
        name, domain, error=math.inf, scheme=found.scheme, target=target, **found.parameters
    )
    assert again.description == found.description
    # A more thorough fit, and other luck in rounding its constants.
    assert again.error == pytest.approx(found.error, rel=0.1)
