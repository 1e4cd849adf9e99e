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

__all__ = ["SLICE_ELEMENTS", "TOPS", "Comparison", "as_float64", "compare", "losses"]

# Logits that are worked on at once: 32 MiB for each array in float64.
SLICE_ELEMENTS = 2**22
TOPS = (5, 10)


@dataclass(frozen=True)
class Comparison:
    """The predictions of a variant beside those of the original; arrays of shape (positions,).

    Attributes:
        loss: negative log-likelihood that the variant gives the tokens that follow, in nats,
            float64; infinite where it gives no distribution.
        kl: KL(original || variant) in nats, float64; infinite where either gives no distribution.
        same_top: whether both find the same token most likely, bool.
        shared_top: by each k of `TOPS`, the share of the original's k most likely tokens (of the
            whole vocabulary, if it is smaller) that are among the variant's, float64.
        cosine: of the angle between the logits of the original and those of the variant, over the
            tokens that neither excludes by -infinity, float64; 1 if both are zero there, 0 if one
            is; infinite where either gives no distribution.
    """

    loss: NDArray[np.float64]
    kl: NDArray[np.float64]
    same_top: NDArray[np.bool_]
    shared_top: dict[int, NDArray[np.float64]]
    cosine: NDArray[np.float64]


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
        log_p, valid = _log_probabilities(as_float64(logits[rows]))
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

    loss, kl, same, cosines, missing = [], [], [], [], 0
    shared: dict[int, list[NDArray[np.float64]]] = {top: [] for top in TOPS}
    most = min(max(TOPS), original.shape[1])
    for rows in _slices(original, slice_elements):
        p_logits, q_logits = (as_float64(x[rows].to(original.device)) for x in (original, variant))
        log_p, valid_p = _log_probabilities(p_logits)
        log_q, valid_q = _log_probabilities(q_logits)
        valid = valid_p & valid_q
        cosines.append(torch.where(valid, _cosine(p_logits, q_logits), torch.inf).cpu().numpy())
        # Before the next arrays of this size are made.
        del p_logits, q_logits
        missing += int((~valid_q).sum())
        loss.append(_target_losses(log_q, valid_q, targets[rows]))

        top_p, top_q = log_p.topk(most).indices, log_q.topk(most).indices
        same.append(((top_p[:, 0] == top_q[:, 0]) & valid).cpu().numpy())
        for top, shares in shared.items():
            # They are sorted: the most likely ones of the most likely ones come first.
            pairs = top_p[:, :top, None] == top_q[:, None, :top]
            overlap = pairs.sum(dim=(1, 2)).double() / min(top, most)
            shares.append(torch.where(valid, overlap, 0.0).cpu().numpy())

        p = log_p.exp()
        log_q.neg_().add_(log_p)
        # Where p is 0 the summand is 0, even if q is 0 as well and its logarithm infinite.
        summands = torch.where(p > 0, log_q.mul_(p), 0.0)
        # It is not negative, except by the rounding of its sum.
        divergence = summands.sum(dim=-1).clamp_(min=0.0)
        kl.append(torch.where(valid, divergence, torch.inf).cpu().numpy())
    comparison = Comparison(
        np.concatenate(loss),
        np.concatenate(kl),
        np.concatenate(same),
        {top: np.concatenate(shares) for top, shares in shared.items()},
        np.concatenate(cosines),
    )
    return comparison, missing


def _slices(logits: torch.Tensor, slice_elements: int) -> Iterator[slice]:
    positions, vocabulary = logits.shape
    step = max(1, slice_elements // vocabulary)
    for begin in range(0, positions, step):
        yield slice(begin, min(begin + step, positions))


def _log_probabilities(wide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logarithms of probabilities, float64 like the logits, and which rows are distributions."""
    # The maximum is nan or +infinity if any logit is, -infinity if all are.
    valid = wide.amax(dim=-1).isfinite()
    return wide.log_softmax(dim=-1), valid


def _cosine(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Cosine of the angle between rows of float64 logits, shape (positions,); see `Comparison`."""
    import torch

    is_finite = p.isfinite() & q.isfinite()
    if not bool(is_finite.all()):
        p, q = torch.where(is_finite, p, 0.0), torch.where(is_finite, q, 0.0)
    square_p, square_q = (p * p).sum(dim=-1), (q * q).sum(dim=-1)
    # The root of one product, and not a product of two roots: equal rows are at exactly 1.
    cosine = ((p * q).sum(dim=-1) / (square_p * square_q).sqrt()).clamp_(-1.0, 1.0)
    without_angle = (square_p == 0) | (square_q == 0)
    return torch.where(without_angle, (square_p == square_q).to(cosine), cosine)


def _target_losses(
    log_p: torch.Tensor, valid: torch.Tensor, targets: torch.Tensor
) -> NDArray[np.float64]:
    import torch

    picked = -log_p.gather(-1, targets.to(log_p.device)[:, None])[:, 0]
    found: NDArray[np.float64] = torch.where(valid, picked, torch.inf).cpu().numpy()
    return found
