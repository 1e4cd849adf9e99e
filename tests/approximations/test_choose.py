"""The choice: budgets, defaults, caching, safe intervals, and one clear line for bad input."""

import json
import math
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from odp.approximations import (
    Approximant,
    ApproximationError,
    Interval,
    approximate,
    get_function,
    pareto,
)
from odp.approximations.schemes import SCHEMES


def cost(approximant: Approximant) -> float:
    return approximant.target.cost(approximant.counts)


def test_smaller_errors_never_cost_less() -> None:
    for name, domain in [("exp", (-10, 0)), ("erf", (-4, 4)), ("rsqrt", (0.1, 10))]:
        costs = [
            cost(approximate(name, domain, error=error)) for error in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
        ]
        assert costs == sorted(costs)


def test_the_winner_is_the_cheapest_scheme() -> None:
    for name, domain in [("exp", (-10, 0)), ("sigmoid", (-8, 8)), ("log", (0.1, 10))]:
        best = cost(approximate(name, domain))
        for scheme in SCHEMES.values():
            if not scheme.applies(get_function(name), Interval(*domain)):
                continue
            try:
                other = approximate(name, domain, scheme=scheme.name)
            except ApproximationError:
                continue
            assert cost(other) >= best


def test_relative_default_follows_the_function_and_float32() -> None:
    assert not approximate("exp", (-10, 0)).relative
    assert approximate("exp", (-10, 10)).relative
    assert approximate("rsqrt", (0.1, 10)).relative
    assert not approximate("sqrt", (0, 4)).relative
    assert not approximate("rsqrt", (0.1, 10), relative=False).relative


def test_an_answer_is_remembered() -> None:
    assert approximate("tanh", Interval(-3, 3)) is approximate("tanh", (-3, 3))


def test_approximants_pickle_print_and_become_json() -> None:
    approximant = approximate("sigmoid", (-8, 8))
    again = pickle.loads(pickle.dumps(approximant))
    assert again == approximant
    assert again.expression is approximant.expression
    assert hash(again) == hash(approximant)
    record = json.loads(json.dumps(approximant.to_dict(), allow_nan=False))
    assert record["function"] == "sigmoid"
    assert record["domain"] == [-8, 8]
    assert (
        record["multiplications"]
        == approximant.counts.multiplications
        == (approximant.cost.multiplications)
    )
    assert "sigmoid" in repr(approximant)
    assert approximant.error_kind == "certified"


@pytest.mark.parametrize(
    "name, domain",
    [
        ("exp", (-10, 0)),
        ("exp", (-32, 0)),
        ("sigmoid", (-8, 8)),
        ("erf", (-30, 30)),
        ("rsqrt", (0.01, 100)),
        ("log", (0.01, 100)),
        ("sin", (-3.2, 3.2)),
        ("tanh", (-200, 200)),
    ],
)
def test_safe_interval_is_sane_inside(name: str, domain: tuple[float, float]) -> None:
    approximant = approximate(name, domain)
    safe = approximant.safe_interval
    function = approximant.function
    lo, hi = max(safe.lo, -1e6), min(safe.hi, 1e6)
    x = np.linspace(lo, hi, 3001)
    if function.positive_scale:
        x = np.geomspace(lo, hi, 3001)
    with np.errstate(all="ignore"):
        error = np.abs(approximant(x) - function.numpy(x))
        if approximant.relative:
            error = error / np.abs(function.numpy(x))
    scale = 1.0 if approximant.relative else np.abs(function.numpy(np.array(domain))).max()
    # Between two scanned points (a factor of about 1.03 apart) the error may grow a little more.
    assert error.max() <= 1.5 * max(10 * approximant.error, 1e-2 * max(scale, 1.0))
    assert safe.contains_interval(approximant.domain)


def test_safe_interval_ends_where_a_polynomial_runs_away() -> None:
    approximant = approximate("exp", (-10, 0), scheme="chebyshev", degree=3, squarings=0, error=1.0)
    safe = approximant.safe_interval
    assert -20 < safe.lo <= -10
    outside = safe.lo - 1.0
    assert abs(approximant(outside) - math.exp(outside)) > 1e-2


