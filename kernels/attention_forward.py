"""Attention forward, without the matrix of weights in memory (Dao, arXiv 2307.08691).

One program has one block of queries of one head and goes through the keys that they see, with a
running sum and a shift that only rises.  For the backward pass a row leaves its shift and the
reciprocal of its sum, not the logarithm of the sum: there is no logarithm in any kernel here, and
the backward kernels need no division.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-untyped-calls=False
# mypy: disallow-incomplete-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from odp.kernels.arithmetic import divide
from odp.kernels.attention_scores import (
    exact_power,
    largest_of_rows,
    load_mask,
    load_tile,
    next_integer,
    power,
    store_tile,
)

__all__ = ["attention_forward_kernel"]


@triton.jit
def attention_forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    mask_ptr,
    o_ptr,
    shift_ptr,
    reciprocal_ptr,
    queries,
    keys,
    factor,
    inverse,
    q_batch_stride,
    q_head_stride,
    q_row_stride,
    k_batch_stride,
    k_head_stride,
    k_row_stride,
    v_batch_stride,
    v_head_stride,
    v_row_stride,
    o_batch_stride,
    o_head_stride,
    o_row_stride,
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
    INTERPRETED: tl.constexpr,  # noqa: N803
    CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_QUERIES: tl.constexpr,  # noqa: N803
    BLOCK_KEYS: tl.constexpr,  # noqa: N803
):
    """`o = softmax(scale q k^T + mask) v` for one block of queries of one head.

    The grid is blocks of queries, heads, batch.  Tensors have any strides but 1 along channels:
    q and o [batch, heads, queries, CHANNELS], k and v [batch, heads / GROUP, keys, CHANNELS], of
    bfloat16, float16 or float32; the mask [batch, heads, queries, keys] has strides of 0 where it
    is broadcast, or is None.  Written for the backward pass are, [batch, heads, queries] in float32
    without gaps: shift, an integer of at least the largest score in units of powers of two, and
    reciprocal, that of the sum of powers; both are 0 for a row that sees no key, and the reciprocal
    is NaN where a score is NaN or the largest is infinite, as in every softmax.

    factor is scale log2(e), inverse is 1 / factor; scale is positive.  FUNCTION and REDUCED are of
    a `PowerOfTwo`; DIVISION see `odp.kernels.arithmetic.divide`.  CAUSAL: query i sees keys up to
    i + keys - queries.  MASK: ``none``, ``keys`` (one row for all queries) or ``full``.  WIDE:
    products take float32, for bfloat16 if INTERPRETED, where there is none.  BLOCK_CHANNELS is a
    power of two of at least CHANNELS and 16.
    """
    # The last queries see most keys, so that their programs begin first.
    block = tl.num_programs(0) - 1 - tl.program_id(0) if CAUSAL else tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    start = block * BLOCK_QUERIES
    rows = tl.arange(0, BLOCK_QUERIES)
    left = queries - start
    first = start.to(tl.int64)

    q_ptr += batch * q_batch_stride + head * q_head_stride + first * q_row_stride
    k_ptr += batch * k_batch_stride + (head // GROUP) * k_head_stride
    v_ptr += batch * v_batch_stride + (head // GROUP) * v_head_stride
    o_ptr += batch * o_batch_stride + head * o_head_stride + first * o_row_stride
    if MASK != "none":
        mask_ptr += batch * mask_batch_stride + head * mask_head_stride + first * mask_query_stride
    q = load_tile(q_ptr, rows, q_row_stride, left, CHANNELS, BLOCK_CHANNELS, True, WIDE)

    # Keys up to `full` are seen by every row of the block, keys from `seen` on by none.
    if CAUSAL:
        diagonal = start + keys - queries
        seen = min(keys, max(0, diagonal + BLOCK_QUERIES))
        full = min(keys, max(0, diagonal + 1)) // BLOCK_KEYS * BLOCK_KEYS
    else:
        diagonal = 0
        seen = keys
        full = keys // BLOCK_KEYS * BLOCK_KEYS

    total = tl.zeros([BLOCK_QUERIES], tl.float32)
    shift = tl.full([BLOCK_QUERIES], float("-inf"), tl.float32)
    sums = tl.zeros([BLOCK_QUERIES, BLOCK_CHANNELS], tl.float32)
    for bounded in tl.static_range(2):
        sums, total, shift = _through_keys(
            sums,
            total,
            shift,
            q,
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
            INTERPRETED,
            CHANNELS,
            BLOCK_CHANNELS,
            BLOCK_KEYS,
            bounded,
        )

    unseen = shift == float("-inf")
    one = tl.full([BLOCK_QUERIES], 1.0, tl.float32)
    reciprocal = divide(one, tl.where(unseen, 1.0, total), DIVISION)
    shift = tl.where(unseen, 0.0, shift)
    # A score that is no number makes the shift of its row NaN, or infinite, and now its reciprocal.
    reciprocal = tl.where(unseen, 0.0, reciprocal) + (shift - shift)
    store_tile(
        o_ptr, rows, o_row_stride, left, sums * reciprocal[:, None], CHANNELS, BLOCK_CHANNELS
    )
    place = (batch * tl.num_programs(1) + head) * queries + first + rows
    tl.store(shift_ptr + place, shift, mask=rows < left)
    tl.store(reciprocal_ptr + place, reciprocal, mask=rows < left)


@triton.jit
def _through_keys(
    sums,
    total,
    shift,
    q,
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
    INTERPRETED: tl.constexpr,  # noqa: N803
    CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_KEYS: tl.constexpr,  # noqa: N803
    BOUNDED: tl.constexpr,  # noqa: N803
):
    """Add the keys from `begin` to `end`; BOUNDED: some of them are hidden or beyond the last."""
    columns = tl.arange(0, BLOCK_KEYS)
    for start in range(begin, end, BLOCK_KEYS):
        first = tl.full([], start, tl.int64)
        k = load_tile(
            k_ptr + first * k_row_stride,
            columns,
            k_row_stride,
            keys - start,
            CHANNELS,
            BLOCK_CHANNELS,
            BOUNDED,
            WIDE,
        )
        score = tl.dot(q, tl.trans(k), input_precision="ieee")
        if MASK != "none":
            score = score * factor + load_mask(
                mask_ptr + first * mask_key_stride,
                rows[:, None],
                mask_query_stride,
                left,
                columns[None, :],
                mask_key_stride,
                keys - start,
                MASK,
                BOUNDED,
            )
        if BOUNDED:
            visible = (columns < keys - start)[None, :]
            if CAUSAL:
                visible = visible & (rows[:, None] + (diagonal - start) >= columns[None, :])
            score = tl.where(visible, score, float("-inf"))
        largest = largest_of_rows(score, INTERPRETED)
        if MASK == "none":
            largest = largest * factor
        higher = tl.maximum(shift, next_integer(largest), propagate_nan=tl.PropagateNan.ALL)
        # Of a row that has seen nothing, -inf - (-inf) would be NaN.
        finite = tl.where(higher == float("-inf"), 0.0, higher)
        correction = exact_power(shift - finite)
        powers = power(
            score,
            factor,
            inverse,
            finite[:, None],
            FUNCTION,
            REDUCED,
            MASK != "none",
            DIVISION,
        )
        total = total * correction + tl.sum(powers, 1)
        v = load_tile(
            v_ptr + first * v_row_stride,
            columns,
            v_row_stride,
            keys - start,
            CHANNELS,
            BLOCK_CHANNELS,
            BOUNDED,
            WIDE,
        )
        sums = tl.dot(powers.to(v.dtype), v, sums * correction[:, None], input_precision="ieee")
        shift = higher
    return sums, total, shift
