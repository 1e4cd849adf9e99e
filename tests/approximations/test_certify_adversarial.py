"""Proofs under attack: near poles, zeros that floats do not show, tolerances, symmetries."""

import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from odp.approximations import Expression, Function, Interval, constant, get_function, variable
from odp.approximations.minimax_approximant import minimax
from odp.approximations.proofs.certify import certify, supremum
from odp.approximations.proofs.error_proof import WORK
from odp.approximations.proofs.expression_symmetry import expression_symmetry
from odp.approximations.tolerance import Histogram, Tolerance

x = variable("x")

ENTIRE = ("exp", "sin", "cos", "sigmoid", "tanh", "erf", "atan", "mish_gate")


def horner(coefficients: list[Fraction]) -> Expression:
    expression: Expression = constant(0)
    for c in coefficients:
        expression = expression * x + c
    return expression


def exact_error(expression: Expression, function: Function, point: float) -> mpmath.mpf:
    """The absolute error in 60 digits: the expression by fractions, the function by mpmath."""
    value = expression(Fraction(point)) if expression.variables else expression.value
    with mpmath.workdps(60):
        quotient = mpmath.mpf(value.numerator) / value.denominator
        return abs(quotient - function.mpmath(point))


def attacked(domain: Interval, suspects: list[float], count: int = 25) -> list[float]:
    """Ends and their neighbours, even points, and the surroundings of suspicious points."""
    points = np.linspace(domain.lo, domain.hi, count).tolist()
    for suspect in [*suspects, domain.lo, domain.hi]:
        points += [suspect, math.nextafter(suspect, -math.inf), math.nextafter(suspect, math.inf)]
        points += [suspect + sign * 10.0**-k for k in (1, 3, 6) for sign in (-1, 1)]
    return [p for p in points if domain.lo <= p <= domain.hi]


