"""Error budgets: absolute, relative, in ulps, any sum of them, weighted by frequency of inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import ApproximationError

__all__ = ["Histogram", "Tolerance"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """How often each part of a domain is met, from calibration.

    Where inputs are most frequent the error budget holds as it is; where they are rare the error
    may be up to ``1 / floor`` times as large.  A certified error always holds on the whole domain.

    Attributes:
        edges: ascending bounds of the bins, one more than there are counts.
        counts: inputs met in each bin, not negative.
        floor: weight of what was never met, in (0, 1].

    Raises:
        ApproximationError: if there are no counts, they do not fit the edges, or the edges do not
            ascend.

    >>> Histogram.of([0.0, 0.1, 0.2, 3.0], bins=2).counts
    (3.0, 1.0)
    """

    edges: tuple[float, ...]
    counts: tuple[float, ...]
    floor: float = 0.1

    def __post_init__(self) -> None:
        try:
            edges, counts = np.asarray(self.edges, float), np.asarray(self.counts, float)
            floor = float(self.floor)
        except (TypeError, ValueError):
            raise ApproximationError(
                f"the edges, counts and floor of a histogram are numbers, not {self.edges!r:.40},"
                f" {self.counts!r:.40} and {self.floor!r:.40}"
            ) from None
        if counts.size == 0 or edges.size != counts.size + 1:
            raise ApproximationError(
                f"a histogram with {counts.size} counts needs {counts.size + 1} edges, and has"
                f" {edges.size}"
            )
        if not (np.diff(edges) > 0).all() or not np.isfinite(edges).all():
            raise ApproximationError("the edges of a histogram must be finite and ascend")
        if not (counts >= 0).all() or not 0 < counts.sum() < math.inf:
            raise ApproximationError("the counts of a histogram must not be negative or all zero")
        if not 0 < floor <= 1:
            raise ApproximationError(f"the floor of a histogram is in (0, 1], not {floor:g}")

    @staticmethod
    def of(inputs: Any, bins: int = 64, floor: float = 0.1) -> Histogram:
        """The histogram of an array of inputs, in bins of equal width.

        Raises:
            ApproximationError: if there are no inputs, one is not a finite number, or there is not
                a whole number of bins.
        """
        try:
            values = np.asarray(inputs, dtype=np.float64)
        except (TypeError, ValueError):
            raise ApproximationError("the inputs of a histogram must be numbers") from None
        if values.size == 0 or not np.isfinite(values).all():
            raise ApproximationError(
                "a histogram needs inputs, and all of them finite; leave NaN and infinity out"
            )
        if not isinstance(bins, int) or bins < 1:
            raise ApproximationError(f"a histogram has a whole number of bins, not {bins!r}")
        counts, edges = np.histogram(values, bins=bins)
        return Histogram(tuple(edges.tolist()), tuple(counts.astype(float).tolist()), floor)

    def weight(self, x: Array) -> Array:
        """Weight of the error at `x`: 1 in the fullest bin, `floor` in an empty one, continuous."""
        edges, counts = np.asarray(self.edges), np.asarray(self.counts)
        # A jump of the weight would leave the minimax fit of a smooth function without alternation.
        share = np.interp(x, (edges[:-1] + edges[1:]) / 2, counts / counts.max())
        share = np.where((x < edges[0]) | (x > edges[-1]), 0.0, share)
        return np.asarray(np.maximum(share, self.floor), dtype=np.float64)


@dataclass(frozen=True)
class Tolerance:
    """The error allowed at x: (absolute + relative |f(x)| + ulps ulp(f(x))) / weight of x.

    Attributes:
        absolute: absolute part.
        relative: relative part.
        ulps: part in units in the last place of float32 at f(x).
        histogram: weights of the inputs; None for one weight everywhere.

    Raises:
        ApproximationError: if a part is negative or not a number (infinity is allowed), or nothing
            at all is allowed.
    """

    absolute: float = 0.0
    relative: float = 0.0
    ulps: float = 0.0
    histogram: Histogram | None = None

    def __post_init__(self) -> None:
        for name in ("absolute", "relative", "ulps"):
            value = getattr(self, name)
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or math.isnan(value) or value < 0:
                raise ApproximationError(
                    f"the {name} tolerance must be a positive number, not {value!r}"
                )
            object.__setattr__(self, name, float(value))
        if self.absolute + self.relative + self.ulps == 0:
            raise ApproximationError(
                "a tolerance of zero cannot be met; allow an absolute, relative or ulp error"
            )

    @property
    def kind(self) -> Literal["absolute", "relative", "mixed"]:
        """``absolute`` or ``relative`` where it is only that, the same for all inputs."""
        if self.histogram is None and self.ulps == 0:
            if self.relative == 0:
                return "absolute"
            if self.absolute == 0:
                return "relative"
        return "mixed"

    def allowed(self, x: Array, values: Array) -> Array:
        """The largest error allowed at `x`, where the function has `values`."""
        magnitude = np.abs(values)
        allowed = self.absolute + self.relative * magnitude
        if self.ulps:
            # spacing() of the largest float32 is infinite, and so is the error allowed there.
            with np.errstate(over="ignore"):
                single = magnitude.astype(np.float32)
            allowed = allowed + self.ulps * np.spacing(single).astype(np.float64)
        if self.histogram is not None:
            allowed = allowed / self.histogram.weight(x)
        return np.asarray(np.broadcast_to(allowed, magnitude.shape), dtype=np.float64)

    def scaled(self, factor: float) -> Tolerance:
        """The tolerance with all its parts multiplied by a positive number."""
        parts = (self.absolute * factor, self.relative * factor, self.ulps * factor)
        return Tolerance(*parts, self.histogram)

    def __str__(self) -> str:
        parts = []
        if self.absolute:
            parts.append(f"absolute error {self.absolute:g}")
        if self.relative:
            parts.append(f"relative error {self.relative:g}")
        if self.ulps:
            parts.append(f"{self.ulps:g} ulp")
        return " + ".join(parts) + (" (weighted)" if self.histogram else "")
