"""Rotary position embeddings of queries and keys in one kernel (Su et al., arXiv 2104.09864).

One program rotates all heads of one token, so that sine and cosine are read once for all of them.
They come as tables: an angle is a position times a constant, and has no business in a kernel.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-untyped-calls=False
# mypy: disallow-incomplete-defs=False

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["rope_kernel"]


@triton.jit
def rope_kernel(
    q_ptr,
    k_ptr,
    cos_ptr,
    sin_ptr,
    rotated_q_ptr,
    rotated_k_ptr,
    q_heads,
    k_heads,
    tokens,
    q_batch_stride,
    q_head_stride,
    q_token_stride,
    k_batch_stride,
    k_head_stride,
    k_token_stride,
    rotated_q_batch_stride,
    rotated_q_head_stride,
    rotated_q_token_stride,
    rotated_k_batch_stride,
    rotated_k_head_stride,
    rotated_k_token_stride,
    table_batch_stride,
    table_token_stride,
    HALF: tl.constexpr,  # noqa: N803
    REST: tl.constexpr,  # noqa: N803
    INTERLEAVED: tl.constexpr,  # noqa: N803
    BACKWARD: tl.constexpr,  # noqa: N803
    HEADS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    REST_BLOCK: tl.constexpr,  # noqa: N803
):
    """Rotate pairs of channels by angles whose cosines and sines are given.

    HALF pairs are rotated: (i, i + HALF), or (2i, 2i + 1) if INTERLEAVED; REST channels behind them
    are copied.  HEADS heads are a block.  BACKWARD multiplies by the transposed matrix instead.
    """
    batch = (tl.program_id(0) // tokens).to(tl.int64)
    token = (tl.program_id(0) % tokens).to(tl.int64)
    pair = tl.arange(0, BLOCK)
    first = 2 * pair if INTERLEAVED else pair
    second = first + 1 if INTERLEAVED else pair + HALF
    mask = pair < HALF
    table = batch * table_batch_stride + token * table_token_stride
    cos_1 = tl.load(cos_ptr + table + first, mask=mask, other=0.0).to(tl.float32)[None, :]
    cos_2 = tl.load(cos_ptr + table + second, mask=mask, other=0.0).to(tl.float32)[None, :]
    sin_1 = tl.load(sin_ptr + table + first, mask=mask, other=0.0).to(tl.float32)[None, :]
    sin_2 = tl.load(sin_ptr + table + second, mask=mask, other=0.0).to(tl.float32)[None, :]
    if BACKWARD:
        up, down = sin_2, -sin_1
    else:
        up, down = -sin_1, sin_2
    _rotate_heads(
        q_ptr + batch * q_batch_stride + token * q_token_stride,
        rotated_q_ptr + batch * rotated_q_batch_stride + token * rotated_q_token_stride,
        q_head_stride,
        rotated_q_head_stride,
        q_heads,
        cos_1,
        cos_2,
        up,
        down,
        first,
        second,
        mask,
        HALF,
        REST,
        HEADS,
        REST_BLOCK,
    )
    _rotate_heads(
        k_ptr + batch * k_batch_stride + token * k_token_stride,
        rotated_k_ptr + batch * rotated_k_batch_stride + token * rotated_k_token_stride,
        k_head_stride,
        rotated_k_head_stride,
        k_heads,
        cos_1,
        cos_2,
        up,
        down,
        first,
        second,
        mask,
        HALF,
        REST,
        HEADS,
        REST_BLOCK,
    )


@triton.jit
def _rotate_heads(
    x_ptr,
    y_ptr,
    x_stride,
    y_stride,
    heads,
    cos_1,
    cos_2,
    up,
    down,
    first,
    second,
    mask,
    HALF: tl.constexpr,  # noqa: N803
    REST: tl.constexpr,  # noqa: N803
    HEADS: tl.constexpr,  # noqa: N803
    REST_BLOCK: tl.constexpr,  # noqa: N803
):
    for start in range(0, heads, HEADS):
        head = (start + tl.arange(0, HEADS))[:, None]
        here = (head < heads) & mask[None, :]
        x = x_ptr + head * x_stride
        y = y_ptr + head * y_stride
        a = tl.load(x + first[None, :], mask=here, other=0.0).to(tl.float32)
        b = tl.load(x + second[None, :], mask=here, other=0.0).to(tl.float32)
        kind = y_ptr.dtype.element_ty
        tl.store(y + first[None, :], (a * cos_1 + b * up).to(kind), mask=here)
        tl.store(y + second[None, :], (b * cos_2 + a * down).to(kind), mask=here)
        if REST:
            channel = tl.arange(0, REST_BLOCK)[None, :]
            rest = (head < heads) & (channel < REST)
            copied = tl.load(x + 2 * HALF + channel, mask=rest, other=0.0)
            tl.store(y + 2 * HALF + channel, copied, mask=rest)
