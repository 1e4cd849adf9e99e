"""Schemes that users ask for by name: known values, and how far they are from minimax."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from odp.approximations import ApproximationError, Interval, approximate, get_function, minimax
from odp.approximations.forms.polynomials import chebyshev_nodes, interpolate
from odp.approximations.functions.taylor_coefficients import taylor_coefficients
from odp.approximations.measure import measure
from odp.approximations.schemes import SCHEMES
from odp.approximations.schemes.caratheodory_fejer import caratheodory_fejer

from .test_minimax_tables import SUBJECTS

RATIOS = json.loads((Path(__file__).parent / "minimax_tables.json").read_text())[
    "interpolation_ratios"
]


def measured(
    name: str, domain: tuple[float, float], relative: bool = False, **options: object
) -> float:
    a = approximate(
        name,
        domain,
        error=math.inf,
        relative=relative,
        target="float64",
        **options,  # type: ignore[arg-type]
    )
    # Not the proven bound, which is up to 1 % above.
    return measure(a.expression, a.function, a.domain).error(relative)


@pytest.mark.parametrize(
    "name, domain, options, expected",
    [
        # Facts, section 2: naive against minimax.
        ("exp", (-10, 0), {"scheme": "taylor", "degree": 5, "point": 0.0}, 542),
        ("exp", (-10, 0), {"scheme": "pade", "numerator": 2, "denominator": 2}, 0.302),
        ("exp", (-10, 0), {"scheme": "pade", "numerator": 4, "denominator": 4}, 2.2e-2),
    ],
)
def test_known_errors(
    name: str, domain: tuple[float, float], options: dict[str, object], expected: float
) -> None:
    if options["scheme"] == "pade":
        options = options | {"squarings": 0}
    assert measured(name, domain, **options) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("key", RATIOS)
def test_interpolation_is_as_far_from_minimax_as_the_table_says(key: str) -> None:
    name, kind = key.split(":")
    subject = SUBJECTS[name]
    domain, relative = (subject.lo, subject.hi), kind == "rel"
    for cell, ratio in RATIOS[key].items():
        degree = int(cell)
        best = minimax(subject.function, domain, degree, relative=relative)
        # The table gives 0 where its minimax error is within rounding.
        if not ratio or best.fit.error < 1e-13:
            continue
        options: dict[str, object] = {"scheme": "chebyshev", "degree": degree}
        if subject.function == "exp":
            options["squarings"] = 0
        ours = measured(subject.function, domain, relative, **options)
        assert ours / best.fit.error == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize(
    "name, domain, degree, share",
    [
        ("exp", (-1, 1), 3, 1e-4),
        ("exp", (-1, 1), 5, 1e-5),
        ("exp", (-10, 0), 9, 1e-2),
        ("sin", (-math.pi, math.pi), 7, 1e-3),
        ("cos", (-math.pi, math.pi), 8, 1e-3),
        ("sigmoid", (-8, 8), 15, 0.2),
        ("gelu", (-6, 6), 10, 0.2),
        ("log", (1, 2), 6, 1e-3),
    ],
)
def test_caratheodory_fejer_is_almost_minimax(
    name: str, domain: tuple[float, float], degree: int, share: float
) -> None:
    ours = measured(name, domain, scheme="caratheodory_fejer", degree=degree)
    best = minimax(name, domain, degree)
    assert best.fit.bound * (1 - 1e-9) <= ours <= (1 + share) * best.fit.error
    assert ours < measured(name, domain, **_interpolation(name, degree))


def _interpolation(name: str, degree: int) -> dict[str, object]:
    options: dict[str, object] = {"scheme": "chebyshev", "degree": degree}
    return options | ({"squarings": 0} if name == "exp" else {})


def test_the_eigenvalue_is_the_error() -> None:
    # Gutknecht and Trefethen (1982): for exp the CF error is the minimax error to many digits.
    series = interpolate(np.exp(chebyshev_nodes(40)))
    for degree in range(1, 9):
        polynomial, level = caratheodory_fejer(series, degree)
        assert polynomial.size == degree + 1
        assert level == pytest.approx(minimax("exp", (-1, 1), degree).fit.error, rel=1e-2)


@pytest.mark.parametrize("name", ["taylor", "multipoint_pade", "caratheodory_fejer"])
def test_they_do_not_compete_unasked(name: str) -> None:
    assert not SCHEMES[name].automatic(get_function("exp"), Interval(-1, 1))


def test_multipoint_pade_interpolates() -> None:
    a = approximate(
        "exp",
        (-1, 1),
        error=math.inf,
        target="float64",
        scheme="multipoint_pade",
        numerator=2,
        denominator=2,
    )
    x = np.linspace(-1, 1, 20_001)
    error = a(x) - np.exp(x)
    assert np.count_nonzero(np.diff(np.sign(error))) == 5
    best = minimax("exp", (-1, 1), (2, 2)).fit.error
    assert best < a.absolute_error < 3 * best
    # From one point: 60 times further away on [-10, 0].
    wide = {"error": math.inf, "numerator": 3, "denominator": 3, "target": "float64"}
    several = approximate("exp", (-10, 0), scheme="multipoint_pade", **wide)
    one = approximate("exp", (-10, 0), scheme="pade", squarings=0, **wide)
    assert several.absolute_error < one.absolute_error / 60


def test_taylor_coefficients() -> None:
    def coefficients(name: str, point: Fraction, count: int) -> tuple[Fraction, ...]:
        found = taylor_coefficients(get_function(name), point, count)
        assert found is not None
        return found

    zero = Fraction(0)
    assert coefficients("exp", zero, 4) == (1, 1, Fraction(1, 2), Fraction(1, 6))
    assert coefficients("reciprocal", Fraction(2), 3) == (
        Fraction(1, 2),
        Fraction(-1, 4),
        Fraction(1, 8),
    )
    # 1/2 + x/4 - x^3/48 + x^5/480.
    sigmoid = [float(c) for c in coefficients("sigmoid", zero, 6)]
    assert sigmoid == pytest.approx([1 / 2, 1 / 4, 0, -1 / 48, 0, 1 / 480], abs=1e-15)
    assert sigmoid[2] == sigmoid[4] == 0
    log = coefficients("log", Fraction(1), 8)
    assert [float(c) for c in log[1:]] == [(-1) ** (k + 1) / k for k in range(1, 8)]


def test_taylor_is_refused_where_its_series_does_not_converge() -> None:
    with pytest.raises(ApproximationError, match="does not apply"):
        approximate("atan", (-2, 2), scheme="taylor")


def test_taylor_finds_its_degree() -> None:
    a = approximate("sin", (-1, 1), error=1e-5, scheme="taylor")
    assert dict(a.parameters) == {"degree": 7, "point": 0.0}
    # x (1 - x^2/6 + ...): half the multiplications.
    assert a.counts.multiplications == 5
    assert a.certified_error is not None
    assert a.certified_error <= 1e-5
