"""How much a rounding error at one tensor moves the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.backends.ezkl.circuit import Circuit

__all__ = ["dependents", "noise_gains"]

Array = NDArray[Any]

# Small beside the values, so that the outputs move linearly; large beside rounding in float64.
_SHARE = 1e-5


def noise_gains(circuit: Circuit, samples: Sequence[Sequence[Array]], seed: int = 0) -> list[float]:
    """Relative l2 error of the outputs for independent errors of unit size at one node, for each.

    An error at a tensor of which every element is off by e (root mean square) makes the outputs
    wrong by e times the gain, relative to their size: measured by adding noise, with everything
    after the node run again.

    Args:
        circuit: any.
        samples: values of all nodes, for each calibration input; two or three are enough.
        seed: of the noise.
    """
    generator = np.random.default_rng(seed)
    after = dependents(circuit)
    outputs = list(circuit.outputs.values())
    gains = []
    for number in range(len(circuit.nodes)):
        moved = size = 0.0
        for values in samples:
            value = np.asarray(values[number], np.float64)
            amplitude = _SHARE * max(float(np.sqrt(np.mean(value**2))), 1e-12)
            noise = amplitude * generator.standard_normal(value.shape)
            changed = circuit.again(values, number, value + noise, after[number])
            for output in outputs:
                difference = changed[output] - values[output] if output in changed else 0.0
                moved += float(np.sum(np.square(difference))) / amplitude**2
                size += float(np.sum(np.square(values[output])))
        gains.append(float(np.sqrt(moved / max(size, 1e-300))))
    return gains


def dependents(circuit: Circuit) -> list[list[int]]:
    """For every node those that depend on it, in the order of evaluation."""
    found: list[set[int]] = [set() for _ in circuit.nodes]
    for number in reversed(range(len(circuit.nodes))):
        for operand in circuit.nodes[number].inputs:
            found[operand] |= {number} | found[number]
    return [sorted(numbers) for numbers in found]
