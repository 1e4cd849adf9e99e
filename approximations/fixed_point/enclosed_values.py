"""Values of a function at very many points, with a proven bound of their error.

The ascending points are cut into runs.  On a run the function's Taylor polynomial about the middle,
with its remainder enclosed in ball arithmetic, is evaluated in float64 at all points at once; the
rounding errors of that evaluation are added to the bound.  A million proven values take about as
long as a million of numpy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.functions.ball_precision import ball_precision, flint_installed
from odp.approximations.functions.function import Function

__all__ = ["enclosed_values"]

Array = NDArray[np.float64]

_ORDER = 12
_SHORT = 8
_LONG = 1 << 15
_UNIT = 2.0**-53


def enclosed_values(
    function: Function, points: Array, tolerance: float
) -> Iterator[tuple[slice, Array, float]] | None:
    """Values on runs of consecutive points, and how far they may be from the function.

    Args:
        function: with a ball evaluator.
        points: ascending float64, within the natural domain.
        tolerance: bound to aim for; a run of few points may have a larger one.

    Returns:
        For every run its indices, the values there and one bound of |value - function|; infinite
        where nothing could be proven.  None if the function has no ball evaluator, or python-flint
        is not installed.
    """
    if not flint_installed():
        return None
    from odp.approximations.proofs.arb_evaluation import PRECISION, arb_evaluator

    evaluator = arb_evaluator(function)
    if evaluator is None:
        return None

    def runs() -> Iterator[tuple[slice, Array, float]]:
        pending = [
            (first, min(first + _LONG, points.size)) for first in range(0, points.size, _LONG)
        ][::-1]
        while pending:
            first, last = pending.pop()
            with ball_precision(PRECISION, _ORDER + 1):
                run = _taylor(evaluator, points[first:last], tolerance)
                if run is None and last - first <= _SHORT:
                    run = _pointwise(function, points[first:last], evaluator)
            if run is None:
                middle = (first + last) // 2
                pending += [(middle, last), (first, middle)]
            else:
                yield slice(first, last), *run

    return runs()


def _taylor(
    evaluator: Callable[[Any], Any], x: Array, tolerance: float
) -> tuple[Array, float] | None:
    """Values on a run by one Taylor polynomial; None if its bound is above the tolerance."""
    from flint import arb, arb_series

    from odp.approximations.functions.arb_elementary import NoEnclosure, coefficients

    lo, hi = float(x[0]), float(x[-1])
    middle = lo + (hi - lo) / 2
    radius = math.nextafter(max(hi - middle, middle - lo), math.inf)
    try:
        over = evaluator(arb_series([arb(middle, radius), radius], _ORDER + 1))
        remainder = float(coefficients(over, _ORDER + 1)[-1].abs_upper())
        if not remainder <= tolerance:
            return None
        balls = coefficients(evaluator(arb_series([arb(middle), radius], _ORDER)), _ORDER)
    except (NoEnclosure, ValueError, ZeroDivisionError):
        return None
    polynomial = [float(ball) for ball in balls]
    uncertain = math.fsum(float(ball.rad()) for ball in balls)
    # Horner rounds 2 k times on the way to t^k, t itself has 2 roundings, a coefficient 1.
    rounded = _UNIT * math.fsum((4 * k + 3) * abs(c) for k, c in enumerate(polynomial))
    bound = (remainder + uncertain + rounded) * (1 + 2.0**-30) + 1e-290
    if not bound <= tolerance:
        return None
    t = (x - middle) / radius
    value = np.full_like(x, polynomial[-1])
    for coefficient in reversed(polynomial[:-1]):
        value *= t
        value += coefficient
    return value, bound


def _pointwise(
    function: Function, x: Array, evaluator: Callable[[Any], Any]
) -> tuple[Array, float]:
    """Values one by one: next to a branch point no Taylor polynomial exists."""
    from flint import arb, arb_series

    from odp.approximations.proofs.arb_evaluation import NoEnclosure, enclosure

    values = np.empty_like(x)
    bound = 0.0
    for index, point in enumerate(x.tolist()):
        try:
            ball = evaluator(arb_series([arb(point)], 1))[0]
            if not ball.is_finite():
                raise NoEnclosure("not finite")
        except (NoEnclosure, ValueError, ZeroDivisionError):
            try:
                ball = enclosure(function, point, point)
            except NoEnclosure:
                return function.numpy(x), math.inf
        values[index] = float(ball.mid())
        distance = abs(ball - arb(values[index]))
        bound = max(bound, math.nextafter(float(distance.abs_upper()), math.inf))
    return values, bound
