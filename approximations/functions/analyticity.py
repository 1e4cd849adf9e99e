"""Where a function has poles and branch points, and where it is monotone: proofs by bisection.

An interval on which ball arithmetic encloses the function and its derivative holds no singularity.
Intervals on which it does not are halved; the ones that never yield surround the singularities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from odp.approximations.errors import ApproximationError
from odp.approximations.functions.ball_precision import ball_precision
from odp.approximations.functions.function import Function, Monotonicity
from odp.approximations.interval import Interval

__all__ = ["check_analytic", "halves", "monotonicity"]

# A singularity is narrowed down in about 60 halvings; 1e-300 is reached in 30 of the larger steps.
_MOST_BOXES = 10_000
_NARROW = 2.0**-46
_TINY = 1e-300
_SAMPLES = 33
_BITS = 64


@lru_cache(maxsize=1024)
def check_analytic(function: Function, domain: Interval) -> None:
    """Refuse a domain on which a function has a pole or a branch point, or is not real.

    A branch point at which the function is continuous (sqrt at 0) may be an end of the domain, and
    kinks (of abs and max) may lie within.

    Args:
        function: one that `arb_functions.arb_evaluator` knows.
        domain: finite.

    Raises:
        ApproximationError: one line, with the place.
    """
    where = f"{function.name} on {domain}"
    boxes = _Boxes(function)
    for lo, hi, value in boxes.cover(domain):
        if value is not None:
            continue
        raise ApproximationError(f"{where}: {_reason(function, domain, lo, hi)}")
    if boxes.exhausted:
        raise ApproximationError(
            f"{where}: {_MOST_BOXES} intervals did not suffice to show that there is no pole or"
            " branch point; narrow the domain"
        )


@lru_cache(maxsize=1024)
def monotonicity(function: Function, domain: Interval) -> Monotonicity | None:
    """Whether the derivative is proven to have one sign on a domain.

    Args:
        function: any; None for one that `arb_functions.arb_evaluator` does not know.
        domain: finite.
    """
    from odp.approximations.functions.arb_functions import arb_evaluator

    if arb_evaluator(function) is None:
        return None
    boxes = _Boxes(function, lambda series: bool(series[1] > 0 or series[1] < 0))
    sign = 0
    for _, _, series in boxes.cover(domain):
        if series is None or isinstance(series, bool):
            return None
        here = 1 if series[1] > 0 else -1
        if sign and here != sign:
            return None
        sign = here
    if boxes.exhausted or not sign:
        return None
    return "increasing" if sign > 0 else "decreasing"


def _reason(function: Function, domain: Interval, lo: float, hi: float) -> str:
    """What is wrong on a narrow interval, the first one without an enclosure."""
    inside = np.linspace(domain.lo, domain.hi, _SAMPLES + 2)[1:-1]
    if np.isnan(function.numpy(inside)).all():
        return "the function is not real anywhere there; narrow the domain"
    step = 1e-6 * domain.width
    around = np.clip([lo - step, hi + step], domain.lo, domain.hi)
    place = lo + (hi - lo) / 2
    shown = f"{0.0 if abs(place) < _TINY else place:.6g}"
    if np.isnan(function.numpy(around)).all():
        return f"the function is not real near x = {shown}; narrow the domain"
    return f"the function has a pole or branch point near x = {shown}; choose a domain without it"


class _Boxes:
    """A cover of a domain by intervals on which a function is enclosed with its derivative."""

    def __init__(
        self, function: Function, accept: Callable[[Any], bool] = lambda series: True
    ) -> None:
        from odp.approximations.functions.arb_functions import arb_evaluator

        self.function = function
        self.evaluate = arb_evaluator(function)
        self.accept = accept
        self.exhausted = False

    def cover(self, domain: Interval) -> Iterator[tuple[float, float, Any]]:
        """Intervals from left to right, each with the series there.

        True stands for a series where only the values could be enclosed, None where nothing could.
        """
        if self.evaluate is None:
            return
        boxes = [(domain.lo, domain.hi)]
        for _ in range(_MOST_BOXES):
            if not boxes:
                return
            lo, hi = boxes.pop()
            with ball_precision(_BITS, 2):
                series = self._series(lo, hi)
                if series is None:
                    parts = halves(lo, hi)
                    if parts:
                        boxes += reversed(parts)
                        continue
                    series = self._values(lo, hi)
            yield lo, hi, series
        self.exhausted = bool(boxes)

    def _series(self, lo: float, hi: float) -> Any:
        from flint import arb, arb_series

        from odp.approximations.functions.arb_elementary import NoEnclosure

        assert self.evaluate is not None
        try:
            series = self.evaluate(arb_series([arb(lo).union(arb(hi)), arb(1)], 2))
        except (NoEnclosure, ValueError, ZeroDivisionError):
            return None
        enclosed = series[0].is_finite() and series[1].is_finite()
        return series if enclosed and self.accept(series) else None

    def _values(self, lo: float, hi: float) -> bool | None:
        from odp.approximations.functions.arb_elementary import NoEnclosure
        from odp.approximations.functions.arb_functions import enclosure

        try:
            enclosure(self.function, lo, hi)
        except NoEnclosure:
            return None
        return True


def halves(lo: float, hi: float) -> list[tuple[float, float]]:
    """Two halves, by magnitude where that differs much; none of an interval that is narrow."""
    if lo >= 0 or hi <= 0:
        near, far = sorted((abs(lo), abs(hi)))
        if far - near <= _NARROW * far or far < _TINY:
            return []
        if near > far / 4:
            middle = near + (far - near) / 2
        else:
            # Towards 0 in steps that grow, so that 1e-300 is not a thousand of them away.
            middle = math.sqrt(near) * math.sqrt(far) if near > 0 else min(far / 2, far * far)
            middle = max(middle, _TINY / 2)
        middle = math.copysign(middle, lo if lo < 0 else hi)
    else:
        if max(-lo, hi) < _TINY:
            return []
        middle = lo + (hi - lo) / 2
    return [(lo, middle), (middle, hi)] if lo < middle < hi else []