@pytest.mark.parametrize(
    "arguments, options, words",
    [
        (("exp", (0, 0)), {}, "single point"),
        (("exp", (1, 0)), {}, "reversed"),
        (("exp", (float("nan"), 0)), {}, "not a number"),
        (("exp", (-math.inf, 0)), {}, "infinite bound"),
        (("exp", (0, 1e9)), {}, "overflows"),
        (("exp", 3), {}, "pair of numbers"),
        (("exp", (1, 2, 3)), {}, "pair of numbers"),
        (("exp", ("a", "b")), {}, "must be numbers"),
        (("log", (0, 1)), {}, "pole or branch point"),
        (("log", (-1, 1)), {}, "real only"),
        (("reciprocal", (-1, 1)), {}, "pole or branch point"),
        (("tan", (1, 2)), {}, "real only"),
        (("atanh", (0, 1)), {}, "pole or branch point"),
        (("asin", (-2, 0)), {}, "real only"),
        (("exq", (0, 1)), {}, "did you mean exp"),
        (("exp", (-10, 0)), {"error": 0.0}, "positive number"),
        (("exp", (-10, 0)), {"error": -1e-3}, "positive number"),
        (("exp", (-10, 0)), {"error": float("nan")}, "positive number"),
        (("exp", (-10, 0)), {"error": "small"}, "positive number"),
        (("exp", (-10, 0)), {"error": 1e-18}, "no expression reaches"),
        (("sin", (-1e7, 1e7)), {}, "no expression reaches"),
        (("exp", (-10, 0)), {"scheme": "chebishev"}, "did you mean chebyshev"),
        (("exp", (-10, 0)), {"scheme": "newton"}, "does not apply"),
        (("exp", (-10, 0)), {"scheme": "pade", "steps": 3}, "no parameter 'steps'"),
        (("exp", (-10, 0)), {"degree": 3}, "needs a scheme"),
        (("exp", (-10, 0)), {"scheme": "chebyshev", "degree": 2, "squarings": 0}, "the best is"),
        (("sqrt", (0, 1)), {"relative": True}, "relative"),
        (("cos", (0, 3)), {"relative": True}, "has a zero there"),
        (("mish", (0, 1)), {"relative": True, "target": "float64"}, "has a zero there"),
        (("max(x, 0)", (-3, 0)), {"relative": True}, "has a zero there"),
        (("exp", (0, 1)), {"relative": "yes"}, "relative is True, False or None"),
        (("exp", (0, 1)), {"operations": True}, "operations must be"),
        (("exp", (0, 1)), {"operations": "5"}, "operations must be"),
        (("exp", (0, 1)), {"operations": 0}, "no expression at cost 0"),
        (("exp", (0, 1)), {"histogram": [1, 2, 3]}, "made by Histogram.of"),
        (("exp", (0, 1)), {"scheme": 5}, "a scheme is one name"),
        (("exp", (0, 1)), {"scheme": ["minimax"]}, "a scheme is one name"),
        (("exp", (0, 1)), {"scheme": "minimax", "degree": [1]}, "a number or a word"),
        (("exp", (0, 1)), {"scheme": "minimax", "degree": 0}, "nothing with degree=0"),
        (("exp", (0, 1)), {"scheme": "minimax", "degree": "two"}, "nothing with degree=two"),
        (("exp", (0, 1)), {"scheme": "minimax", "parity": "odd"}, "nothing with parity=odd"),
        (("pow(1e400)", (1, 3)), {}, "number"),
        (("tanh", (-1e308, 1e308)), {"error": 0.01}, "scale the variable"),
        (("exp", (0, 5e-324)), {}, "scale the variable"),
        (("sqrt", (0, 1e-300)), {}, "scale the variable"),
        (("sin", (0, 1e30)), {"error": 0.01}, "no expression reaches"),
        (("atan", (-1, 1e30)), {"error": 1e-9}, "no expression reaches"),
        (("sqrt", (1e-18, 1e18)), {"error": 1e-9, "target": "fhe"}, "no expression reaches"),
        (("exp", (0, 1)), {"target": None}, "unknown target"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_input_is_one_clear_line(
    arguments: tuple[object, ...], options: dict[str, object], words: str
) -> None:
    with pytest.raises(ApproximationError, match=words) as caught:
        approximate(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("reciprocal", (1, 1e18)),
        ("reciprocal", (1e-30, 1.0)),
        ("exp", (-1e50, 0)),
        ("log", (1, 1e20)),
    ],
)
def test_domains_beyond_the_digits_of_float64_have_answers(
    name: str, domain: tuple[float, float]
) -> None:
    found = approximate(name, domain, error=0.5 if name != "log" else 12.0)
    assert found.error <= (0.5 if name != "log" else 12.0)


def test_numbers_of_numpy_are_numbers() -> None:
    assert approximate("exp", (0, 1), error=np.float32(0.5)) == approximate(
        "exp", (0, 1), error=0.5
    )
    few = approximate("exp", (0, 1), operations=np.int64(3))  # type: ignore[arg-type]
    assert few == approximate("exp", (0, 1), operations=3)


@pytest.mark.parametrize(
    ("name", "domain", "relative"),
    [
        ("5-x", (-4, -3), True),
        ("max(x, 0)", (-3, 0), False),
        ("max(x, 0)**2", (-3, -1), False),
        ("reciprocal", (1, 8), True),
    ],
)
def test_an_exact_expression_ends_the_search_for_a_sharper_one(
    name: str, domain: tuple[float, float], relative: bool
) -> None:
    found = approximate(name, domain, operations=8, relative=relative)
    assert found.error <= 1e-14
    assert pareto(name, domain, relative=relative)[-1].error <= 1e-14


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"largest_cost": "a"}, "largest cost"),
        ({"largest_cost": math.nan}, "largest cost"),
        ({"largest_cost": -1}, "largest cost"),
        ({"schemes": "minimax"}, "list of names"),
        ({"schemes": []}, "list of names"),
    ],
)
def test_a_bad_front_is_one_clear_line(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ApproximationError, match=words):
        pareto("exp", (0, 1), **arguments)


def test_import_pulls_in_no_heavy_library() -> None:
    """It takes 0.03 s, because of that."""
    code = (
        "import sys, odp.approximations;"
        "print(*{'sympy', 'scipy', 'mpmath', 'flint', 'torch', 'onnx'} & set(sys.modules))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert output == []


def test_an_error_between_the_grid_points_is_no_answer() -> None:
    # The grid has 5120 points on [0, 1]; the spike is 2e-5 wide.
    function = "x/8 + exp(-10**10*(x - 0.3000123)**2)/1000"
    with pytest.raises(ApproximationError, match="between them"):
        approximate(function, (0, 1), error=5e-4)
    certified = approximate(function, (0, 1), error=2e-3).certified_error
    assert certified is not None
    assert 1e-3 <= certified <= 2e-3
