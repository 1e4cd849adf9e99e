"""Scaled dot-product attention written out, so that its softmax can be seen and replaced."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

__all__ = ["attention"]

Softmax = Callable[[torch.Tensor, int], torch.Tensor]


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    softmax: Softmax = torch.softmax,
) -> torch.Tensor:
    """What `torch.nn.functional.scaled_dot_product_attention` computes, in elementary operators.

    Args:
        query: (..., heads, queries, channels), floating point.
        key: (..., heads, keys, channels).
        value: (..., heads, keys, channels of the value).
        attn_mask: boolean (true: may be attended to) or added to the scores, in which case -inf
            is what may not be attended to; broadcast to (..., heads, queries, keys).
        dropout_p: share of the weights that is dropped.
        is_causal: whether query i sees the keys up to i.
        scale: factor of the scores; 1/sqrt(channels) if None.
        enable_gqa: whether several heads of the query share one of key and value.
        softmax: called with the scores and the axis.

    Returns:
        (..., heads, queries, channels of the value).  As in torch, a query that may attend to no
        key at all gets zeros.

    Source: Vaswani et al., arXiv 1706.03762, equation 1; torch.nn.functional's documentation.
    """
    if enable_gqa:
        repeats = query.size(-3) // key.size(-3)
        key = key.repeat_interleave(repeats, -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    factor = 1.0 / math.sqrt(query.size(-1)) if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    allowed: torch.Tensor | None = None
    if is_causal:
        shape = (query.size(-2), key.size(-2))
        allowed = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
    elif attn_mask is not None and attn_mask.dtype == torch.bool:
        allowed = attn_mask
    elif attn_mask is not None:
        scores = scores + attn_mask
        allowed = attn_mask > -math.inf
    if allowed is not None:
        # Not -inf, of which a row that is masked altogether would make NaN; exp sees a zero.
        scores = torch.where(allowed, scores, torch.finfo(scores.dtype).min)
    weights = softmax(scores, -1)
    if allowed is not None and not is_causal:
        weights = torch.where(allowed.any(-1, keepdim=True), weights, 0.0)
    if dropout_p > 0.0:
        weights = torch.dropout(weights, dropout_p, train=True)
    # A mask of a wider type has widened the scores.
    return torch.matmul(weights.to(value.dtype), value)
