"""Closed real intervals: the domains that approximations are made for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from odp.approximations.errors import ApproximationError

__all__ = ["Interval"]

_SEPARATORS = re.compile(r"[:,]")


@dataclass(frozen=True)
class Interval:
    """A closed interval ``[lo, hi]`` of real numbers; infinite bounds are allowed.

    Attributes:
        lo: lower bound.
        hi: upper bound, not below `lo`.

    Raises:
        ApproximationError: if a bound is NaN or the bounds are reversed.

    >>> Interval(-10, 0)
    Interval(lo=-10.0, hi=0.0)
    >>> print(Interval.parse("-10:0"))
    [-10, 0]
    """

    lo: float
    hi: float

    def __post_init__(self) -> None:
        try:
            lo, hi = float(self.lo), float(self.hi)
        except (TypeError, ValueError, OverflowError):
            raise ApproximationError(
                f"interval bounds must be numbers, not {self.lo!r} and {self.hi!r}"
            ) from None
        if math.isnan(lo) or math.isnan(hi):
            raise ApproximationError(f"interval [{lo:g}, {hi:g}]: a bound is not a number")
        if lo > hi:
            raise ApproximationError(
                f"interval [{lo:g}, {hi:g}] is reversed: give the lower bound first"
            )
        # -0.0 would make two equal intervals print differently.
        object.__setattr__(self, "lo", lo + 0.0)
        object.__setattr__(self, "hi", hi + 0.0)

    @staticmethod
    def parse(text: str) -> Interval:
        """Read ``lo:hi``, ``lo,hi`` or the printed form ``[lo, hi]``.

        Args:
            text: two numbers as Python writes them; ``inf`` and ``-inf`` are allowed.

        Raises:
            ApproximationError: if the text is not an interval.

        >>> Interval.parse("1e-6:inf")
        Interval(lo=1e-06, hi=inf)
        """
        inner = text.strip()
        if inner.startswith("[") and inner.endswith("]"):
            inner = inner[1:-1]
        parts = _SEPARATORS.split(inner)
        try:
            lo, hi = (float(part) for part in parts)
        except ValueError:
            raise ApproximationError(
                f"{text!r} is not an interval: write lo:hi, for example -10:0"
            ) from None
        return Interval(lo, hi)

    @property
    def width(self) -> float:
        """Length of the interval; 0 for a single point.

        >>> Interval(-10, 2).width
        12.0
        """
        return 0.0 if self.lo == self.hi else self.hi - self.lo

    @property
    def magnitude(self) -> float:
        """Largest absolute value in the interval.

        >>> Interval(-10, 2).magnitude
        10.0
        """
        return max(abs(self.lo), abs(self.hi))

    @property
    def ratio(self) -> float:
        """Largest over smallest magnitude in the interval; infinite where it contains zero.

        >>> Interval(0.25, 4).ratio
        16.0
        """
        if self.contains(0.0):
            return math.inf
        smallest = min(abs(self.lo), abs(self.hi))
        return self.magnitude / smallest if math.isfinite(self.magnitude) else math.inf

    @property
    def is_finite(self) -> bool:
        """Whether both bounds are finite."""
        return math.isfinite(self.lo) and math.isfinite(self.hi)

    def contains(self, x: float) -> bool:
        """Whether the point `x` lies in the interval, bounds included."""
        return self.lo <= x <= self.hi

    def contains_interval(self, other: Interval) -> bool:
        """Whether every point of `other` lies in this interval."""
        return self.lo <= other.lo and other.hi <= self.hi

    def __str__(self) -> str:
        return f"[{_shortest(self.lo)}, {_shortest(self.hi)}]"


def _shortest(x: float) -> str:
    """The shortest text that reads back as `x`, without a trailing ``.0``."""
    text = repr(x)
    return text[:-2] if text.endswith(".0") else text
