"""Distributions over the next token: losses of one model, distances between two.

Everything is computed in float64 from the logits as the model gave them, in slices of some
positions, so that besides the logits themselves only a fixed amount of memory is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["SLICE_ELEMENTS", "TOP", "Comparison", "as_float64", "compare", "losses"]

# Logits that are worked on at once: 32 MiB for each array in float64.
SLICE_ELEMENTS = 2**22
TOP = 5


@dataclass(frozen=True)
class Comparison:
    """The predictions of a variant beside those of the original; arrays of shape (positions,).

    Attributes:
        loss: negative log-likelihood that the variant gives the tokens that follow, in nats,
            float64; infinite where it gives no distribution.
        kl: KL(original || variant) in nats, float64; infinite where either gives no distribution.
        same_top: whether both find the same token most likely, bool.
        shared_top: share of the original's `TOP` most likely tokens (of the whole vocabulary, if it
            is smaller) that are among the variant's, float64.
    """

    loss: NDArray[np.float64]
    kl: NDArray[np.float64]
    same_top: NDArray[np.bool_]
    shared_top: NDArray[np.float64]


def as_float64(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in float64, on the same device unless that has no float64."""
    # Apple's GPUs have none.
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def losses(
    logits: torch.Tensor, targets: torch.Tensor, slice_elements: int = SLICE_ELEMENTS
) -> tuple[NDArray[np.float64], int]:
    """Negative log-likelihood of each target, in nats.

    Args:
        logits: any float type, shape (positions, vocabulary).
        targets: token ids, int64, shape (positions,), on the same device.
        slice_elements: number of logits to work on at once.

    Returns:
        The losses, shape (positions,), infinite where the logits give no distribution, and the
        number of such positions: those with nan or +infinity, or with nothing but -infinity.
    """
    found, missing = [], 0
    for rows in _slices(logits, slice_elements):
        log_p, valid = _log_probabilities(logits[rows])
        found.append(_target_losses(log_p, valid, targets[rows]))
        missing += int((~valid).sum())
    return np.concatenate(found), missing


def compare(
    original: torch.Tensor,
    variant: torch.Tensor,
    targets: torch.Tensor,
    slice_elements: int = SLICE_ELEMENTS,
) -> tuple[Comparison, int]:
    """Compare the predictions of two models at the same positions.

    Args:
        original: logits of the original, any float type, shape (positions, vocabulary).
        variant: logits of the variant, any float type, the same shape, on any device.
        targets: ids of the tokens that follow, int64, shape (positions,), on the original's device.
        slice_elements: number of logits of each model to work on at once.

    Returns:
        The comparison, and the number of positions where the variant gives no distribution.
    """
    import torch

    loss, kl, same, shared, missing = [], [], [], [], 0
    top = min(TOP, original.shape[1])
    for rows in _slices(original, slice_elements):
        log_p, valid_p = _log_probabilities(original[rows])
        log_q, valid_q = _log_probabilities(variant[rows].to(original.device))
        valid = valid_p & valid_q
        missing += int((~valid_q).sum())
        loss.append(_target_losses(log_q, valid_q, targets[rows]))

        top_p, top_q = log_p.topk(top).indices, log_q.topk(top).indices
        same.append(((top_p[:, 0] == top_q[:, 0]) & valid).cpu().numpy())
        overlap = (top_p[:, :, None] == top_q[:, None, :]).sum(dim=(1, 2)).double() / top
        shared.append(torch.where(valid, overlap, 0.0).cpu().numpy())

        p = log_p.exp()
        log_q.neg_().add_(log_p)
        # Where p is 0 the summand is 0, even if q is 0 as well and its logarithm infinite.
        summands = torch.where(p > 0, log_q.mul_(p), 0.0)
        # It is not negative, except by the rounding of its sum.
        divergence = summands.sum(dim=-1).clamp_(min=0.0)
        kl.append(torch.where(valid, divergence, torch.inf).cpu().numpy())
    comparison = Comparison(
        np.concatenate(loss), np.concatenate(kl), np.concatenate(same), np.concatenate(shared)
    )
    return comparison, missing


def _slices(logits: torch.Tensor, slice_elements: int) -> Iterator[slice]:
    positions, vocabulary = logits.shape
    step = max(1, slice_elements // vocabulary)
    for begin in range(0, positions, step):
        yield slice(begin, min(begin + step, positions))


def _log_probabilities(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logarithms of probabilities, float64, shape of `logits`, and which rows are distributions."""
    wide = as_float64(logits)
    # The maximum is nan or +infinity if any logit is, -infinity if all are.
    valid = wide.amax(dim=-1).isfinite()
    return wide.log_softmax(dim=-1), valid


def _target_losses(
    log_p: torch.Tensor, valid: torch.Tensor, targets: torch.Tensor
) -> NDArray[np.float64]:
    import torch

    picked = -log_p.gather(-1, targets.to(log_p.device)[:, None])[:, 0]
    found: NDArray[np.float64] = torch.where(valid, picked, torch.inf).cpu().numpy()
    return found
