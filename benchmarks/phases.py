"""Time and memory of every phase of a rewrite, measured in a process of its own.

    python benchmarks/phases.py model.onnx --passes all

prints one JSON object.  Calibration is replaced by typical ranges, so that no model is run.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from transformer_graph import transformer_model

# What is timed is what `odp.rewrite` calls, therefore its private stages too.
from odp.onnx_rewriting import _load, _lower, _prepare

SCALING = ("load", "simplify", "match", "rewrite", "lower", "save")
"""Phases whose work grows with the model; `approximate` is a search for each distinct domain."""

_RANGES = {"rsqrt": (1e-3, 1e2), "sqrt": (1e-3, 1e2), "exp": (-30.0, 0.0), "log": (1e-3, 1e2)}
_TYPICAL = (-8.0, 8.0)


class Phases:
    """Wall time, processor time and peak memory of named phases."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, float]] = {}
        self._process = psutil.Process()

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        peaks = [0, 0]
        done = threading.Event()

        def watch() -> None:
            while True:
                memory = self._process.memory_info()
                anonymous = memory.rss - getattr(memory, "shared", 0)
                peaks[:] = max(peaks[0], memory.rss), max(peaks[1], anonymous)
                if done.wait(0.01):
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            result = work()
        finally:
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            done.set()
            watcher.join()
        self.records[name] = {
            "seconds": wall,
            "processor_seconds": cpu,
            "peak_rss_bytes": peaks[0],
            "peak_anonymous_bytes": peaks[1],
        }
        return result


def rewrite_in_phases(model: Path, passes: str, target: Path) -> dict[str, Any]:
    """Rewrite a file into a file without running the model, and measure every phase."""
    from odp.backends.onnx.save import save_model
    from odp.passes import registry
    from odp.rewriter.calibration import Observation, Recorder
    from odp.rewriter.manager import rewrite_graph, schedule
    from odp.rewriter.onnx_graph import OnnxGraph
    from odp.rewriter.pass_options import parse_passes
    from odp.rewriter.selection import Approximating, Defaults, select

    phases = Phases()
    requests = schedule(parse_passes(passes, registry()), registry())
    loaded, before = phases.run("load", lambda: _load(model))
    nodes = sum(before.operations().values())
    del before
    graph = OnnxGraph(phases.run("simplify", lambda: _prepare(loaded, {})))
    recorder = Recorder()
    phases.run("match", lambda: rewrite_graph(graph.clone(), requests, recorder))
    observations = {}
    for site_id, site in recorder.sites.items():
        observations[site_id] = Observation()
        seen = np.array(_RANGES.get(site.function, _TYPICAL))
        observations[site_id].add(seen, site.maskable)
    selection = phases.run("approximate", lambda: select(recorder.sites, observations, Defaults()))
    phases.run("rewrite", lambda: rewrite_graph(graph, requests, Approximating(selection)))
    lowered = phases.run("lower", lambda: _lower(graph, 12))
    phases.run("save", lambda: save_model(lowered.model, target))
    return {
        "nodes_before": nodes,
        "nodes_after": sum(lowered.operations().values()),
        "sites": len(recorder.sites),
        "transcendental_after": sum(lowered.transcendental().values()),
        "bytes": model.stat().st_size,
        "phases": phases.records,
    }


def warm_up(folder: Path, passes: str) -> None:
    """Import everything and search the approximants, which no size of model should pay for."""
    import onnx

    small = folder / "small.onnx"
    onnx.save(transformer_model(100), small)
    rewrite_in_phases(small, passes, folder / "small.rational.onnx")


def peak_rss() -> int:
    """Largest resident set of this process so far, in bytes, mapped files included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--passes", default="all")
@click.option("--warm", is_flag=True, help="Imports and searches come before the clock.")
def main(model: Path, passes: str, warm: bool) -> None:
    """Measure one model and print JSON."""
    with tempfile.TemporaryDirectory(prefix="odp-benchmark-") as name:
        folder = Path(name)
        if warm:
            warm_up(folder, passes)
        found = rewrite_in_phases(model, passes, folder / "out.onnx")
    print(json.dumps(found | {"peak_rss_bytes": peak_rss()}))


if __name__ == "__main__":
    main()
