"""Calibration: what every site sees when the model runs on data.

The model is rewritten once with native operations in the place of every function, so that the
inputs of all sites are values of a graph that computes exactly what the original does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.rewriter.execution import Feed, Session, watch_with_reference
from odp.rewriter.graph import Builder, Value
from odp.rewriter.manager import rewrite_graph
from odp.rewriter.native import emit_native
from odp.rewriter.onnx_graph import OnnxGraph, OnnxValue
from odp.rewriter.report import Histogram
from odp.rewriter.site import Request, Site

__all__ = ["MASK_THRESHOLD", "Observation", "Recorder", "calibrate"]

MASK_THRESHOLD = -745.0
"""Arguments of exp below this are attention masks: exp(-745.2) is zero even in float64."""

_KEPT = 1 << 16
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
        unseen: why nothing was seen, where that is not for the data to change.
        samples: up to 65,536 inputs, evenly sampled, the extremes included.
    """

    low: float = float("inf")
    high: float = float("-inf")
    elements: int = 0
    masked: bool = False
    undefined: bool = False
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
        values = values[np.isfinite(values)]
        if maskable:
            data = values[values > MASK_THRESHOLD]
            self.masked |= data.size < array.size
            values = data
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        room = max(_KEPT // 16, _KEPT - self.samples.size)
        if values.size > room:
            values = np.concatenate([values[:: -(-values.size // room)], [low, high]])
        self.samples = np.concatenate([self.samples, values])
        if self.samples.size > _KEPT:
            extremes = [self.low, self.high]
            self.samples = np.concatenate([self.samples[::2], extremes])

    def histogram(self, bins: int = 64) -> Histogram | None:
        """Counts of the samples over equal bins, or None if nothing was seen."""
        if self.samples.size == 0:
            return None
        counts, edges = np.histogram(self.samples, bins=bins)
        return Histogram([float(edge) for edge in edges], [int(count) for count in counts])


class Recorder:
    """The implementation of sites that emits native operations and remembers their inputs."""

    mask_value: float | None = None

    def __init__(self) -> None:
        self.sites: dict[str, Site] = {}
        self.values: dict[str, list[OnnxValue]] = {}

    def function(self, site: Site, x: Value, builder: Builder) -> Value:
        """Emit the native function and remember `x`."""
        # A later pass may replace `x` itself (x/sqrt(2) becomes x*0.7); the copy stays.
        copy = builder.op("identity", x)
        assert isinstance(x, OnnxValue) and isinstance(copy, OnnxValue)
        copy.native.shape = x.native.shape
        self.sites.setdefault(site.id, site)
        self.values.setdefault(site.id, []).append(copy)
        return emit_native(builder, site.function, copy)


def calibrate(
    graph: OnnxGraph,
    requests: Sequence[Request],
    feeds: Iterable[Feed],
    progress: Callable[[], None] = lambda: None,
    bodies: bool = True,
) -> tuple[dict[str, Site], dict[str, Observation], list[dict[str, NDArray[Any]]]]:
    """Find all sites and watch them on data.

    Args:
        graph: the original model; unchanged.
        requests: the passes, from `schedule`.
        feeds: inputs, one mapping for each run.
        progress: called after each run.
        bodies: whether to watch inside If, Loop and Scan, which is slow.  Where that turns out to
            be impossible, the sites there stay unseen.

    Returns:
        Sites by id, observations by site id, and the outputs of the model for each feed.

    Raises:
        OdpError: the model does not run on the data.
    """
    clone = graph.clone()
    recorder = Recorder()
    rewrite_graph(clone, requests, recorder)
    observations = {site_id: Observation() for site_id in recorder.sites}
    readers: dict[str, list[str]] = {}
    natives = {}
    for site_id, values in recorder.values.items():
        for value in values:
            producer = value.native.producer()
            if producer is not None and producer.graph is not None:
                readers.setdefault(value.name, []).append(site_id)
                natives[value.name] = value.native

    def see(name: str, array: NDArray[Any]) -> None:
        for site_id in readers[name]:
            observations[site_id].add(array, recorder.sites[site_id].maskable)

    inner = [site_id for site_id, site in recorder.sites.items() if site.graph_path]
    outputs = []
    if inner and bodies:
        run = watch_with_reference(clone.model, list(natives.values()), see)
        try:
            for feed in feeds:
                outputs.append(run(feed))
                progress()
        except OdpError as error:
            sites, observations, outputs = calibrate(graph, requests, feeds, progress, False)
            for site_id in inner:
                observations[site_id].unseen = str(error)
            return sites, observations, outputs
        return recorder.sites, observations, outputs
    for site_id in inner:
        for name in [name for name, known in readers.items() if site_id in known]:
            readers[name].remove(site_id)
    natives = {name: value for name, value in natives.items() if readers[name]}
    session = Session(clone.model, list(natives.values()))
    for feed in feeds:
        results = session.run(feed)
        for name in natives:
            see(name, results[name])
        outputs.append({name: results[name] for name in session.outputs})
        progress()
    return recorder.sites, observations, outputs
