"""Ranges of a layer's circuit: the prover accepts what the integers reach in calibration."""

from __future__ import annotations

import numpy as np
import torch

from odp.backends.ezkl.circuit import Circuit
from odp.backends.ezkl.compiler import Compiled
from odp.backends.ezkl.cost import RunArguments, predict
from odp.backends.ezkl.integer_program import IntegerProgram
from odp.backends.ezkl.magnitudes import magnitudes
from odp.backends.ezkl.schedule import Requirements, solve
from odp.backends.ezkl.torch_circuit import TorchCircuit
from odp.circuits import CompiledModel
from odp.layer_circuits import with_integer_ranges

MARGIN = 0.25


def layer() -> CompiledModel:
    """A small value that is rounded to halves, cubed: 0.3 becomes 0.5, and its cube 0.125."""
    numbers = np.random.default_rng(0)
    inputs = [{"x": 0.3 + 0.05 * numbers.random((1, 4))} for _ in range(20)]
    circuit = Circuit()
    x = circuit.input("x", (1, 4))
    square = circuit.add("mul", x, x)
    circuit.outputs["y"] = circuit.add("mul", square, x)
    values = [circuit.evaluate(one) for one in inputs]
    limits = magnitudes(circuit, values, MARGIN)
    schedule = solve(circuit, Requirements(limits, [1.0] * 3, 28, 29.5, False))
    assert schedule is not None and schedule.scales[0] == 1
    program = IntegerProgram(circuit, schedule, 28)
    arguments = RunArguments(input_scale=0, param_scale=0)
    cost = predict(program.to_onnx(), arguments)
    compiled = Compiled(program, arguments, cost, 0.1, tuple(limits))
    return CompiledModel(compiled, None, [], 0.1, 0.0, "", "", inputs, [])  # type: ignore[arg-type]


def refused(found: CompiledModel) -> float:
    module = TorchCircuit(found.compiled.program, found.compiled.limits)
    given = torch.from_numpy(np.stack([one["x"] for one in found.inputs]))
    return float(module.checked({"x": given})[1].double().mean())


def test_no_window_of_the_calibration_is_refused() -> None:
    before = layer()
    after = with_integer_ranges(before, MARGIN)
    assert refused(before) == 1.0 and refused(after) == 0.0
    module = TorchCircuit(before.compiled.program)
    given = torch.from_numpy(np.stack([one["x"] for one in before.inputs]))
    reached = np.log2(np.array(module.largest({"x": given})) * (1 + MARGIN))
    wanted = np.maximum(before.compiled.limits, reached)
    np.testing.assert_allclose(after.compiled.limits, wanted, rtol=1e-12)
