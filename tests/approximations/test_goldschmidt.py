"""Goldschmidt's iteration: Newton's values in fewer levels."""

from collections.abc import Callable

import numpy as np
import pytest

from odp.approximations import Approximant, approximate

NAMES = ["reciprocal", "rsqrt", "sqrt", "pow(1/3)", "pow(-0.25)", "pow(0.75)"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["fhe", "float32"])
def test_reaches_the_error(name: str, target: str, check: Callable[[Approximant], None]) -> None:
    approximant = approximate(name, (0.2, 5), error=1e-4, scheme="goldschmidt", target=target)
    assert approximant.error <= 1e-4
    assert approximant.error_kind == "certified"
    if target == "fhe":
        assert approximant.counts.divisions == 0
    else:
        check(approximant)


@pytest.mark.parametrize("name", NAMES)
def test_same_values_as_newton_in_fewer_levels(name: str) -> None:
    fixed = {"steps": 3, "seed": "linear", "step": "newton", "error": 1.0, "target": "float64"}
    newton = approximate(name, (0.2, 5), scheme="newton", **fixed)  # type: ignore[arg-type]
    other = approximate(name, (0.2, 5), scheme="goldschmidt", **fixed)  # type: ignore[arg-type]
    x = np.linspace(0.2, 5, 101)
    assert np.allclose(newton(x), other(x), rtol=1e-13, atol=0)
    # One level less for each step after the first; x y^2 at the end takes one back.
    saved = newton.counts.multiplicative_depth - other.counts.multiplicative_depth
    assert saved >= (1 if name == "pow(1/3)" else 2)
    assert other.counts.multiplications <= newton.counts.multiplications + 1


@pytest.mark.parametrize("name", ["reciprocal", "rsqrt"])
def test_a_target_that_counts_levels_prefers_it(name: str) -> None:
    approximant = approximate(name, (1, 256), error=1e-4, target="fhe")
    assert approximant.scheme == "goldschmidt"
    assert approximate(name, (1, 256), error=1e-4).scheme != "goldschmidt"
