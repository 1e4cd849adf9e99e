"""Roots and reciprocals far from 1 keep the error that they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from odp.approximations.functions.registry import get_function
from odp.approximations.interval import Interval
from odp.backends.ezkl.homogeneous import HOMOGENEOUS, approximate_homogeneous


@pytest.mark.parametrize(
    ("name", "sign"), [*((name, 1.0) for name in sorted(HOMOGENEOUS)), ("reciprocal", -1.0)]
)
@pytest.mark.parametrize("bounds", [(4.7e10, 3e11), (1e-9, 2e-7), (0.5, 2.0), (1e3, 1e6)])
def test_the_error_holds_on_the_domain(name: str, bounds: tuple[float, float], sign: float) -> None:
    low, high = sorted(sign * bound for bound in bounds)
    found = approximate_homogeneous(name, Interval(low, high), 1e-4)
    x = sign * np.geomspace(*bounds, 2001)
    wanted = np.sign(x) * np.abs(x) ** float(HOMOGENEOUS[name])
    # The declared error is in real arithmetic; float64 adds some of its roundings.
    assert np.abs(found(x) / wanted - 1.0).max() <= found.error + 1e-12 <= 1.01e-4
    assert found.domain == Interval(low, high) and found.counts.divisions == 0
    assert found.function is get_function(name)
    assert found.absolute_error >= np.abs(found(x) - wanted).max() * (1 - 1e-9)
