"""How well a model with circuits predicts what the original does, window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from odp.approximations.errors import OdpError
from odp.evaluation.distributions import compare, losses
from odp.healing.decoder_circuits import refused_windows
from odp.healing.rows_record import HeldOut

if TYPE_CHECKING:
    from odp.evaluation.texts import TokenisedText

__all__ = ["score_circuits", "windows_of"]

_BATCH = 64


def windows_of(texts: Sequence[TokenisedText], tokens: int, begin: int | None) -> torch.Tensor:
    """Full windows of texts, one after the other.

    Args:
        texts: tokens of each.
        tokens: of a window.
        begin: the token that begins every window; None if the model has none.

    Returns:
        Token ids, int64, (windows, tokens).
    """
    found = []
    for text in texts:
        ids = torch.from_numpy(text.tokens)
        step = tokens - (begin is not None)
        rows = ids[: len(ids) // step * step].reshape(-1, step)
        if begin is not None:
            rows = torch.cat([torch.full((len(rows), 1), begin, dtype=rows.dtype), rows], dim=1)
        found.append(rows)
    return torch.cat(found)


def score_circuits(original: Any, model: Any, windows: torch.Tensor) -> HeldOut:
    """Perplexity and KL on the windows that no circuit refuses.

    Args:
        original: what is compared with.
        model: with circuits, as `put_circuits` made it.
        windows: token ids, int64, (windows, tokens).

    Raises:
        OdpError: there is no window.
    """
    if not len(windows):
        raise OdpError("there is no full window of text to score")
    refused, tokens = 0, 0
    sums = np.zeros(4)
    with torch.no_grad():
        for batch in torch.split(windows, _BATCH):
            found = model(input_ids=batch, use_cache=False).logits
            kept = ~refused_windows(model)
            refused += int((~kept).sum())
            if not kept.any():
                continue
            exact = original(input_ids=batch[kept], use_cache=False).logits[:, :-1].flatten(0, 1)
            made = found[kept][:, :-1].flatten(0, 1)
            targets = batch[kept][:, 1:].flatten()
            compared, _ = compare(exact, made, targets)
            wanted, _ = losses(exact, targets)
            tokens += len(targets)
            sums += (
                wanted.sum(),
                compared.loss.sum(),
                compared.kl.sum(),
                compared.same_top.sum(),
            )
    if not tokens:
        return HeldOut(len(windows), refused, 0, math.inf, math.inf, math.inf, 0.0)
    before, after, kl, top = (float(one) / tokens for one in sums)
    return HeldOut(len(windows), refused, tokens, _exp(after), _exp(before), kl, top)


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf
