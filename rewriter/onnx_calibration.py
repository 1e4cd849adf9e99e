"""Calibration of ONNX graphs: the recorded values become outputs of a session, or are observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.rewriter.calibration import Observation, Recorder
from odp.rewriter.execution import Feed, Session, watch_with_reference
from odp.rewriter.manager import rewrite_graph
from odp.rewriter.onnx_graph import OnnxGraph, OnnxValue
from odp.rewriter.site import Request, Site

__all__ = ["calibrate"]


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
            assert isinstance(value, OnnxValue)
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