small = st.fractions(-3, 3, max_denominator=64)


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(ENTIRE),
    numerator=st.lists(small, min_size=1, max_size=5),
    denominator=st.lists(small, min_size=2, max_size=4),
    lo=st.floats(-4, 3.5),
    width=st.floats(1e-3, 3),
    scale=st.sampled_from([1, 10**-3, 10**-9]),
)
def test_no_bound_is_below_the_error_anywhere(
    name: str,
    numerator: list[Fraction],
    denominator: list[Fraction],
    lo: float,
    width: float,
    scale: Fraction,
) -> None:
    below = horner(denominator)
    # 0/x is folded to 0, which has no divisor.
    assume(any(denominator) and any(numerator))
    expression = Fraction(scale) * horner(numerator) / below
    function, domain = get_function(name), Interval(lo, lo + width)
    # Less work than usual: many of these have poles, and giving up is an answer too.
    proof = certify(expression, function, domain, absolute=1e-9, relative=1e-9, work=WORK // 20)
    if proof is None:
        return
    roots = np.roots([float(c) for c in denominator])
    suspects = [float(r.real) for r in roots if abs(r.imag) < 1e-3]
    for point in attacked(domain, suspects):
        if below.variables:
            assert below(Fraction(point)) != 0
        error = exact_error(expression, function, point)
        assert error <= proof.absolute
        exact = function.mpmath(point)
        if proof.relative is not None and exact != 0:
            assert error <= proof.relative * abs(exact) * (1 + mpmath.mpf(10) ** -12)


@settings(max_examples=60, deadline=None)
@given(
    root=st.one_of(
        st.floats(-1, 1),
        st.fractions(-1, 1, max_denominator=1000),
        st.sampled_from([-1.0, 1.0, 0.0]),
        st.floats(-1, 1, exclude_max=True).map(
            # Halfway between two neighbouring floats.
            lambda v: (Fraction(v) + Fraction(math.nextafter(v, 2.0))) / 2
        ),
    ),
    multiplicity=st.integers(1, 3),
    name=st.sampled_from(["exp", "sin", "cos"]),
)
def test_a_zero_of_a_divisor_is_never_certified(
    root: float | Fraction, multiplicity: int, name: str
) -> None:
    factor = x - Fraction(root)
    assume(factor.op != "variable" or root == 0)
    divisor = factor
    for _ in range(multiplicity - 1):
        divisor = divisor * factor
    # The values are harmless, as the numerator has the zero too.
    expression = 1 + x * divisor / divisor
    work = WORK // 10
    assert certify(expression, get_function(name), Interval(-1, 1), absolute=2.0, work=work) is None
    assert supremum(expression, get_function(name), Interval(-1, 1), work=work) is None


@pytest.mark.parametrize("divisor", [x * x - 2, (x * x - 2) ** 2, x**3 - 3, (x * x - 2) * (x + 5)])
def test_irrational_zeros_are_never_certified(divisor: Expression) -> None:
    expression = x * divisor / divisor
    assert certify(expression, get_function("exp"), Interval(1, 2), absolute=10.0) is None


@pytest.mark.parametrize("distance", [Fraction(1, 10), Fraction(1, 10**4), Fraction(1, 10**8)])
def test_a_divisor_that_only_comes_close_is_no_obstacle(distance: Fraction) -> None:
    expression = 1 + x / ((x - Fraction(1, 3)) ** 2 + distance)
    largest = 1 + 0.3334 / float(distance)
    proof = certify(expression, get_function("exp"), Interval(0, 1), absolute=largest)
    assert proof is not None
    with mpmath.workdps(40):
        peak = exact_error(expression, get_function("exp"), 1 / 3)
    assert peak <= proof.absolute <= 1.03 * largest


# p_d(x)^(2^k) and the chains of completed squares in section 9 of the facts page: domain,
# coefficients, and the largest error printed there.
COMPOSITES = [
    (-10, 2, (0.999891121, 0.248617233, 0.028989954, 0.00155200499), 4.355e-4),
    (-10, 3, (0.999993839, 0.124914423, 0.00766264383, 0.000253782876), 4.930e-5),
    (-16, 3, (0.999993839, 0.124914425, 0.00766264695, 0.000253783563), 4.929e-5),
    (-10, 4, (0.999999652, 0.0624949074, 0.00194380187, 3.60947099e-05), 5.576e-6),
    (-32, 4, (0.999999652, 0.0624949072, 0.00194380114, 3.60945265e-05), 5.579e-6),
    (-10, 3, (0.999999618, 0.12499339, 0.00779716445, 0.000314731567, 7.37761251e-06), 3.053e-6),
    (-16, 3, (0.999999618, 0.12499339, 0.00779716501, 0.000314731726, 7.37762245e-06), 3.052e-6),
]


@pytest.mark.parametrize("lo, squarings, coefficients, error", COMPOSITES)
def test_enclosures_of_published_coefficients(
    lo: float, squarings: int, coefficients: tuple[float, ...], error: float
) -> None:
    expression = horner([Fraction(c) for c in reversed(coefficients)])
    for _ in range(squarings):
        expression = expression * expression
    bounds = supremum(expression, get_function("exp"), Interval(lo, 0), sharpness=1e-3)
    assert bounds is not None
    assert bounds.upper <= 1.001 * bounds.lower
    # Printed with four digits and found with rounded coefficients.
    assert bounds.lower <= 1.002 * error
    assert bounds.upper >= 0.998 * error


@pytest.mark.parametrize(
    "lo, degree, lower, upper",
    # Bounds that another program, over Arb too, proved of the minimax polynomials.
    [(-10, 7, 1.070152e-3, 1.070551e-3), (-10, 9, 6.4746e-5, 6.4775e-5)],
)
def test_enclosures_of_minimax_polynomials(
    lo: float, degree: int, lower: float, upper: float
) -> None:
    best = minimax("exp", (lo, 0), degree)
    bounds = supremum(best.expression, best.function, best.domain, sharpness=1e-4)
    assert bounds is not None
    assert bounds.upper <= 1.0001 * bounds.lower
    # Both are the same minimax error up to what the fits left of it.
    assert bounds.lower <= upper * 1.0002
    assert bounds.upper >= lower * 0.9998


def test_an_enclosure_of_per_step_minimax_newton() -> None:
    # Section 9c: ratio 1e4, four steps, relative error 7.07e-5.
    y = 2 / (1 + x)
    for a, b in [
        (3.22647305, 2.60781646),
        (1.63130567, 0.518628425),
        (1.51131992, 0.501616139),
        (1.50008251, 0.500011787),
    ]:
        y = y * (Fraction(a) - Fraction(b) * ((x * y) * y))
    bounds = supremum(y, get_function("rsqrt"), Interval(0.01, 100), relative=True)
    assert bounds is not None
    assert bounds.upper <= 1.01 * bounds.lower
    assert bounds.lower <= 7.075e-5 and bounds.upper >= 7.065e-5


@pytest.mark.parametrize("name, lo, hi", [("exp", -1, 0), ("log", 1, 2), ("sin", -1, 1)])
def test_enclosures_below_the_rounding_of_float64(name: str, lo: float, hi: float) -> None:
    function = get_function(name)
    with mpmath.workdps(50):
        nodes = [
            (lo + hi) / 2 + (hi - lo) / 2 * math.cos(math.pi * (k + 0.5) / 18) for k in range(18)
        ]
        values = mpmath.matrix([function.mpmath(v) for v in nodes])
        vandermonde = mpmath.matrix([[mpmath.mpf(v) ** k for k in range(18)] for v in nodes])
        solution = mpmath.lu_solve(vandermonde, values)
        coefficients = [Fraction(str(mpmath.nstr(c, 40))) for c in solution]
    expression = horner(coefficients[::-1])
    bounds = supremum(expression, function, Interval(lo, hi))
    assert bounds is not None
    assert 0 < bounds.lower <= bounds.upper <= 1.02 * bounds.lower < 1e-13
    sampled = max(exact_error(expression, function, float(p)) for p in np.linspace(lo, hi, 100))
    assert sampled <= bounds.upper


def test_an_exact_expression_has_next_to_no_error() -> None:
    bounds = supremum(1 / x, get_function("reciprocal"), Interval(1, 8))
    assert bounds is not None
    assert bounds.lower == 0.0 and bounds.upper <= 2.0**-90


SIGMOID = Fraction(1, 2) + x * (Fraction(1, 4) - x * x / 50) / (1 + x * x / 64)


@pytest.mark.parametrize(
    "tolerance",
    [
        Tolerance(absolute=0.05, relative=0.1),
        Tolerance(absolute=0.01, relative=0.3, ulps=4),
        Tolerance(absolute=0.02, ulps=1000),
        Tolerance(absolute=0.05, histogram=Histogram.of([-1.9, 0.0, 0.1, 0.2, 0.2, 1.0], bins=7)),
        Tolerance(relative=0.1, histogram=Histogram.of([-1.0, 0.1, 0.1, 1.5], bins=5, floor=0.3)),
    ],
    ids=str,
)
def test_shares_of_a_tolerance(tolerance: Tolerance) -> None:
    function, domain = get_function("sigmoid"), Interval(-2, 2.5)
    points = np.linspace(-2, 2.5, 2001)
    errors = np.abs(SIGMOID(points) - function.numpy(points))
    used = errors / tolerance.allowed(points, function.numpy(points))
    largest = float(used.max())
    # The goal is to be within the tolerance; made smaller or larger, the bound has to follow.
    for scale in (0.5 / largest, 0.98 / largest, 3 / largest):
        scaled = Tolerance(
            tolerance.absolute / scale,
            tolerance.relative / scale,
            tolerance.ulps / scale,
            tolerance.histogram,
        )
        proof = certify(SIGMOID, function, domain, absolute=errors.max(), tolerance=scaled)
        assert proof is not None
        assert proof.share is not None
        assert largest * scale * (1 - 1e-9) <= proof.share
        assert (proof.share <= 1) == (scale < 1 / largest)
        assert proof.share <= max(1.0, 1.05 * largest * scale)


def test_a_relative_part_at_a_zero_of_the_function_needs_an_absolute_one() -> None:
    function, domain = get_function("log"), Interval(0.5, 2)
    expression = (x - 1) * 2 / (x + 1)
    mixed = Tolerance(absolute=1e-3, relative=0.04)
    proof = certify(expression, function, domain, absolute=0.03, tolerance=mixed)
    assert proof is not None
    assert proof.share is not None
    points = np.linspace(0.5, 2, 4001)
    errors = np.abs(expression(points) - np.log(points))
    used = float((errors / mixed.allowed(points, np.log(points))).max())
    assert used <= proof.share <= max(1.0, 1.02 * used)


symmetric = st.recursive(
    st.one_of(st.just(x), st.fractions(-4, 4, max_denominator=8).map(constant)),
    lambda children: st.builds(
        lambda a, b, op: (
            a
            if op == "/" and b.op == "constant" and b.value == 0
            else {"+": a + b, "-": a - b, "*": a * b}[op]
            if op != "/"
            else a / b
        ),
        children,
        children,
        st.sampled_from("+-*/"),
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(expression=symmetric, point=st.fractions(0, 5, max_denominator=50))
def test_a_claimed_symmetry_holds(expression: Expression, point: Fraction) -> None:
    found = expression_symmetry(expression)
    if found is None:
        return
    try:
        values = [
            expression(p) if expression.variables else expression.value for p in (point, -point)
        ]
    except ZeroDivisionError:
        return
    if found.parity == "even":
        assert found.centre == 0
        assert values[0] == values[1]
    else:
        assert values[0] - found.centre == -(values[1] - found.centre)


@pytest.mark.parametrize(
    "name, good, spoilt",
    [
        ("tanh", x / (1 + x * x / 3), x / (1 + x * x / 3) + x * x / 100),
        ("cos", 1 - x * x / 2, 1 - x * x / 2 + x / 50),
        ("sigmoid", Fraction(1, 2) + x / 5, Fraction(1, 2) + x / 5 + x * x / 50),
        ("acos", Fraction(157, 100) - x, Fraction(157, 100) - x + x * x / 50),
    ],
)
def test_half_a_domain_is_proven_only_where_both_are_symmetric(
    name: str, good: Expression, spoilt: Expression
) -> None:
    function, domain = get_function(name), Interval(-0.9, 0.7)
    for expression in (good, spoilt):
        bounds = supremum(expression, function, domain)
        assert bounds is not None
        errors = [
            exact_error(expression, function, p) for p in np.linspace(-0.9, 0.7, 401).tolist()
        ]
        assert max(errors) <= bounds.upper <= 1.02 * max(errors)


def test_a_relative_error_that_cannot_be_proven_leaves_the_absolute_one() -> None:
    # log vanishes at 1, the expression does not: no relative error is bounded.
    proof = certify(
        x - Fraction(101, 100), get_function("log"), Interval(0.9, 1.1), absolute=0.02, relative=1.0
    )
    assert proof is not None
    assert proof.relative is None
    assert proof.absolute <= 0.0206


def test_the_same_proof_every_time() -> None:
    expression, function = 1 + x + x * x / 2, get_function("exp")
    proofs = {certify(expression, function, Interval(-1, 1), absolute=0.2) for _ in range(3)}
    assert len(proofs) == 1
    assert None not in proofs


def test_lower_bounds_come_from_the_domain_alone() -> None:
    # The box around 0 reaches to -1/8, where the relative error is 3; in the domain it is 0.81.
    quotient = x / (1 + 6 * x)
    bounds = supremum(quotient, get_function("tanh"), Interval(0.0, 1.0), relative=True)
    worst = 1 - 1 / 7 / math.tanh(1.0)
    assert bounds is not None
    assert bounds.lower * (1 - 1e-12) <= worst <= bounds.upper * (1 + 1e-12)


def test_a_series_that_was_cut_short_proves_nothing() -> None:
    pytest.importorskip("flint")
    from flint import arb, arb_series

    from odp.approximations.functions.arb_elementary import NoEnclosure, coefficients

    assert len(coefficients(arb_series([arb(1), arb(2)], 5), 5)) == 5
    with pytest.raises(NoEnclosure):
        coefficients(arb_series([arb(1), arb(2)], 5), 6)


def test_proofs_in_threads_are_those_of_one_thread() -> None:
    polynomial = horner([Fraction(1, 24), Fraction(1, 6), Fraction(1, 2), Fraction(1), Fraction(1)])
    domains = [Interval(-1.0 - k / 8, 0.0) for k in range(4)]

    def proven(domain: Interval) -> float | None:
        # Analyticity is shown with series of two terms, the bounds with series of twenty.
        get_function("exp").monotonicity(domain)
        certificate = certify(polynomial, get_function("exp"), domain)
        return certificate and certificate.absolute

    alone = [proven(domain) for domain in domains]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(proven, domains * 8)) == alone * 8
