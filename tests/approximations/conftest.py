"""The checks that every approximant must pass, against mpmath on points of its own."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray

from odp.approximations import Approximant, Function, Interval
from odp.approximations.error_analysis import rounding_error

# Peaks of the error curve between the points of the measurement grid: the grid has 4097 points and
# refines its maximum, so what it missed is at most this share.
GRID_SLACK = 1e-3


def independent_points(
    function: Function, domain: Interval, count: int = 160
) -> NDArray[np.float64]:
    """Endpoints, random and geometric points that float32 represents (endpoints as given)."""
    random = np.random.default_rng(7)
    parts = [random.uniform(domain.lo, domain.hi, count)]
    if domain.lo > 0:
        parts.append(np.exp(random.uniform(np.log(domain.lo), np.log(domain.hi), count)))
    if domain.contains(0.0):
        magnitudes = domain.magnitude * 10 ** random.uniform(-6, 0, count)
        parts += [magnitudes, -magnitudes, np.zeros(1)]
    points = np.concatenate(parts).astype(np.float32).astype(np.float64)
    points = points[(points >= domain.lo) & (points <= domain.hi)]
    return np.unique(np.concatenate([points, [domain.lo, domain.hi]]))


def check(approximant: Approximant) -> None:
    """Declared errors hold against mpmath; float32 stays within the rounding bound."""
    function, domain = approximant.function, approximant.domain
    points = independent_points(function, domain)
    with mpmath.workdps(25):
        reference = np.array([float(function.mpmath(float(p))) for p in points])
    value = np.asarray(approximant(points), dtype=np.float64)
    # float64 evaluation and reference are themselves rounded, with 2^-52 in place of 2^-24.
    own_rounding = rounding_error(approximant.expression, points, 2.0**-52)
    own_rounding = own_rounding + 2.0**-52 * np.abs(reference)
    error = np.abs(value - reference) - own_rounding
    slack = 0.0 if approximant.error_kind == "certified" else GRID_SLACK
    assert float(error.max()) <= approximant.absolute_error * (1 + slack)
    if approximant.relative_error is not None:
        nonzero = reference != 0
        ratio = error[nonzero] / np.abs(reference[nonzero])
        assert float(ratio.max()) <= approximant.relative_error * (1 + slack)
    single = points[points.astype(np.float32) == points].astype(np.float32)
    computed = np.asarray(approximant(single))
    assert computed.dtype == np.float32
    assert np.isfinite(computed).all()
    with mpmath.workdps(25):
        exact = np.array([float(function.mpmath(float(p))) for p in single])
    bound = rounding_error(approximant.expression, single.astype(np.float64))
    distance = np.abs(computed.astype(np.float64) - exact)
    assert (distance <= approximant.absolute_error * (1 + slack) + bound).all()
    for node in approximant.expression.nodes():
        if node.op == "constant":
            assert Fraction(float(np.float32(float(node.value)))) == node.value
            assert node.value == 0 or abs(float(node.value)) >= 2.0**-126
    assert approximant.safe_interval.contains_interval(domain)
    assert np.isfinite(approximant.float32_error)


@pytest.fixture(name="check")
def check_fixture() -> Callable[[Approximant], None]:
    return check
