"""Device functions that generated kernels call."""

# Triton reads annotations of device functions as types of its own.
# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-untyped-calls=False
# mypy: disallow-incomplete-defs=False

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice

__all__ = [
    "divide",
    "exponent",
    "half_exponent",
    "half_significand",
    "reciprocal",
    "rounded",
    "rounding_sum",
    "scaled",
    "scaled_by_rounded",
    "significand",
]

# 1.5 * 2^23: added to a float32 of at most 2^22 it leaves the nearest integer, ties to even, in the
# low bits of the significand.
_ROUNDING = tl.constexpr(12582912.0)


@triton.jit
def divide(a, b, DIVISION: tl.constexpr):  # noqa: N803
    """`a / b`: by an approximate reciprocal, by Newton's steps without any, or as Triton does.

    `fast` multiplies by the reciprocal of the special-function unit (2 ulp; 0 for |b| above 2^126);
    `newton` takes the reciprocal from multiplications alone.
    """
    if DIVISION == "fast":
        return libdevice.fast_dividef(a, b)
    if DIVISION == "newton":
        return a * reciprocal(b)
    return a / b


@triton.jit
def reciprocal(b):
    """`1 / b` without a special function, for b between 2^-125 and 2^125, either sign.

    The difference of bit patterns is off by at most 12 %, three of Newton's steps make that 5e-8.
    """
    seed = (0x7EF311C7 - b.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
    seed = seed * (2.0 - b * seed)
    seed = seed * (2.0 - b * seed)
    return seed * (2.0 - b * seed)


@triton.jit
def rounding_sum(x):
    """What `rounded` and `scaled_by_rounded` take the nearest integer from."""
    return x + _ROUNDING


@triton.jit
def rounded(total):
    """The integer nearest to x, of `rounding_sum(x)`."""
    return total - _ROUNDING


@triton.jit
def scaled_by_rounded(a, total):
    """`a * 2^round(x)`, of `rounding_sum(x)`, whose low bits make the power: no conversion.

    By a product: bits that are added to a NaN of a GPU (0x7FFFFFFF) leave the largest float.
    """
    bits = (total.to(tl.int32, bitcast=True) << 23) + 0x3F800000
    return a * bits.to(tl.float32, bitcast=True)


@triton.jit
def scaled(a, power):
    """`a * 2^power` for an integer power between -126 and 127."""
    return a * ((power.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def half_exponent(a):
    """The integer e with a / 4^e in [1, 4), for a positive normal `a`."""
    return (((a.to(tl.int32, bitcast=True) >> 23) - 127) >> 1).to(tl.float32)


@triton.jit
def half_significand(a):
    """`a / 4^e` in [1, 4), for a positive normal `a`; NaN for infinity and NaN."""
    bits = a.to(tl.int32, bitcast=True)
    power = ((bits >> 23) - 127) >> 1
    return (bits - (power << 24)).to(tl.float32, bitcast=True) + (a - a)


@triton.jit
def exponent(a):
    """The integer e with a / 2^e in [sqrt(1/2), sqrt(2)), for a positive normal `a`."""
    # 0x3F3504F3 is sqrt(1/2).
    return ((a.to(tl.int32, bitcast=True) - 0x3F3504F3) >> 23).to(tl.float32)


@triton.jit
def significand(a):
    """`a / 2^e` in [sqrt(1/2), sqrt(2)), for a positive normal `a`; NaN for infinity and NaN."""
    bits = a.to(tl.int32, bitcast=True)
    return (bits - (((bits - 0x3F3504F3) >> 23) << 23)).to(tl.float32, bitcast=True) + (a - a)
