"""Attention backward to keys and values: see `attention_backward_queries` for the formulas."""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-untyped-calls=False
# mypy: disallow-incomplete-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from odp.kernels.attention_scores import load_mask, load_tile, power, store_tile

__all__ = ["attention_keys_backward_kernel"]


@triton.jit
def attention_keys_backward_kernel(
    d_o_ptr,
    shift_ptr,
    reciprocal_ptr,
    delta_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    mask_ptr,
    d_k_ptr,
    d_v_ptr,
    queries,
    keys,
    factor,
    inverse,
    scale,
    d_o_batch_stride,
    d_o_head_stride,
    d_o_row_stride,
    q_batch_stride,
    q_head_stride,
    q_row_stride,
    k_batch_stride,
    k_head_stride,
    k_row_stride,
    v_batch_stride,
    v_head_stride,
    v_row_stride,
    d_k_batch_stride,
    d_k_head_stride,
    d_k_row_stride,
    d_v_batch_stride,
    d_v_head_stride,
    d_v_row_stride,
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
    """`d_k` and `d_v` for one block of keys of one head of keys.

    The grid is blocks of keys, heads of keys, batch; operands are as in
    `attention_queries_backward_kernel`, whose delta is read.  d_k is like k, d_v like v.
    """
    # The first keys are seen by most queries, so that their programs begin first.
    block = tl.program_id(0)
    key_head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    start = block * BLOCK_KEYS
    rows = tl.arange(0, BLOCK_KEYS)
    left = keys - start
    first = start.to(tl.int64)

    k_ptr += batch * k_batch_stride + key_head * k_head_stride + first * k_row_stride
    v_ptr += batch * v_batch_stride + key_head * v_head_stride + first * v_row_stride
    k = load_tile(k_ptr, rows, k_row_stride, left, CHANNELS, BLOCK_CHANNELS, True, WIDE)
    v = load_tile(v_ptr, rows, v_row_stride, left, CHANNELS, BLOCK_CHANNELS, True, WIDE)

    # Queries before `seen` see none of the block, those from `full` on see all of it.
    if CAUSAL:
        diagonal = start + queries - keys
        seen = min(queries, max(0, diagonal)) // BLOCK_QUERIES * BLOCK_QUERIES
        full = tl.cdiv(max(0, diagonal + BLOCK_KEYS - 1), BLOCK_QUERIES) * BLOCK_QUERIES
        full = max(seen, min(full, queries))
    else:
        diagonal = 0
        seen = 0
        full = 0

    d_k = tl.zeros([BLOCK_KEYS, BLOCK_CHANNELS], tl.float32)
    d_v = tl.zeros([BLOCK_KEYS, BLOCK_CHANNELS], tl.float32)
    # What does not change is computed again for each head: held in registers, it would spill.
    for member in tl.range(0, GROUP, disable_licm=True):
        head = key_head * GROUP + member
        row = (batch * tl.num_programs(1) * GROUP + head) * queries
        head_d_o_ptr = d_o_ptr + batch * d_o_batch_stride + head * d_o_head_stride
        head_q_ptr = q_ptr + batch * q_batch_stride + head * q_head_stride
        head_mask_ptr = mask_ptr
        if MASK != "none":
            head_mask_ptr += batch * mask_batch_stride + head * mask_head_stride
            head_mask_ptr += first * mask_key_stride
        for hidden in tl.static_range(1, -1, -1):
            if CAUSAL or not hidden:
                d_k, d_v = _through_queries(
                    d_k,
                    d_v,
                    k,
                    v,
                    head_d_o_ptr,
                    shift_ptr + row,
                    reciprocal_ptr + row,
                    delta_ptr + row,
                    head_q_ptr,
                    head_mask_ptr,
                    rows,
                    left,
                    diagonal,
                    seen if hidden else full,
                    full if hidden else queries,
                    queries,
                    factor,
                    inverse,
                    d_o_row_stride,
                    q_row_stride,
                    mask_query_stride,
                    mask_key_stride,
                    FUNCTION,
                    REDUCED,
                    DIVISION,
                    MASK,
                    WIDE,
                    CHANNELS,
                    BLOCK_CHANNELS,
                    BLOCK_QUERIES,
                    hidden,
                )
    d_k_ptr += batch * d_k_batch_stride + key_head * d_k_head_stride + first * d_k_row_stride
    d_v_ptr += batch * d_v_batch_stride + key_head * d_v_head_stride + first * d_v_row_stride
    store_tile(d_k_ptr, rows, d_k_row_stride, left, d_k * scale, CHANNELS, BLOCK_CHANNELS)
    store_tile(d_v_ptr, rows, d_v_row_stride, left, d_v, CHANNELS, BLOCK_CHANNELS)


@triton.jit
def _through_queries(
    d_k,
    d_v,
    k,
    v,
    d_o_ptr,
    shift_ptr,
    reciprocal_ptr,
    delta_ptr,
    q_ptr,
    mask_ptr,
    rows,
    left,
    diagonal,
    begin,
    end,
    queries,
    factor,
    inverse,
    d_o_row_stride,
    q_row_stride,
    mask_query_stride,
    mask_key_stride,
    FUNCTION: tl.constexpr,  # noqa: N803
    REDUCED: tl.constexpr,  # noqa: N803
    DIVISION: tl.constexpr,  # noqa: N803
    MASK: tl.constexpr,  # noqa: N803
    WIDE: tl.constexpr,  # noqa: N803
    CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_QUERIES: tl.constexpr,  # noqa: N803
    HIDDEN: tl.constexpr,  # noqa: N803
):
    """Add the queries from `begin` to `end`; HIDDEN: some keys of the block are hidden from some.

    Blocks are transposed: a row is a key.  Of queries beyond the last the reciprocal is 0, and so
    is all that they would add; keys beyond the last have rows of their own, which nobody reads.
    """
    columns = tl.arange(0, BLOCK_QUERIES)
    for start in range(begin, end, BLOCK_QUERIES):
        first = tl.full([], start, tl.int64)
        beyond = queries - start
        q = load_tile(
            q_ptr + first * q_row_stride,
            columns,
            q_row_stride,
            beyond,
            CHANNELS,
            BLOCK_CHANNELS,
            True,
            WIDE,
        )
        d_o = load_tile(
            d_o_ptr + first * d_o_row_stride,
            columns,
            d_o_row_stride,
            beyond,
            CHANNELS,
            BLOCK_CHANNELS,
            True,
            WIDE,
        )
        shift = tl.load(shift_ptr + first + columns, mask=columns < beyond, other=0.0)
        reciprocal = tl.load(reciprocal_ptr + first + columns, mask=columns < beyond, other=0.0)
        delta = tl.load(delta_ptr + first + columns, mask=columns < beyond, other=0.0)
        score = tl.dot(k, tl.trans(q), input_precision="ieee")
        d_p = tl.dot(v, tl.trans(d_o), input_precision="ieee")
        if MASK != "none":
            score = score * factor + load_mask(
                mask_ptr + first * mask_query_stride,
                columns[None, :],
                mask_query_stride,
                beyond,
                rows[:, None],
                mask_key_stride,
                left,
                MASK,
                True,
            )
        if HIDDEN:
            visible = columns[None, :] + (start - diagonal) >= rows[:, None]
            score = tl.where(visible, score, float("-inf"))
        p = reciprocal[None, :] * power(
            score, factor, inverse, shift[None, :], FUNCTION, REDUCED, MASK != "none", DIVISION
        )
        d_v = tl.dot(p.to(d_o.dtype), d_o, d_v, input_precision="ieee")
        d_s = p * (d_p - delta[None, :])
        d_k = tl.dot(d_s.to(q.dtype), q, d_k, input_precision="ieee")
    return d_k, d_v
