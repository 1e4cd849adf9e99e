"""No input within its range takes a tensor out of the interval that is computed for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from odp.backends.ezkl.circuit import Circuit
from odp.backends.ezkl.intervals import implied_ranges, interval


def every_operation() -> Circuit:
    circuit = Circuit()
    x = circuit.input("x", (2, 3))
    w = circuit.constant(np.array([[0.5, -2.0], [1.0, 0.25], [-3.0, 0.0]]))
    product = circuit.add("matmul", x, w)
    turned = circuit.add("transpose", product, order=(1, 0))
    mixed = circuit.add("matmul", product, turned)
    square = circuit.add("mul", mixed, mixed)
    cube = circuit.add("mul", square, mixed)
    half = circuit.add("sub", cube, circuit.constant(0.5))
    total = circuit.add("sum", half, axes=(1,))
    least = circuit.add("min", total, circuit.add("neg", total))
    size = circuit.add("abs", circuit.add("relu", circuit.add("add", least, total)))
    largest = circuit.add("reduce_max", circuit.add("concat", size, total, axis=1), axes=(1,))
    circuit.outputs["y"] = circuit.add("max", largest, size)
    return circuit


@given(arrays.arrays(np.float64, (2, 3), elements=st.floats(-2.0, 2.0)))
@settings(max_examples=200, deadline=None)
def test_values_lie_within_their_intervals(x: np.ndarray) -> None:
    circuit = every_operation()
    values = circuit.evaluate({"x": x})
    bounds = []
    for number, node in enumerate(circuit.nodes):
        if node.value is not None:
            bounds.append((node.value, node.value))
        elif node.kind == "input":
            bounds.append((np.full(node.shape, -2.0), np.full(node.shape, 2.0)))
        else:
            bounds.append(interval(node, [bounds[i] for i in node.inputs]))
        low, high = bounds[-1]
        assert np.all(low <= values[number]) and np.all(values[number] <= high), node.kind


@pytest.mark.parametrize(("limit", "follows"), [(4.1, True), (3.9, False)])
def test_a_range_that_follows_from_others(limit: float, follows: bool) -> None:
    circuit = Circuit()
    x = circuit.input("x", (3,))
    circuit.outputs["y"] = circuit.add("mul", x, x)
    assert implied_ranges(circuit, [2.0, limit]) == [False, follows]
