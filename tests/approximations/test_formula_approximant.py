"""`formula=`: measured and proven like any other expression, and taken whatever its error."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import odp
from odp.approximations import (
    Approximant,
    ApproximationError,
    Histogram,
    Interval,
    Tolerance,
    approximate,
    choose,
    get_function,
    get_target,
)
from odp.approximations.formula_approximant import check_formula
from odp.approximations.formula_expression import formula_expression
from odp.approximations.proofs.divisors import vanishing_divisor

NEWTON = (
    "y=2/(1+x); y=y*(1.5-0.5*x*y*y); y=y*(1.5-0.5*x*y*y); y=y*(1.5-0.5*x*y*y);"
    " y=y*(1.5-0.5*x*y*y); y"
)
LIMITS = "(1+x/1024)**1024"
CASES: list[tuple[str, tuple[float, float], str]] = [
    ("exp", (-8, 0), "(1+x/8)**8"),
    ("exp", (-10, 0), LIMITS),
    ("exp", (-1, 1), "(1+x/2+x^2/12)/(1-x/2+x^2/12)"),
    ("rsqrt", (0.1, 10), NEWTON),
    ("tanh", (-3, 3), "x*(27+x*x)/(27+9*x*x)"),
    ("sigmoid", (-4, 4), "0.5 + x/4 - x**3/48"),
    ("sin", (-1, 1), "x"),
    ("sin", (-1.5, 1.5), "t=x*x; x*(1-t/6+t*t/120)"),
    ("sqrt", (0, 1), "0.3 + 0.7*x"),
    ("normal_cdf", (-3, 3), "0.5 + 0.2*x"),
    ("x*exp(-x**2)", (-1, 1), "x - x^3 + x^5/2"),
]


@pytest.mark.parametrize(("function", "domain", "formula"), CASES)
def test_errors_are_proven_and_hold(
    function: str,
    domain: tuple[float, float],
    formula: str,
    check: Callable[[Approximant], None],
) -> None:
    approximant = approximate(function, domain, formula=formula)
    assert approximant.error_kind == "certified"
    assert approximant.certified_error == approximant.error
    assert approximant.scheme == "formula"
    assert approximant.tolerance is None
    check(approximant)
    # The bound is close: the largest error seen is at least 98 % of it, but for float64's rounding.
    points = np.linspace(*domain, 20001)
    if get_function(function).positive_scale and domain[0] > 0:
        points = np.geomspace(*domain, 20001)
    exact = get_function(function).numpy(points)
    error = np.abs(approximant(points) - exact)
    if approximant.relative:
        error = error / np.abs(exact)
    assert error.max() >= 0.98 * approximant.error


def test_the_known_error_of_a_known_formula() -> None:
    # (1 - t)^8 - exp(-8 t) for 0 <= t <= 1 is largest in magnitude where 8 (1-t)^7 = 8 exp(-8 t).
    t = np.linspace(0.0, 1.0, 1_000_001)
    largest = np.abs((1 - t) ** 8 - np.exp(-8 * t)).max()
    approximant = approximate("exp", (-8, 0), formula="(1+x/8)**8")
    assert largest <= approximant.absolute_error <= 1.02 * largest
    counts = approximant.cost
    assert (counts.multiplications, counts.divisions, counts.additions) == (3, 1, 1)


def test_what_is_computed_is_the_formula_with_its_constants_rounded() -> None:
    approximant = approximate("exp", (-1, 0), formula="1 + 0.9*x + 0.3*x*x")
    x = np.linspace(-1, 0, 101, dtype=np.float32)
    single = np.float32
    expected = single(1) + single(0.9) * x + single(0.3) * x * x
    np.testing.assert_array_equal(approximant(x), expected)
    double = approximate("exp", (-1, 0), formula="1 + 0.9*x + 0.3*x*x", target="float64")
    points = x.astype(np.float64)
    np.testing.assert_array_equal(double(points), 1 + 0.9 * points + 0.3 * points * points)


def test_everything_else_that_an_approximant_has() -> None:
    approximant = odp.approximate("exp", (-8, 0), formula=" (1 + x/8)\n ^8 ")
    assert approximant.parameters["formula"] == "(1 + x/8) ^8"
    assert approximant.description == "exp by the formula (1 + x/8) ^8"
    assert approximant.safe_interval.contains_interval(Interval(-8, 0))
    assert not approximant.relative
    assert approximant.float32_error <= approximant.absolute_error + 1e-6
    record = json.loads(json.dumps(approximant.to_dict(), allow_nan=False))
    assert (record["scheme"], record["parameters"]) == ("formula", {"formula": "(1 + x/8) ^8"})
    assert pickle.loads(pickle.dumps(approximant)) == approximant
    for language in ("python", "c", "latex", "triton"):
        assert approximant.emit(language)
    long = approximate("rsqrt", (0.1, 10), formula=NEWTON)
    assert len(long.description) < 90 and "\n" not in long.description
    assert long.parameters["formula"] == NEWTON
    assert long.relative


@pytest.mark.parametrize("relative", [True, False])
def test_the_kind_of_error_is_the_one_asked_for(relative: bool) -> None:
    approximant = approximate("exp", (-1, 0), formula="1+x*0.6", relative=relative)
    assert approximant.relative is relative
    assert approximant.certified_error is not None


@pytest.mark.parametrize(
    "error",
    [
        0.04,
        math.inf,
        (0.035, 0.03, 0.0),
        Tolerance(absolute=0.04),
        Tolerance(math.inf),
        (math.inf, math.inf, 1.0),
    ],
)
def test_an_error_that_is_kept(error: Any) -> None:
    approximant = approximate("exp", (-8, 0), formula="(1+x/8)**8", error=error)
    assert approximant.error_kind == "certified"
    assert approximant.expression is approximate("exp", (-8, 0), formula="(1+x/8)**8").expression
    bounded = error not in (math.inf, Tolerance(math.inf), (math.inf, math.inf, 1.0))
    assert (approximant.tolerance is not None) == bounded


@pytest.mark.parametrize("target", ["float32", "float64", "fixed{scale=10}"])
@pytest.mark.parametrize("error", [0.02, (0.01, 0.01, 0.0)])
def test_an_error_that_is_not_kept(error: Any, target: str) -> None:
    with pytest.raises(ApproximationError) as caught:
        approximate("exp", (-8, 0), formula="(1+x/8)**8", error=error, target=target)
    assert "\n" not in str(caught.value)
    if target != "fixed{scale=10}":
        assert "leave the error out" in str(caught.value)
        assert ("times the error allowed" in str(caught.value)) == isinstance(error, tuple)


def test_a_weighted_error() -> None:
    # The error of the formula is largest near x = -2, where no input is.
    rare = Histogram.of(np.concatenate([np.full(900, -7.9), np.full(100, -0.05)]))
    arguments: dict[str, Any] = {"formula": "(1+x/8)**8", "error": 0.02}
    with pytest.raises(ApproximationError, match="more than absolute error"):
        approximate("exp", (-8, 0), **arguments)
    approximant = approximate("exp", (-8, 0), **arguments, histogram=rare)
    assert approximant.absolute_error > 0.02
    assert approximant.error_kind == "certified"


def test_an_error_that_float32_does_not_keep() -> None:
    # In real arithmetic it is closer than (1+x/1024)^1024, but 1+x/65536 has lost its digits.
    formula = "(1+x/65536)**65536"
    real = approximate("exp", (-10, 0), formula=formula)
    assert real.absolute_error < 1e-5 < 1e-3 < real.float32_error
    with pytest.raises(ApproximationError, match="in float32, more than absolute error 1e-05"):
        approximate("exp", (-10, 0), formula=formula, error=1e-5)
    assert approximate("exp", (-10, 0), formula=formula, error=1e-5, target="float64")


@pytest.mark.parametrize(
    ("function", "domain", "formula", "target"),
    [
        ("exp", (-8, 0), "(1+x/8)**8", "fixed{scale=7}"),
        ("exp", (-8, 0), "(1+x*0.125)**8", "fixed{scale=13,guard=3}"),
        ("exp", (-10, 0), "(1+x*0.03125)**32", "ezkl{scale=13}"),
        ("rsqrt", (0.25, 4), NEWTON, "hardware"),
        ("tanh", (-3, 3), "x*(27+x*x)/(27+9*x*x)", "fixed{scale=10}"),
    ],
)
def test_on_integers_every_rounding_is_proven(
    function: str, domain: tuple[float, float], formula: str, target: str
) -> None:
    approximant = approximate(function, domain, formula=formula, target=target)
    program = approximant.fixed_point
    assert program is not None and approximant.error_kind == "certified"
    assert approximant.scheme == "formula" and approximant.tolerance is None
    real = approximate(function, domain, formula=formula, target="float64")
    scale = program.program.scale
    points = np.arange(math.ceil(domain[0] * 2**scale), math.floor(domain[1] * 2**scale) + 1)
    inputs = points[:: max(1, points.size // 4096)] / 2.0**scale
    exact = get_function(function).numpy(inputs)
    error = np.abs(np.asarray(program(inputs), dtype=np.float64) - exact)
    if approximant.relative:
        error = error / np.abs(exact)
    assert error.max() <= approximant.error * (1 + 1e-9)
    # Not much worse than the formula itself and the rounding of the result.
    rounding = 2.0 ** -(scale + 1) / (np.abs(exact).min() if approximant.relative else 1.0)
    if approximant.target == get_target(target):
        assert approximant.error <= 1.4 * real.error + 32 * rounding
    else:
        assert approximant.error <= 1.4 * real.error + 1.1 * rounding


@pytest.mark.parametrize(
    ("function", "domain", "formula", "options", "words"),
    [
        ("exp", (-1, 1), "1+exp(x)", {}, "exp is a function"),
        ("exp", (-1, 1), "1+t", {}, "unknown name 't'"),
        ("exp", (-1, 1), "", {}, "empty"),
        ("exp", (-1, 1), 5, {}, "a formula is a text"),
        ("exp", (-1, 1), "1/(1-x)", {}, "divides by zero near x = 1;"),
        ("exp", (-1, 1), "1/(x-0.5)**2", {}, "divides by zero near x = 0.5;"),
        ("exp", (-1, 1), "1/(x*x-x*x)", {}, "divides by zero near x = -1;"),
        ("exp", (-1, 1), "1/(1/x)", {}, "divides by zero near x = 0;"),
        ("exp", (-1, 1), "x/(x*x*x-0.001)", {}, "divides by zero near x = 0.1;"),
        ("exp", (-100, 1), "x**60000", {}, "not finite in float64 at x = -100"),
        ("exp", (-100, 1), "x**20", {}, "not finite in float32 at x = -100"),
        ("exp", (-1, 1), "1e-200*x", {}, "out of the range of float32"),
        ("exp", (-1, 1), "1+x/2", {"target": "fhe"}, "multiply by constants instead"),
        ("exp", (-1, 1), "1/(3-x)", {"target": "fhe"}, "without divisions"),
        ("exp", (-1, 1), "1+x", {"scheme": "pade"}, "goes without scheme;"),
        ("exp", (-1, 1), "1+x", {"degree": 3}, "goes without degree;"),
        ("exp", (-1, 1), "1+x", {"scheme": "pade", "degree": 3}, "without scheme, degree;"),
        ("exp", (-1, 1), "1+x", {"operations": 3}, "leave out operations"),
        ("exp", (-1, 1), "1+x", {"histogram": Histogram.of([0.0, 1.0])}, "give an error"),
        (
            "exp",
            (-1, 1),
            "1+x",
            {"error": math.inf, "histogram": Histogram.of([0.0, 1.0])},
            "give an error",
        ),
        ("exp", (-1, 1), "1+x", {"error": -1}, "positive number"),
        ("exp", (-1, 1), "1+x", {"target": "flaot32"}, "unknown target"),
        ("exp", (1, -1), "1+x", {}, "reversed"),
        ("log", (-1, 1), "x", {}, "real only"),
        ("cos", (0, 3), "1-x*x/2", {"relative": True}, "has a zero there"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_input_is_one_clear_line(
    function: str, domain: Any, formula: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ApproximationError, match=words) as caught:
        approximate(function, domain, formula=formula, **options)
    assert "\n" not in str(caught.value)


def test_a_formula_beside_other_domains_is_fine() -> None:
    assert approximate("exp", (-1, 0.5), formula="1/(1-x)").certified_error is not None


@pytest.mark.parametrize(
    ("formula", "domain", "place"),
    [
        ("1/(x-1)", (-3, 3), 1.0),
        ("1/(x-1)**2", (-3, 3), 1.0),
        ("1/x", (0, 1), 0.0),
        ("1/x", (1e-90, 1), None),
        ("1/((x-1)**2+1e-6)", (-3, 3), None),
        ("1/(1-x/3+x**2/10-x**3/60+x**4/600)", (-20, 20), None),
        ("x/8", (-3, 3), None),
        (NEWTON, (1e-5, 1e5), None),
        (NEWTON, (-2, 1), -1.0),
    ],
)
def test_where_a_divisor_vanishes(
    formula: str, domain: tuple[float, float], place: float | None
) -> None:
    found = vanishing_divisor(formula_expression(formula), Interval(*domain))
    if place is None:
        assert found is None
    else:
        assert found == pytest.approx(place, abs=1e-12)


def test_the_check_names_who_asked() -> None:
    check_formula("pass 'exp'", "1+x", None, {})
    with pytest.raises(ApproximationError, match=r"^pass 'exp': formula 'y': unknown name 'y'"):
        check_formula("pass 'exp'", "y", None, {})


# Caches


def test_asked_twice_it_is_the_same_object() -> None:
    first = approximate("exp", (-8, 0), formula="(1+x/8)**8")
    assert approximate("exp", (-8, 0), formula="(1+x/8)**8") is first
    assert approximate("exp", (-8, 0), formula="(1+x/16)**16") is not first
    assert approximate("exp", (-8, 0), error=1e-2) is not first


@pytest.mark.parametrize("target", ["float32", "fixed{scale=7}"])
def test_another_process_reads_it_from_disk(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> Approximant:
        choose._by_formula.cache_clear()
        return approximate("exp", (-8, 0), formula="(1+x/8)**8", target=target)

    monkeypatch.setenv("ODP_CACHE", str(tmp_path))
    first = asked()
    (kept,) = tmp_path.rglob("*.json")
    monkeypatch.setattr(choose, "formula_approximant", None)
    assert asked() == first
    kept.unlink()
    monkeypatch.undo()
