"""Calibration of fx graphs: modules that observe a value stand in the graph while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from odp.rewriter.calibration import KEPT, MASK_THRESHOLD, Observation, Recorder
from odp.rewriter.fx_graph import FxGraph
from odp.rewriter.fx_node import FxValue

__all__ = ["Observer", "insert_observers", "observe"]


class Observer(torch.nn.Module):
    """Hands its input on and shows it to the observations of one or more sites."""

    def __init__(self, observations: Sequence[tuple[Observation, bool]]) -> None:
        """Observe for `observations`; the flag says whether masks are to be left out."""
        super().__init__()
        self._observations = list(observations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` of any shape and floating-point type."""
        for observation, maskable in self._observations:
            observe(observation, x.detach(), maskable)
        return x


def insert_observers(
    graph: FxGraph, recorder: Recorder, observations: Mapping[str, Observation]
) -> None:
    """Let the values that a recorder remembers be seen whenever the graph runs.

    Args:
        graph: the graph that was rewritten with `recorder`; changed and recompiled.
        recorder: which value belongs to which site.
        observations: by site id.
    """
    readers: dict[FxValue, list[str]] = {}
    for site_id, values in recorder.values.items():
        for value in values:
            assert isinstance(value, FxValue)
            if not value.native._erased:
                readers.setdefault(value, []).append(site_id)
    for number, (value, site_ids) in enumerate(readers.items()):
        native = value.native
        watched = [(observations[s], recorder.sites[s].maskable) for s in site_ids]
        name = f"odp_observer_{number}"
        graph.owner(native).add_module(name, Observer(watched))
        with native.graph.inserting_after(native):
            observer = native.graph.call_module(name, (native,))
        observer.meta.update(native.meta)
        for user in list(native.users):
            if user is not observer:
                user.replace_input_with(native, observer)
    graph.recompile()


def observe(observation: Observation, x: torch.Tensor, maskable: bool) -> None:
    """Take in one tensor, on the device where it is.

    A softmax over 2,048 positions in 9 heads has 38 million inputs a layer.  Two reductions find
    the extremes, and only an even sample of them becomes float64 numbers of numpy, which for all of
    them would take ten times as long as the layer itself.
    """
    observation.elements = max(observation.elements, x.numel())
    if x.numel() == 0:
        return
    values = x.reshape(-1)
    low, high = (float(extreme) for extreme in torch.aminmax(values))
    if not maskable and np.isfinite(low) and np.isfinite(high):
        observation.extend(low, high, _sample(values, low, high))
        return
    observation.undefined |= bool(values.isnan().any())
    observation.minus_infinity |= bool(values.isneginf().any())
    kept = values.isfinite()
    if maskable:
        kept &= values > MASK_THRESHOLD
        observation.masked |= not bool(kept.all())
    values = values[kept]
    if values.numel():
        low, high = (float(extreme) for extreme in torch.aminmax(values))
        observation.extend(low, high, _sample(values, low, high))


def _sample(values: torch.Tensor, low: float, high: float) -> np.ndarray:
    step = -(-values.numel() // (KEPT // 16))
    numbers = values[::step].double().cpu().numpy()
    return numbers if step == 1 else np.concatenate([numbers, [low, high]])
