"""Square roots and reciprocals as EZKL computes them: claimed by the prover, in float64.

The prover claims an integer y, and the circuit checks that neither neighbour is nearer, by
|y^2 - x 2^l| for a square root and |y x - 2^2k| for a reciprocal, where l and k are the labels of
the operands.  The result keeps the label, which at scale 0 EZKL divides away again: what comes out
is
round(round(sqrt(x 2^l)) / 2^l) and round(round(2^2k / x) / 2^k).

The claim is worked out in float64.  Where that is not exact, it can be the neighbour of what the
circuit accepts, and there is no proof: measured at x = y^2 + y with y = 2^28 - 3.  Within the
following bits it cannot happen, because the value is further from half an integer than float64
rounds: 1/(8 y) for a root, 1/(2 x) for a reciprocal, against 2^-53 of the value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RECIPROCAL_LABEL", "ROOT_BITS", "reciprocals", "roots"]

Array = NDArray[Any]

ROOT_BITS = 25
"""Bits of a claimed square root."""

RECIPROCAL_LABEL = 26
"""The largest label of an operand of a reciprocal: operand and quotient share so many bits."""

# What EZKL adds to a zero before it divides by it: the epsilon of float64.
_ZERO_BITS = 52


def roots(integers: Array, label: int) -> Array:
    """The claimed square roots of ``x * 2**label``, to nearest; 0 of negative ones, as in EZKL.

    Args:
        integers: Python integers.
        label: of the operand.
    """

    def root(x: int) -> int:
        whole = max(x, 0) << label
        below = math.isqrt(whole)
        return below + (whole - below * below > below)

    return np.asarray(np.frompyfunc(root, 1, 1)(integers), object)


def reciprocals(integers: Array, label: int) -> Array:
    """The claimed reciprocals ``2**(2 * label) / x``, to nearest; 2**(label + 52) of zero.

    Args:
        integers: Python integers.
        label: of the operand.
    """

    def reciprocal(x: int) -> int:
        if x == 0:
            return 1 << (label + _ZERO_BITS)
        size = ((2 << (2 * label)) + abs(x)) // (2 * abs(x))
        return size if x > 0 else -size

    return np.asarray(np.frompyfunc(reciprocal, 1, 1)(integers), object)
