"""Programs on arrays: int64 where every intermediate provably fits, Python integers otherwise.

Whether an operation fits is decided from the largest operands that there are, on blocks of inputs,
before it is done: an array never overflows.  Products of more than 63 bits are shifted in two parts
and quotients computed by long division, so that only registers themselves need to fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import ApproximationError
from odp.approximations.fixed_point.program import FixedPointProgram, Step

__all__ = ["evaluate"]

Integers = NDArray[np.int64]

# Magnitudes stay below 2^62: there is a bit left for the half that rounds.
_WIDTH = 62
_BLOCK = 1 << 15


class _Overflow(Exception):
    """A register or an intermediate of this block may not fit in int64."""


def evaluate(program: FixedPointProgram, n: NDArray[Any]) -> NDArray[Any]:
    """The results for an array of inputs.

    Args:
        program: what to run.
        n: integers at the program's input scale, any shape and integer type.

    Returns:
        int64 of that shape; Python integers (dtype object) where a result needs more bits.

    Raises:
        ApproximationError: if the array is not of integers, or a divisor is zero.
    """
    if n.dtype.kind not in "iu" and not (n.dtype == object and _all_whole(n)):
        raise ApproximationError(
            f"a fixed-point program takes integers, not an array of {n.dtype}; call the program"
            " itself to round real inputs"
        )
    flat = n.ravel()
    blocks = [_block(program, flat[i : i + _BLOCK]) for i in range(0, flat.size, _BLOCK)]
    if not blocks:
        return np.zeros(n.shape, dtype=np.int64)
    wide = any(block.dtype == object for block in blocks)
    joined = np.concatenate([block.astype(object) for block in blocks] if wide else blocks)
    return joined.reshape(n.shape)


def _all_whole(n: NDArray[Any]) -> bool:
    return all(isinstance(value, (int, np.integer)) for value in n.flat)


def _block(program: FixedPointProgram, n: NDArray[Any]) -> NDArray[Any]:
    try:
        if n.dtype == object or _bits(n) > _WIDTH:
            raise _Overflow
        return _registers(program, n.astype(np.int64))
    except _Overflow:
        results = [program.integers(int(value)) for value in n]
        fits = all(abs(value) < 1 << _WIDTH for value in results)
        return np.array(results, dtype=np.int64 if fits else object)


def _bits(values: NDArray[Any]) -> int:
    """Bits of the largest magnitude."""
    return max(int(values.max()), -int(values.min())).bit_length()


def _registers(program: FixedPointProgram, n: Integers) -> Integers:
    values: list[Integers] = []
    bits: list[int] = []
    for step in program.steps:
        if step.op == "input":
            value = n
        elif step.op == "constant":
            if step.value.bit_length() > _WIDTH:
                raise _Overflow
            value = np.full((1,), step.value, dtype=np.int64)
        else:
            left, right = step.left, step.left if step.op == "round" else step.right
            value = _operation(step, values[left], values[right], bits[left], bits[right])
        values.append(value)
        bits.append(_bits(value))
    return np.broadcast_to(values[-1], n.shape)


def _operation(step: Step, a: Integers, b: Integers, a_bits: int, b_bits: int) -> Integers:
    if step.op == "mul":
        return _product(a, b, a_bits, b_bits, step.right_shift)
    if step.op == "div":
        return _quotient(step, a, b, a_bits, b_bits)
    a_width = a_bits + step.left_shift
    if a_width > _WIDTH or (step.op != "round" and b_bits + step.right_shift > _WIDTH):
        raise _Overflow
    left = a << step.left_shift
    if step.op == "round":
        return _shifted(left, a_width, step.right_shift)
    right = b << step.right_shift
    return left + right if step.op == "add" else left - right


def _shifted(value: Integers, bits: int, shift: int) -> Integers:
    """``round(value / 2^shift)``."""
    if shift == 0:
        return value
    if shift > bits + 1:
        return np.zeros_like(value)
    # ((v >> (shift - 1)) + 1) >> 1 needs no room for the half.
    return ((value >> (shift - 1)) + 1) >> 1


def _product(a: Integers, b: Integers, a_bits: int, b_bits: int, shift: int) -> Integers:
    """``round(a b / 2^shift)``."""
    if a_bits + b_bits <= _WIDTH:
        return _shifted(a * b, a_bits + b_bits, shift)
    if a_bits < b_bits:
        a, b, a_bits, b_bits = b, a, b_bits, a_bits
    # a = high 2^part + low: the low product is shifted by `part` first, rounding down, which the
    # floor of the whole does not see.
    part = min(shift - 1, _WIDTH - b_bits)
    if part <= 0 or a_bits - part + b_bits > _WIDTH:
        raise _Overflow
    high, low = a >> part, a & ((1 << part) - 1)
    floor = high * b + ((low * b) >> part)
    return _shifted(floor, _WIDTH, shift - part)


def _quotient(step: Step, a: Integers, b: Integers, a_bits: int, b_bits: int) -> Integers:
    """``round((a << left_shift) / (b << right_shift))``."""
    if (b == 0).any():
        raise ApproximationError("a divisor of the fixed-point program is zero")
    if b_bits + step.right_shift + 1 > _WIDTH:
        raise _Overflow
    divisor = b << step.right_shift
    d_bits = b_bits + step.right_shift
    # Twice the quotient, rounded down; then the half is added.
    left = step.left_shift + 1
    smallest = int(np.abs(divisor).min())
    if a_bits + left - (smallest.bit_length() - 1) > _WIDTH:
        raise _Overflow
    room = _WIDTH - a_bits
    first = min(left, max(0, room))
    quotient, rest = np.divmod(a << first, divisor)
    left -= first
    while left:
        digits = min(left, _WIDTH - d_bits)
        if digits <= 0:
            raise _Overflow
        more, rest = np.divmod(rest << digits, divisor)
        quotient = (quotient << digits) + more
        left -= digits
    return (quotient + 1) >> 1
