"""Calibration: what every site sees when the model runs on data.

The model is rewritten once with native operations in the place of every function, so that the
inputs of all sites are values of a graph that computes exactly what the original does.  Running
that graph is the business of each adapter (`onnx_calibration`, `fx_calibration`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.rewriter.graph import Builder, Value
from odp.rewriter.native import emit_native
from odp.rewriter.report import Histogram
from odp.rewriter.site import Site

__all__ = ["KEPT", "MASK_THRESHOLD", "Observation", "Recorder"]

MASK_THRESHOLD = -745.0
"""Arguments of exp below this are attention masks: exp(-745.2) is zero even in float64."""

KEPT = 1 << 16
"""Values kept for each site; all of them up to this number, then an even sample."""


@dataclass
class Observation:
    """The inputs that one site has seen.

    Attributes:
        low: smallest finite input that is no mask.
        high: largest finite input.
        elements: inputs in one run of the model.
        masked: whether masks were seen.
        undefined: whether anything that is not a number was seen, as -inf - (-inf) is.
        minus_infinity: whether -inf was seen, of which exp makes an exact zero.
        unseen: why nothing was seen, where that is not for the data to change.
        samples: up to 65,536 inputs, evenly sampled, the extremes included.
    """

    low: float = float("inf")
    high: float = float("-inf")
    elements: int = 0
    masked: bool = False
    undefined: bool = False
    minus_infinity: bool = False
    unseen: str = ""
    samples: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def is_empty(self) -> bool:
        """Whether the site was never reached, or saw nothing finite."""
        return self.low > self.high

    def add(self, array: NDArray[Any], maskable: bool) -> None:
        """Take in the inputs of one evaluation."""
        self.elements = max(self.elements, array.size)
        values = np.asarray(array, dtype=np.float64).reshape(-1)
        self.undefined |= bool(np.isnan(values).any())
        self.minus_infinity |= bool(np.isneginf(values).any())
        values = values[np.isfinite(values)]
        if maskable:
            data = values[values > MASK_THRESHOLD]
            self.masked |= data.size < array.size
            values = data
        if values.size:
            self.extend(float(values.min()), float(values.max()), values)

    def extend(self, low: float, high: float, values: NDArray[Any]) -> None:
        """Take in finite inputs that are no masks.

        Args:
            low: smallest of them.
            high: largest of them.
            values: all of them, or an even sample, of shape (n,).
        """
        self.low, self.high = min(self.low, low), max(self.high, high)
        room = max(KEPT // 16, KEPT - self.samples.size)
        if values.size > room:
            values = np.concatenate([values[:: -(-values.size // room)], [low, high]])
        self.samples = np.concatenate([self.samples, values])
        if self.samples.size > KEPT:
            extremes = [self.low, self.high]
            self.samples = np.concatenate([self.samples[::2], extremes])

    def histogram(self, bins: int = 64) -> Histogram | None:
        """Counts of the samples over equal bins, or None if nothing was seen."""
        if self.samples.size == 0:
            return None
        low, high = float(self.samples.min()), float(self.samples.max())
        if high - low <= bins * float(np.spacing(max(abs(low), abs(high)))):
            # All but one number, which may be as large as -1e38: bins around it.
            low, high = low - max(0.5, abs(low) / 8), high + max(0.5, abs(high) / 8)
        counts, edges = np.histogram(self.samples, bins=bins, range=(low, high))
        return Histogram([float(edge) for edge in edges], [int(count) for count in counts])


class Recorder:
    """The implementation of sites that emits native operations and remembers their inputs."""

    mask_value: float | None = None

    def __init__(self) -> None:
        self.sites: dict[str, Site] = {}
        self.values: dict[str, list[Value]] = {}

    def function(self, site: Site, x: Value, builder: Builder) -> Value:
        """Emit the native function and remember `x`."""
        # A later pass may replace `x` itself (x/sqrt(2) becomes x*0.7); the copy stays.
        copy = builder.op("identity", x)
        self.sites.setdefault(site.id, site)
        self.values.setdefault(site.id, []).append(copy)
        return emit_native(builder, site.function, copy)
