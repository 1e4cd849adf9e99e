"""Times on a GPU: of a call from Python, and of the kernels that it launches.

Between two runs the L2 cache is flushed (`triton.testing.do_bench`), so that each tensor comes from
memory.  Everything runs in one stream that is not the default one, so that a backward can be
captured in a CUDA graph as well.  Where there is no GPU, one run is timed by the clock, to exercise
the code.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Stopwatch", "device_description", "first_line"]

_QUANTILES = (0.5, 0.2, 0.8)
_COPIED_BYTES = 1 << 30
Times = dict[str, float]


class Stopwatch:
    """Times of functions on one device, in microseconds.

    Args:
        device: a GPU, or the CPU for a dry run.
        repeat: milliseconds that a function is repeated for, after a fifth of that to warm up.
        graphs: whether kernels are also timed without the calls from Python that launch them.
    """

    def __init__(self, device: torch.device, repeat: int = 50, graphs: bool = True) -> None:
        self.device = device
        self._repeat = repeat
        self._on_gpu = device.type == "cuda"
        self._graphs = graphs and self._on_gpu
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None
        self._copies: dict[int, Times] = {}

    def stream(self) -> contextlib.AbstractContextManager[Any]:
        """The stream in which all that is timed has to run, and the forward of a backward, too."""
        return torch.cuda.stream(self._stream) if self._on_gpu else contextlib.nullcontext()

    def time(self, run: Callable[[], Any]) -> dict[str, Any]:
        """Quantiles of one function.

        Returns:
            ``call``: of the call from Python; if Python is slower than the GPU, of Python.
            ``graph``: of a CUDA graph of the call, which is the time of its kernels; None with
            the reason in ``no_graph`` where it could not be captured.
        """
        found: dict[str, Any] = {"call": self.call(run), "graph": None}
        if not self._graphs:
            return found
        try:
            found["graph"] = self.call(self._captured(run).replay)
        except Exception as failure:
            torch.cuda.synchronize()
            found["no_graph"] = first_line(failure)
        return found

    def copy(self, size: int) -> Times:
        """Times of a copy that moves a number of bytes, half of them read and half written."""
        if size not in self._copies:
            source = torch.zeros(max(size // 2, 1), dtype=torch.uint8, device=self.device)
            target = torch.empty_like(source)
            times = self.time(lambda: target.copy_(source))
            self._copies[size] = times["graph"] or times["call"]
        return self._copies[size]

    def copy_speed(self) -> float:
        """Measured bytes per microsecond of a copy far larger than the L2 cache."""
        size = _COPIED_BYTES if self._on_gpu else 1 << 16
        return size / self.copy(size)["median"]

    def call(self, run: Callable[[], Any]) -> Times:
        """Quantiles of a call from Python alone."""
        if not self._on_gpu:
            started = time.perf_counter()
            run()
            found = [(time.perf_counter() - started) * 1e3] * len(_QUANTILES)
        else:
            import triton.testing

            found = triton.testing.do_bench(
                run, warmup=self._repeat // 5, rep=self._repeat, quantiles=_QUANTILES
            )
        names = ("median", "low", "high")
        return {name: value * 1e3 for name, value in zip(names, found, strict=True)}

    def _captured(self, run: Callable[[], Any]) -> torch.cuda.CUDAGraph:
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            run()
        return graph


def first_line(failure: BaseException) -> str:
    """Kind and first line of an exception, for a table."""
    lines = str(failure).strip().splitlines() or [""]
    return f"{type(failure).__name__}: {lines[0]}"[:200]


def device_description(device: torch.device) -> dict[str, Any]:
    """The GPU that times belong to."""
    if device.type != "cuda":
        return {"name": "no GPU, a dry run"}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory": properties.total_memory,
        "l2_cache": getattr(properties, "L2_cache_size", None),
        "cuda": torch.version.cuda,
    }
