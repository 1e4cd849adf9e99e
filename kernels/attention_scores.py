"""What the kernels of attention share: tiles of tensors, scores, and powers of two of them.

Scores are kept in units of powers of two.  What is subtracted from a row before exp cancels in its
softmax, so it need not be the largest score: it is the next integer.  Then the powers of one block
are brought to the shift of another by an exponent alone, exactly; exp of the difference of two
maxima would add its error once for every block of keys.  And the shift joins the constant that
rounds a score to its whole part, so that scale, shift, clip and exp take 5 instructions and one for
each degree of the polynomial,

    s        = max(score, (shift - 120) / factor)
    total    = fma(s, factor, 1.5 * 2^23 - shift)             the whole part is in its low bits
    fraction = fma(s, factor, (1.5 * 2^23 - shift) - total)   from -1/2 to 1/2
    power    = polynomial(fraction), the low bits of `total` added to its exponent.

Scores beyond 2^24 have no fraction left in float32; beyond 2^26 powers can overflow, as in other
kernels that subtract the largest score in a fused multiply-add.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-untyped-calls=False
# mypy: disallow-incomplete-defs=False

from __future__ import annotations

import triton
import triton.language as tl

from odp.kernels.arithmetic import rounded, rounding_sum

__all__ = [
    "exact_power",
    "largest_of_rows",
    "load_mask",
    "load_tile",
    "next_integer",
    "power",
    "store_tile",
]

_LOG2_E = tl.constexpr(1.4426950408889634)
# The smallest normal float32.
_LOWEST = tl.constexpr(-126.0)
# What the float32 quotient of a clip is off by stays above that for scores up to 2^22.
_LOWEST_QUOTIENT = tl.constexpr(-120.0)


@triton.jit
def load_tile(
    pointer,
    rows,
    row_stride,
    end,
    CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    BOUNDED: tl.constexpr,  # noqa: N803
    WIDE: tl.constexpr,  # noqa: N803
):
    """Rows of a tensor with contiguous channels: [rows, BLOCK], 0 beyond `end` and CHANNELS.

    BOUNDED says whether rows may be beyond `end`; WIDE makes float32 of it.
    """
    channel = tl.arange(0, BLOCK)
    place = pointer + rows[:, None] * row_stride + channel[None, :]
    if BOUNDED and CHANNELS < BLOCK:
        tile = tl.load(place, mask=(rows < end)[:, None] & (channel < CHANNELS)[None, :], other=0.0)
    elif BOUNDED:
        tile = tl.load(place, mask=(rows < end)[:, None], other=0.0)
    elif CHANNELS < BLOCK:
        tile = tl.load(place, mask=(channel < CHANNELS)[None, :], other=0.0)
    else:
        tile = tl.load(place)
    return tile.to(tl.float32) if WIDE else tile


@triton.jit
def store_tile(
    pointer,
    rows,
    row_stride,
    end,
    value,
    CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """Write [rows, BLOCK] to the rows before `end` of a tensor of CHANNELS channels."""
    channel = tl.arange(0, BLOCK)
    place = pointer + rows[:, None] * row_stride + channel[None, :]
    inside = (rows < end)[:, None] & (channel < CHANNELS)[None, :]
    tl.store(place, value.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def load_mask(
    pointer,
    query,
    query_stride,
    queries,
    key,
    key_stride,
    keys,
    MASK: tl.constexpr,  # noqa: N803
    BOUNDED: tl.constexpr,  # noqa: N803
):
    """What is added to scores, in units of powers of two.

    `query` and `key` are indices that broadcast to a block.  MASK is ``keys`` where all queries
    have one mask, of which one row is read, and otherwise ``full``.  What is read for queries
    beyond the last, and for keys beyond the last if BOUNDED, is a number that nobody uses:
    an index costs one instruction for each row, and a predicate one or two for each score.
    """
    if BOUNDED:
        key = tl.minimum(key, keys - 1)
    # Offsets within a block fit into 32 bits, and take half of the registers of pointers.
    offset = key * key_stride
    if MASK != "keys":
        offset = offset + tl.minimum(query, queries - 1) * query_stride
    return tl.load(pointer + offset).to(tl.float32) * _LOG2_E


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def largest_of_rows(score, INTERPRETED: tl.constexpr):  # noqa: N803
    """The largest score of each row; NaN if one is NaN."""
    if INTERPRETED:
        # A reduction by a function of our own takes 50 us a score there.
        unknown = tl.max((score != score).to(tl.int32), 1) > 0
        return tl.where(unknown, float("nan"), tl.max(score, 1))
    return tl.reduce(score, 1, _larger)


@triton.jit
def next_integer(x):
    """An integer from x to x + 1; -inf stays."""
    return rounded(rounding_sum(x + 0.5))


@triton.jit
def exact_power(difference):
    """2^difference for an integer up to 0."""
    total = rounding_sum(tl.maximum(difference, _LOWEST))
    bits = (total.to(tl.int32, bitcast=True) << 23) + 0x3F800000
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def power(
    score,
    factor,
    inverse,
    shift,
    FUNCTION: tl.constexpr,  # noqa: N803
    REDUCED: tl.constexpr,  # noqa: N803
    SCALED: tl.constexpr,  # noqa: N803
    DIVISION: tl.constexpr,  # noqa: N803
):
    """2^(factor score - shift) for finite integers `shift` that are no less than factor score.

    `inverse` is that of the factor; with SCALED scores, both are in them already.  -inf gives
    2^-120 or less.  FUNCTION and REDUCED are of a `PowerOfTwo`.  What comes of NaN is any number:
    whoever asks takes care that the row has a reciprocal that is NaN.
    """
    if REDUCED:
        if SCALED:
            # Masks can be as large as floats are, so the shift comes first.
            exponent = tl.maximum(score - shift, _LOWEST)
            total = rounding_sum(exponent)
            fraction = exponent - rounded(total)
        else:
            offset = rounding_sum(-shift)
            lowest = (shift + _LOWEST_QUOTIENT) * inverse
            clipped = tl.maximum(score, lowest)
            total = tl.fma(clipped, factor, offset)
            fraction = tl.fma(clipped, factor, offset - total)
        # Added to the exponent, one instruction; a product would be two, and hold on to NaN.
        bits = FUNCTION(fraction, DIVISION).to(tl.int32, bitcast=True)
        bits += total.to(tl.int32, bitcast=True) << 23
        result = bits.to(tl.float32, bitcast=True)
    elif SCALED:
        result = FUNCTION(score - shift, DIVISION)
    else:
        result = FUNCTION(tl.fma(score, factor, -shift), DIVISION)
    return result
