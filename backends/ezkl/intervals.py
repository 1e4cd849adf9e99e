"""What the ranges of inputs and checked tensors say about all others, whatever the input.

A tensor whose interval lies within the range that it was calibrated for cannot leave it, so its
scale is safe for every input whose other tensors keep theirs, and not only for the calibration
data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.backends.ezkl.circuit import Circuit, Node, apply

__all__ = ["implied_ranges", "interval"]

Array = NDArray[np.float64]
Bounds = tuple[Array, Array]

# Bounds are computed in float64 and meant for real numbers.
_ROUNDING = 1e-9


def implied_ranges(circuit: Circuit, limits: Sequence[float]) -> list[bool]:
    """For each node whether its range follows from those of the nodes before it.

    Args:
        circuit: without divisions.
        limits: for each node log2 of the largest absolute value that it may have; each is assumed
            to be kept by what comes before a node, which the check of an input makes sure of.
    """
    bounds: list[Bounds] = []
    implied = []
    for node, limit in zip(circuit.nodes, limits, strict=True):
        most = 2.0**limit
        if node.value is not None:
            bounds.append((node.value, node.value))
            implied.append(True)
            continue
        if node.kind == "input":
            bounds.append((np.full(node.shape, -most), np.full(node.shape, most)))
            implied.append(False)
            continue
        low, high = interval(node, [bounds[i] for i in node.inputs])
        implied.append(bool(max(-low.min(initial=0.0), high.max(initial=0.0)) <= most))
        bounds.append((np.maximum(low, -most), np.minimum(high, most)))
    return implied


def interval(node: Node, operands: Sequence[Bounds]) -> Bounds:
    """Bounds of every element of an operation from those of its operands.

    Args:
        node: any but an input, a constant or a division.
        operands: lower and upper bounds.
    """
    rule = _RULES.get(node.kind)
    if node.kind == "mul" and node.inputs[0] == node.inputs[1]:
        low, high = _square(*operands)
    elif rule is not None:
        low, high = rule(operands)
    else:
        # Moves, sums and what never falls when an operand rises.
        low, high = (
            apply(node.kind, [side[place] for side in operands], node.attributes)
            for place in (0, 1)
        )
    slack = _ROUNDING * np.maximum(np.abs(low), np.abs(high))
    return low - slack, high + slack


def _product(operands: Sequence[Bounds]) -> Bounds:
    (a, b), (c, d) = operands
    corners = [a * c, a * d, b * c, b * d]
    return np.minimum.reduce(corners), np.maximum.reduce(corners)


def _square(x: Bounds, _: Bounds) -> Bounds:
    low, high = x
    most = np.maximum(low**2, high**2)
    return np.where((low <= 0.0) & (high >= 0.0), 0.0, np.minimum(low**2, high**2)), most


def _matrix_product(operands: Sequence[Bounds]) -> Bounds:
    """By centres and radii (S. M. Rump, Fast and parallel interval arithmetic, 1999)."""
    (a, ra), (b, rb) = ((0.5 * (low + high), 0.5 * (high - low)) for low, high in operands)
    radius = np.matmul(np.abs(a), rb) + np.matmul(ra, np.abs(b) + rb)
    centre = np.matmul(a, b)
    return centre - radius, centre + radius


def _absolute(operands: Sequence[Bounds]) -> Bounds:
    ((low, high),) = operands
    crosses = (low <= 0.0) & (high >= 0.0)
    sizes = np.abs(low), np.abs(high)
    return np.where(crosses, 0.0, np.minimum(*sizes)), np.maximum(*sizes)


def _difference(operands: Sequence[Bounds]) -> Bounds:
    (a, b), (c, d) = operands
    return a - d, b - c


def _reciprocal(operands: Sequence[Bounds]) -> Bounds:
    ((low, high),) = operands
    with np.errstate(divide="ignore"):
        bounded = (low > 0.0) | (high < 0.0)
        return np.where(bounded, 1.0 / high, -np.inf), np.where(bounded, 1.0 / low, np.inf)


_RULES: Mapping[str, Callable[[Sequence[Bounds]], Any]] = {
    "abs": _absolute,
    "matmul": _matrix_product,
    "mul": _product,
    "neg": lambda o: (-o[0][1], -o[0][0]),
    "reciprocal": _reciprocal,
    "sub": _difference,
}
