"""Error and ranges of a circuit hold on every calibration input, not on the first ones only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from odp import OdpError
from odp.backends.ezkl.circuit import Circuit
from odp.backends.ezkl.compiler import Compiled, compile_circuit, relative_error
from odp.backends.ezkl.torch_circuit import TorchCircuit

MARGIN = 0.25
Inputs = list[dict[str, np.ndarray]]


def cube() -> Circuit:
    circuit = Circuit()
    x = circuit.input("x", (1, 4))
    circuit.outputs["y"] = circuit.add("mul", circuit.add("mul", x, x), x)
    return circuit


def compiled(inputs: Inputs, error: float) -> Compiled:
    references = [{"y": one["x"] ** 3} for one in inputs]
    return compile_circuit(cube(), inputs, references, error=error, margin=MARGIN)


def easy_then_hard(size: float) -> Inputs:
    """Five inputs of size 1, and then smaller ones, whose relative errors are larger."""
    numbers = np.random.default_rng(0)
    sizes = [1.0] * 5 + [size] * 4
    return [{"x": s * (0.5 + 0.5 * numbers.random((1, 4)))} for s in sizes]


def test_the_error_is_kept_on_inputs_that_come_late() -> None:
    inputs = easy_then_hard(0.05)
    found = compiled(inputs, 0.02)
    program = found.program
    errors = []
    for one in inputs:
        values, overflows = program.simulate(program.quantise(one))
        assert not overflows
        errors.append(relative_error(program.outputs(values), {"y": one["x"] ** 3}))
    assert max(errors) == found.error <= 0.02
    # The first ones say nothing about the last ones.
    assert max(errors[:4]) < 0.1 * max(errors)


def test_no_calibration_input_is_refused() -> None:
    """Beside 10, 0.66 may be rounded to 0.75, whose cube is half as large again."""
    circuit = Circuit()
    large, x = circuit.input("large", (1, 4)), circuit.input("x", (1, 4))
    cubed = circuit.add("mul", circuit.add("mul", x, x), x)
    circuit.outputs["y"] = circuit.add("add", large, cubed)
    numbers = np.random.default_rng(0)
    sizes = [0.2] * 4 + [0.6] * 20
    inputs = [
        {"large": np.full((1, 4), 10.0), "x": size * (1 + 0.1 * numbers.random((1, 4)))}
        for size in sizes
    ]
    references = [{"y": one["large"] + one["x"] ** 3} for one in inputs]
    found = compile_circuit(circuit, inputs, references, error=0.02, margin=MARGIN)
    program = found.program
    largest = np.zeros(len(circuit.nodes))
    for one in inputs:
        values, _ = program.simulate(program.quantise(one))
        largest = np.maximum(largest, [np.abs(value).max() for value in values])
    reached = np.ldexp(largest, -np.array(program.schedule.scales))
    # Else the ranges in real numbers would do.
    assert reached[cubed] > (1 + MARGIN) * max(float(one["x"].max()) for one in inputs) ** 3
    assert (2.0 ** np.array(found.limits) >= reached * (1 + MARGIN - 1e-9)).all()
    module = TorchCircuit(program, found.limits)
    given = {name: torch.from_numpy(np.stack([one[name] for one in inputs])) for name in inputs[0]}
    assert not module.checked(given)[1].any()


def test_an_error_that_cannot_be_kept_is_refused_with_the_input() -> None:
    """125 bits are too few for 1e-3 of the cubes of both sizes."""
    with pytest.raises(OdpError, match=r"on all 9 inputs: number [5-8] has \d+e?[\d.+-]*; allow"):
        compiled(easy_then_hard(1e-11), 1e-3)
