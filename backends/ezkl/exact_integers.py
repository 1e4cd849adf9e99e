"""Arrays of exact integers: int64 while they are short, Python integers beyond.

Nearly all tensors of a circuit are short.  A SwiGLU block of 8 x 576 x 1536 takes 0.17 s in place
of the 0.32 s of Python integers alone, whose products of matrices were of float64 already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.backends.ezkl.circuit import Node, apply

__all__ = ["bits_of", "exact", "rescaled", "rounded_to_float32", "shifted", "whole_numbers"]

Array = NDArray[Any]

_MANTISSA = 24
# One bit of int64 is the sign, and one is left for the sum of two.
_INT64_BITS, _FLOAT_BITS = 62, 53


def exact(node: Node, operands: Sequence[Array]) -> Array:
    """What an operation makes of exact integers, exactly.

    Args:
        node: the operation.
        operands: int64 or Python integers.

    Returns:
        int64 if no number on the way has more than 62 bits, whatever the signs; Python integers
        else.
    """
    bits = [bits_of(operand) for operand in operands]
    grown = max(bits, default=0)
    if node.kind in ("mul", "matmul"):
        grown = sum(bits)
    elif node.kind in ("add", "sub"):
        grown += 1
    if node.kind == "matmul":
        grown += operands[0].shape[-1].bit_length()
    elif node.kind == "sum":
        terms = math.prod(operands[0].shape[axis] for axis in node.attributes["axes"])
        grown += terms.bit_length()
    if grown <= _FLOAT_BITS and node.kind == "matmul":
        # Of float64, because numpy has no fast product of integers.
        floats = [np.asarray(operand, np.float64) for operand in operands]
        return np.asarray(apply(node.kind, floats, node.attributes).astype(np.int64))
    if grown <= _INT64_BITS and node.kind != "matmul":
        short = [np.asarray(operand, np.int64) for operand in operands]
        return np.asarray(apply(node.kind, short, node.attributes))
    return np.asarray(
        apply(node.kind, [np.asarray(operand, object) for operand in operands], node.attributes),
        object,
    )


def bits_of(integers: Array) -> int:
    """Of the largest one, without its sign; 0 of none."""
    return int(np.asarray(np.abs(integers)).max(initial=0)).bit_length()


def shifted(integers: Array, shift: int) -> Array:
    """``integers * 2**shift``, int64 where it fits."""
    if bits_of(integers) + shift <= _INT64_BITS:
        return np.asarray(np.asarray(integers, np.int64) << shift)
    return np.asarray(np.asarray(integers, object) * (1 << shift), object)


def rescaled(integers: Array, k: int) -> Array:
    """Integers divided by ``2**k``, half away from zero, as EZKL's witness has it.

    EZKL divides in float64, so an integer of more than 53 bits is rounded to that first.  (Its
    circuit would accept either neighbour.)
    """
    if integers.dtype != object:
        quotients = np.ldexp(integers.astype(np.float64), -k)
        return np.copysign(np.floor(np.abs(quotients) + 0.5), quotients).astype(np.int64)

    def divided(x: int) -> int:
        quotient = math.ldexp(float(x), -k)
        return int(math.copysign(math.floor(abs(quotient) + 0.5), quotient))

    return np.asarray(np.frompyfunc(divided, 1, 1)(integers), object)


def whole_numbers(array: Array) -> Array:
    """Whole numbers as int64, where all fit, or as Python integers."""
    if np.abs(array).max(initial=0.0) < 2.0**62:
        return np.asarray(array).astype(np.int64)
    return np.asarray(np.frompyfunc(int, 1, 1)(array), object)


def rounded_to_float32(value: Array, scale: int, nudge: int = 0) -> Array:
    """``value * 2**scale`` rounded to integers that float32 holds exactly.

    `nudge` moves them by units of their last bit.
    """
    mantissa, exponent = np.frexp(value)
    length = exponent + scale
    bits = np.clip(length, 0, _MANTISSA)
    whole = np.rint(np.ldexp(mantissa, bits)) - nudge * np.sign(value)
    # Below half a unit there is nothing; above 24 bits zeros follow.
    zeros = np.maximum(length - bits, 0)
    whole = whole_numbers(np.where(length >= 0, whole, 0.0))
    if not zeros.any():
        return whole
    shifts = np.asarray(np.frompyfunc(lambda z: 1 << int(z), 1, 1)(zeros), object)
    return np.asarray(whole.astype(object) * shifts, object)
