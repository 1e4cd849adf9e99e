"""Attention by torch: what runs without a GPU, with the same exp as the kernels.

Everything is in float32, or float64 if the tensors are; the weights are in memory.
"""

from __future__ import annotations

import math

import torch

from odp.kernels.functions import KernelFunction
from odp.kernels.term import input_elements
from odp.kernels.torch_evaluation import evaluate

__all__ = ["backward_by_torch", "forward_by_torch", "result_like"]

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def result_like(x: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """For a result in the layout of `x`, but with contiguous channels, as kernels write them."""
    found = torch.empty_like(x, dtype=dtype)
    if found.shape[-1] == 1 or found.stride(-1) == 1:
        return found
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)


def forward_by_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float,
    exp: KernelFunction,
) -> Three:
    """The result like q, and for each row the largest score and the reciprocal of the sum.

    Args:
        q: [batch, heads, queries, channels].
        k: [batch, key heads, keys, channels]; neither is empty.
        v: like k.
        mask: numbers that broadcast to [batch, heads, queries, keys], or None.
        causal: query i sees keys up to i + keys - queries.
        scale: of scores.
        exp: from `odp.kernels.device_function.exp_of_scores`.
    """
    scores = _scores(q, k, mask, causal, scale)
    largest = scores.amax(-1)
    unseen = largest == -math.inf
    shift = torch.where(unseen, 0.0, largest)
    powers = _powers(scores, shift, exp)
    reciprocal = torch.where(unseen, 0.0, 1 / powers.sum(-1))
    o = (powers * reciprocal[..., None]) @ _shared(v, q)
    return result_like(q).copy_(o), shift, reciprocal


def backward_by_torch(
    d_o: torch.Tensor,
    o: torch.Tensor,
    shift: torch.Tensor,
    reciprocal: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float,
    exp: KernelFunction,
) -> Three:
    """The gradients of q, k and v; the formulas are in `odp.kernels.attention_backward_queries`.

    Args:
        d_o: gradient of o.
        o: result of `forward_by_torch`.
        shift: likewise.
        reciprocal: likewise.
        q: and what follows: as in `forward_by_torch`.
        k: likewise.
        v: likewise.
        mask: likewise.
        causal: likewise.
        scale: likewise.
        exp: likewise.
    """
    weights = _powers(_scores(q, k, mask, causal, scale), shift, exp) * reciprocal[..., None]
    wide = weights.dtype
    d_o = d_o.to(wide)
    delta = (d_o * o.to(wide)).sum(-1, keepdim=True)
    d_scores = weights * (d_o @ _shared(v, q).mT - delta) * scale
    d_q = d_scores @ _shared(k, q)
    by_head = (d_scores.mT @ q.to(wide), weights.mT @ d_o)
    shape = (k.shape[0], k.shape[1], -1, *k.shape[2:])
    d_k, d_v = (x.reshape(shape).sum(2) for x in by_head)
    return result_like(q).copy_(d_q), result_like(k).copy_(d_k), result_like(v).copy_(d_v)


def _shared(x: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Keys or values for every head of q."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.to(wide).repeat_interleave(q.shape[1] // x.shape[1], 1)


def _scores(
    q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, causal: bool, scale: float
) -> torch.Tensor:
    shared = _shared(k, q)
    scores = (q.to(shared.dtype) @ shared.mT) * scale
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    if causal:
        queries, keys = scores.shape[-2:]
        seen = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
        scores = scores.masked_fill(~seen, -math.inf)
    return scores


def _powers(scores: torch.Tensor, shift: torch.Tensor, exp: KernelFunction) -> torch.Tensor:
    term = exp(input_elements("x"), at_most_zero=True)
    shifted = scores - shift[..., None]
    (powers,) = evaluate([term], {"x": shifted}, shifted.shape, shifted.dtype)
    return torch.where(shifted == -math.inf, 0.0, powers)
