"""How fast models read a prompt and write an answer, measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from odp.evaluation.generation import greedy
from odp.evaluation.record import SpeedRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ROUNDS", "measure_speed"]

# Rounds that count, after one short one in which memory is allocated and kernels are chosen.
ROUNDS = 3
# No further round begins after this: what is that slow is measured well enough.
_SECONDS = 60.0
_WARM_UP_TOKENS = 3


class _Stopwatch:
    """A streamer: `generate` hands it the prompt, and then each token as soon as it is known.

    Tokens come from the device to be handed over, so the device has finished them by then.
    """

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, tokens: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to be handed over."""


def measure_speed(
    models: Mapping[str, PreTrainedModel],
    prompt: NDArray[np.int64],
    *,
    new_tokens: int,
    pad_token: int | None,
    progress: Callable[[str, int, int], None],
) -> dict[str, SpeedRecord]:
    """Measure tokens per second with batch size 1.

    The models take turns, so that a machine that slows down slows all of them; the median of
    `ROUNDS` rounds counts, or of fewer if they take minutes.

    Args:
        models: by name; ratios are to the first.
        prompt: token ids, int64, shape (tokens,).
        new_tokens: number of tokens to write, at least 2.
        pad_token: id of a token for padding, or None.
        progress: called as `progress("speed", runs done, runs in all)`.

    Returns:
        The speed of each model by its name.
    """
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    done, total = 0, len(models) * (ROUNDS + 1)
    progress("speed", 0, total)
    begin = time.perf_counter()
    for round_number in range(ROUNDS + 1):
        if round_number > 1 and time.perf_counter() - begin > _SECONDS:
            break
        for name, model in models.items():
            count = new_tokens if round_number > 0 else min(new_tokens, _WARM_UP_TOKENS)
            seconds = _run(model, prompt, count, pad_token)
            if round_number > 0:
                runs[name].append(seconds)
            done += 1
            progress("speed", done, total)
    progress("speed", total, total)
    rates = {
        name: (
            len(prompt) / statistics.median(prefill for prefill, _ in times),
            (new_tokens - 1) / statistics.median(decode for _, decode in times),
        )
        for name, times in runs.items()
    }
    first_prefill, first_decode = next(iter(rates.values()))
    return {
        name: SpeedRecord(prefill, decode, prefill / first_prefill, decode / first_decode)
        for name, (prefill, decode) in rates.items()
    }


def _run(
    model: PreTrainedModel, prompt: NDArray[np.int64], new_tokens: int, pad_token: int | None
) -> tuple[float, float]:
    """Seconds until the first new token, and from there to the last."""
    import torch

    inputs = torch.from_numpy(prompt).to(model.device)[None]
    watch = _Stopwatch()
    # An end token before the last would leave nothing to measure.
    config = greedy(model, pad_token, max_new_tokens=new_tokens, min_new_tokens=new_tokens)
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    generate: Any = model.generate
    begin = time.perf_counter()
    with torch.no_grad():
        generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            generation_config=config,
            streamer=watch,
        )
    # The first entry is the prompt itself.
    return watch.times[1] - begin, watch.times[-1] - watch.times[1]
