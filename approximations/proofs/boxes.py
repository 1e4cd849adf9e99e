"""Boxes that a domain is cut into: narrow next to the points where a function is not analytic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval

__all__ = ["Cuts"]

Box = tuple[float, float]

_PARTS = 16
# Distance of a box to a special point over its width.
_GRADING = 1.0
_LEAST = 2.0**-10
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Cuts:
    """How the domain of one proof is cut.

    Attributes:
        special: points at the ends of the natural domain; next to them boxes shrink in proportion
            to their distance.
        around_zero: whether 0 is the centre of a box of its own: a common zero of function and
            expression, where their quotient is expanded.
    """

    special: tuple[float, ...]
    around_zero: bool = False

    @staticmethod
    def of(function: Function, *, around_zero: bool) -> Cuts:
        """The cuts for a function."""
        ends = {function.domain.lo, function.domain.hi, *function.singularities}
        return Cuts(tuple(sorted(end for end in ends if math.isfinite(end))), around_zero)

    def first(self, domain: Interval) -> list[Box]:
        """Boxes that cover a domain."""
        lo, hi = domain.lo, domain.hi
        largest = (hi - lo) / _PARTS
        if not (self.around_zero and lo <= 0 <= hi and lo < hi):
            return self._graded(lo, hi, largest)
        # On a domain that ends at 0 the box around 0 reaches beyond it.
        reach = min(-lo, hi) if lo < 0 < hi else max(-lo, hi)
        centre = min(reach / 2, max(largest, 0.125))
        boxes = [(-centre, centre)]
        if hi > centre:
            boxes += self._graded(centre, hi, largest, zero=True)
        if -lo > centre:
            mirrored = Cuts(tuple(-s for s in self.special), self.around_zero)
            boxes += [(-b, -a) for a, b in mirrored._graded(centre, -lo, largest, zero=True)]
        return boxes

    def split(self, lo: float, hi: float, parts: int) -> list[Box]:
        """Smaller boxes that cover one; none if there is no float64 number inside.

        Args:
            lo: lower bound.
            hi: upper bound.
            parts: how many boxes an ordinary one becomes.
        """
        if self.around_zero and lo == -hi:
            quarter = hi / 4
            if quarter < _SMALLEST:
                return []
            half = hi / 2
            right = [(quarter, half), (half, hi)]
            return [(-quarter, quarter), *right, *((-b, -a) for a, b in right)]
        if self.touches(lo, hi):
            return self._graded(lo, hi, hi - lo)
        return _parts(lo, hi, parts)

    def touches(self, lo: float, hi: float) -> bool:
        """Whether a box ends at a special point, or is the one around zero."""
        return lo in self.special or hi in self.special or (self.around_zero and lo == -hi)

    def _graded(self, lo: float, hi: float, largest: float, *, zero: bool = False) -> list[Box]:
        """Boxes no wider than `largest`, nor than their distance to the nearest special point."""
        points = (*self.special, 0.0) if zero else self.special
        below = max((s for s in points if s <= lo), default=-math.inf)
        above = min((s for s in points if s >= hi), default=math.inf)
        left, right = [lo], [hi]
        # From both ends towards the middle, so that widths only grow.
        while left[-1] < right[-1]:
            a, b = left[-1], right[-1]
            if a - below <= above - b:
                width = self._width(a - below, hi - lo, largest)
                a = a + width
                if width <= 0 or not left[-1] < a < b - width / 2:
                    break
                left.append(a)
            else:
                width = self._width(above - b, hi - lo, largest)
                b = b - width
                if width <= 0 or not a + width / 2 < b < right[-1]:
                    break
                right.append(b)
        cuts = left + right[::-1]
        return list(pairwise(cuts))

    @staticmethod
    def _width(distance: float, whole: float, largest: float) -> float:
        if distance == 0:
            return whole * _LEAST
        return min(distance * _GRADING, largest)


def _parts(lo: float, hi: float, parts: int) -> list[Box]:
    """Equal parts, in ratio where the ends are far apart; [] if there are none."""
    ratio = hi / lo if lo > 0 else (lo / hi if hi < 0 else 1.0)
    if ratio > 2:
        near, far = sorted((abs(lo), abs(hi)))
        inner = [near * (far / near) ** (k / parts) for k in range(1, parts)]
        inner = inner if lo > 0 else [-x for x in reversed(inner)]
    else:
        inner = [lo + (hi - lo) * (k / parts) for k in range(1, parts)]
    cuts = sorted({lo, hi, *(x for x in inner if lo < x < hi)})
    return list(pairwise(cuts)) if len(cuts) > 2 else []
