"""Attention backward to queries; weights are computed again from the shift and reciprocal of a row.

With p = softmax(s), o = p v and the gradient d_o of o,

    d_v = p^T d_o,    d_p = d_o v^T,    d_s = p (d_p - delta),    delta = sum(p d_p) = sum(o d_o),
    d_q = scale d_s k,    d_k = scale d_s^T q,

whichever way p came about (Dao, arXiv 2307.08691, algorithm 2).  Two kernels, without atomic
additions, so that results repeat: this one goes through keys for a block of queries and leaves
delta; `attention_backward_keys` goes through the queries of all heads that share a block of keys.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-untyped-calls=False
# mypy: disallow-incomplete-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from odp.kernels.attention_scores import load_mask, load_tile, power, store_tile

__all__ = ["attention_queries_backward_kernel"]


@triton.jit
def attention_queries_backward_kernel(
    d_o_ptr,
    o_ptr,
    shift_ptr,
    reciprocal_ptr,
    delta_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    mask_ptr,
    d_q_ptr,
    queries,
    keys,
    factor,
    inverse,
    scale,
    d_o_batch_stride,
    d_o_head_stride,
    d_o_row_stride,
    o_batch_stride,
    o_head_stride,
    o_row_stride,
    q_batch_stride,
    q_head_stride,
    q_row_stride,
    k_batch_stride,
    k_head_stride,
    k_row_stride,
    v_batch_stride,
    v_head_stride,
    v_row_stride,
    d_q_batch_stride,
    d_q_head_stride,
    d_q_row_stride,
    mask_batch_stride,
    mask_head_stride,
    mask_query_stride,
    mask_key_stride,
    FUNCTION: tl.constexpr,  # noqa: N803
    REDUCED: tl.constexpr,  # noqa: N803
    DIVISION: tl.constexpr,  # noqa: N803
    GROUP: tl.constexpr,  # noqa: N803
    CAUSAL: tl.constexpr,  # noqa: N803
    MASK: tl.constexpr,  # noqa: N803
    WIDE: tl.constexpr,  # noqa: N803
    CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_QUERIES: tl.constexpr,  # noqa: N803
    BLOCK_KEYS: tl.constexpr,  # noqa: N803
):
    """`d_q` and `delta` for one block of queries of one head.

    Grid and operands are as in `attention_forward_kernel`; d_o, the gradient of o, is like o, and
    d_q like q.  delta is [batch, heads, queries] in float32 without gaps.
    """
    block = tl.num_programs(0) - 1 - tl.program_id(0) if CAUSAL else tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    start = block * BLOCK_QUERIES
    rows = tl.arange(0, BLOCK_QUERIES)
    left = queries - start
    first = start.to(tl.int64)

    d_o_ptr += batch * d_o_batch_stride + head * d_o_head_stride + first * d_o_row_stride
    o_ptr += batch * o_batch_stride + head * o_head_stride + first * o_row_stride
    q_ptr += batch * q_batch_stride + head * q_head_stride + first * q_row_stride
    k_ptr += batch * k_batch_stride + (head // GROUP) * k_head_stride
    v_ptr += batch * v_batch_stride + (head // GROUP) * v_head_stride
    d_q_ptr += batch * d_q_batch_stride + head * d_q_head_stride + first * d_q_row_stride
    if MASK != "none":
        mask_ptr += batch * mask_batch_stride + head * mask_head_stride + first * mask_query_stride
    q = load_tile(q_ptr, rows, q_row_stride, left, CHANNELS, BLOCK_CHANNELS, True, WIDE)
    d_o = load_tile(d_o_ptr, rows, d_o_row_stride, left, CHANNELS, BLOCK_CHANNELS, True, WIDE)
    o = load_tile(o_ptr, rows, o_row_stride, left, CHANNELS, BLOCK_CHANNELS, True, WIDE)
    delta = tl.sum(o.to(tl.float32) * d_o.to(tl.float32), 1)
    place = (batch * tl.num_programs(1) + head) * queries + first + rows
    shift = tl.load(shift_ptr + place, mask=rows < left, other=0.0)
    reciprocal = tl.load(reciprocal_ptr + place, mask=rows < left, other=0.0)
    tl.store(delta_ptr + place, delta, mask=rows < left)

    if CAUSAL:
        diagonal = start + keys - queries
        seen = min(keys, max(0, diagonal + BLOCK_QUERIES))
        full = min(keys, max(0, diagonal + 1)) // BLOCK_KEYS * BLOCK_KEYS
    else:
        diagonal = 0
        seen = keys
        full = keys // BLOCK_KEYS * BLOCK_KEYS

    d_q = tl.zeros([BLOCK_QUERIES, BLOCK_CHANNELS], tl.float32)
    for bounded in tl.static_range(2):
        d_q = _through_keys(
            d_q,
            q,
            d_o,
            shift,
            reciprocal,
            delta,
            k_ptr,
            v_ptr,
            mask_ptr,
            rows,
            left,
            diagonal,
            full if bounded else 0,
            seen if bounded else full,
            keys,
            factor,
            inverse,
            k_row_stride,
            v_row_stride,
            mask_query_stride,
            mask_key_stride,
            FUNCTION,
            REDUCED,
            DIVISION,
            CAUSAL,
            MASK,
            WIDE,
            CHANNELS,
            BLOCK_CHANNELS,
            BLOCK_KEYS,
            bounded,
        )
    store_tile(d_q_ptr, rows, d_q_row_stride, left, d_q * scale, CHANNELS, BLOCK_CHANNELS)


@triton.jit
def _through_keys(
    d_q,
    q,
    d_o,
    shift,
    reciprocal,
    delta,
    k_ptr,
    v_ptr,
    mask_ptr,
    rows,
    left,
    diagonal,
    begin,
    end,
    keys,
    factor,
    inverse,
    k_row_stride,
    v_row_stride,
    mask_query_stride,
    mask_key_stride,
    FUNCTION: tl.constexpr,  # noqa: N803
    REDUCED: tl.constexpr,  # noqa: N803
    DIVISION: tl.constexpr,  # noqa: N803
    CAUSAL: tl.constexpr,  # noqa: N803
    MASK: tl.constexpr,  # noqa: N803
    WIDE: tl.constexpr,  # noqa: N803
    CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_KEYS: tl.constexpr,  # noqa: N803
    BOUNDED: tl.constexpr,  # noqa: N803
):
    """Add the keys from `begin` to `end`; BOUNDED: some of them are hidden or beyond the last."""
    columns = tl.arange(0, BLOCK_KEYS)
    for start in range(begin, end, BLOCK_KEYS):
        first = tl.full([], start, tl.int64)
        beyond = keys - start
        k = load_tile(
            k_ptr + first * k_row_stride,
            columns,
            k_row_stride,
            beyond,
            CHANNELS,
            BLOCK_CHANNELS,
            BOUNDED,
            WIDE,
        )
        v = load_tile(
            v_ptr + first * v_row_stride,
            columns,
            v_row_stride,
            beyond,
            CHANNELS,
            BLOCK_CHANNELS,
            BOUNDED,
            WIDE,
        )
        score = tl.dot(q, tl.trans(k), input_precision="ieee")
        d_p = tl.dot(d_o, tl.trans(v), input_precision="ieee")
        if MASK != "none":
            score = score * factor + load_mask(
                mask_ptr + first * mask_key_stride,
                rows[:, None],
                mask_query_stride,
                left,
                columns[None, :],
                mask_key_stride,
                beyond,
                MASK,
                BOUNDED,
            )
        if BOUNDED:
            visible = (columns < beyond)[None, :]
            if CAUSAL:
                visible = visible & (rows[:, None] + (diagonal - start) >= columns[None, :])
            score = tl.where(visible, score, float("-inf"))
        p = reciprocal[:, None] * power(
            score, factor, inverse, shift[:, None], FUNCTION, REDUCED, MASK != "none", DIVISION
        )
        d_s = p * (d_p - delta[:, None])
        d_q = tl.dot(d_s.to(k.dtype), k, d_q, input_precision="ieee")
    return d_q
