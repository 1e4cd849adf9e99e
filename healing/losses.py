"""The three losses of healing, each a mean over tokens, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["feature_loss", "kl_loss", "language_model_loss"]


def language_model_loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of each token after the first, in nats.

    Args:
        logits: any float type, shape (batch, tokens, vocabulary).
        ids: int64, shape (batch, tokens).

    Returns:
        A scalar, float32.
    """
    from torch.nn import functional

    predicted = logits[:, :-1].flatten(0, 1).float()
    return functional.cross_entropy(predicted, ids[:, 1:].flatten())


def kl_loss(original: torch.Tensor, adapted: torch.Tensor) -> torch.Tensor:
    """Mean over positions of KL(original || adapted), in nats: the direction that is evaluated.

    Args:
        original: logits, any float type, shape (batch, tokens, vocabulary); no gradient flows here.
        adapted: logits of the same shape.  Tokens that both rule out by -inf add nothing.

    Returns:
        A scalar, float32.
    """
    import torch
    from torch.nn import functional

    # 0 (-inf + inf) is nan, and 0 times any other number is 0.
    least = torch.finfo(torch.float32).min
    wanted = original.detach().flatten(0, 1).float().log_softmax(-1).clamp_min_(least)
    found = adapted.flatten(0, 1).float().log_softmax(-1).clamp_min(least)
    return functional.kl_div(found, wanted, reduction="batchmean", log_target=True)


def feature_loss(original: Sequence[torch.Tensor], adapted: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean over tokens and blocks of |h - h'|^2 / |h|^2, where h is the original's hidden state.

    Each token counts alike: the first of a text has hidden states some hundred times larger than
    the others in many models, and would hide them in one norm over all.

    Args:
        original: hidden states after each decoder block, any float type, each of shape
            (batch, tokens, channels).
        adapted: of the same shapes.

    Returns:
        A scalar, float32.
    """
    import torch

    ratios = []
    for wanted, found in zip(original, adapted, strict=True):
        wanted = wanted.detach().float()
        square = wanted.square().sum(-1).clamp_min(torch.finfo(torch.float32).tiny)
        ratios.append(((found.float() - wanted).square().sum(-1) / square).mean())
    return torch.stack(ratios).mean()
