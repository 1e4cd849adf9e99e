"""How large the values of a circuit get."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.backends.ezkl.circuit import Circuit, Node

__all__ = ["magnitudes"]

Array = NDArray[Any]

# A tensor of zeros has a magnitude, too.
_SMALLEST = 2.0**-60


def magnitudes(circuit: Circuit, samples: Sequence[Sequence[Array]], margin: float) -> list[float]:
    """log2 of the largest absolute value of each node, partial sums of dot products included.

    Args:
        circuit: any.
        samples: values of all nodes, for each calibration input.
        margin: by how much larger than that a value may get, as a share; constants do not.
    """
    found = []
    for number, node in enumerate(circuit.nodes):
        if node.value is not None:
            largest = float(np.abs(node.value).max(initial=0.0))
        else:
            largest = (1.0 + margin) * max(_largest(number, node, values) for values in samples)
        found.append(math.log2(max(largest, _SMALLEST)))
    return found


def _largest(number: int, node: Node, values: Sequence[Array]) -> float:
    operands = [np.abs(values[i]) for i in node.inputs]
    if node.kind == "matmul":
        return float(np.matmul(*operands).max())
    if node.kind == "sum":
        return float(operands[0].sum(axis=node.attributes["axes"]).max())
    return float(np.abs(values[number]).max(initial=0.0))
