"""Schedules keep what they promise, and EZKL computes what we simulate, to the bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder, input_json, witness_integers
from odp.backends.ezkl.circuit import Circuit
from odp.backends.ezkl.cost import RunArguments, predict
from odp.backends.ezkl.exact_integers import rescaled
from odp.backends.ezkl.integer_program import IntegerProgram
from odp.backends.ezkl.magnitudes import magnitudes
from odp.backends.ezkl.network import simulate
from odp.backends.ezkl.noise import noise_gains
from odp.backends.ezkl.proving import run_ezkl
from odp.backends.ezkl.reading import read_circuit
from odp.backends.ezkl.schedule import Requirements, solve
from odp.circuits import CompiledModel, compile_circuit

from .blocks import attention, encoder_block, gated_mlp
from .graphs import GraphBuilder, normal

ezkl = pytest.importorskip("ezkl")

BLOCKS = {"mlp": gated_mlp, "attention": attention, "encoder": encoder_block}


def samples_of(model: onnx.ModelProto, count: int = 6) -> dict[str, np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    return {
        name: generator.standard_normal((count, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module", params=BLOCKS)
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompiledModel]:
    """A block, compiled and saved."""
    folder = tmp_path_factory.mktemp(request.param)
    model = BLOCKS[request.param]()
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "data.npz", **samples_of(model))
    compiled = compile_circuit(folder / "model.onnx", calibration=folder / "data.npz", error=0.03)
    compiled.save(folder / "circuit")
    return folder, compiled


def test_the_error_is_within_the_budget(made: tuple[Path, CompiledModel]) -> None:
    _, compiled = made
    assert compiled.approximation < compiled.compiled.error <= 0.03
    program = compiled.compiled.program
    for inputs, wanted in zip(compiled.inputs, compiled.outputs, strict=True):
        values, overflows = program.simulate(program.quantise(inputs))
        assert not overflows
        for name, array in program.outputs(values).items():
            difference = np.linalg.norm(array - wanted[name])
            assert difference <= 0.03 * np.linalg.norm(wanted[name])


def test_predicted_rows_are_those_of_ezkl(made: tuple[Path, CompiledModel]) -> None:
    folder, compiled = made
    settings = json.loads((folder / "circuit" / "settings.json").read_text())
    assert settings["required_lookups"] == []
    assert abs(settings["num_rows"] - compiled.compiled.cost.rows) <= 0.01 * settings["num_rows"]
    assert settings["run_args"]["logrows"] == compiled.compiled.arguments.logrows


def test_ezkl_s_witness_is_our_integers(made: tuple[Path, CompiledModel]) -> None:
    folder, compiled = made
    circuit = CircuitFolder(folder / "circuit")
    network, settings = circuit.path / "network.onnx", circuit.path / "settings.json"
    for number, inputs in enumerate(compiled.inputs[:2]):
        integers = circuit.quantise(inputs)
        expected = circuit.simulated(integers)
        data = circuit.path / f"input-{number}.json"
        data.write_text(input_json(integers))
        compiled_circuit, witness = circuit.path / "network.ezkl", circuit.path / "witness.json"
        run_ezkl("compile_circuit", network, compiled_circuit, settings, writes=compiled_circuit)
        run_ezkl("gen_witness", data, compiled_circuit, witness, writes=witness)
        for found, wanted in zip(witness_integers(witness), expected.values(), strict=True):
            assert np.array_equal(found, wanted.integers.ravel())


def test_both_simulations_agree(made: tuple[Path, CompiledModel]) -> None:
    """That of the schedule, and that of the file, which knows nothing of it."""
    folder, compiled = made
    program, circuit = compiled.compiled.program, CircuitFolder(folder / "circuit")
    integers = program.quantise(compiled.inputs[1])
    values, _ = program.simulate(integers)
    for name, wanted in program.outputs(values).items():
        assert np.array_equal(circuit.simulated(integers)[name].real, wanted)


def test_the_file_in_float64_is_the_circuit_before_rounding(
    made: tuple[Path, CompiledModel],
) -> None:
    folder, compiled = made
    network = onnx.load(folder / "circuit" / "network.onnx")
    for tensor in network.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*network.graph.input, *network.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    session = onnxruntime.InferenceSession(network.SerializeToString())
    program = compiled.compiled.program
    integers = program.quantise(compiled.inputs[0])
    found = session.run(None, {name: x.astype(np.float64) for name, x in integers.items()})
    for array, wanted in zip(found, compiled.outputs[0].values(), strict=True):
        assert np.linalg.norm(array - wanted) <= 0.03 * np.linalg.norm(wanted)


def test_an_input_unlike_the_calibration_is_refused(made: tuple[Path, CompiledModel]) -> None:
    folder, compiled = made
    circuit = CircuitFolder(folder / "circuit")
    larger = {name: 8.0 * array for name, array in compiled.inputs[0].items()}
    with pytest.raises(OdpError, match="unlike the calibration data: node '") as raised:
        circuit.simulated(circuit.quantise(larger))
    assert "\n" not in str(raised.value)


# Parts


@pytest.mark.parametrize("value", [0, 1, 2, 3, -1, -2, -3, 5, -5, 2**60 + 2**59, 10**30])
def test_rescaling_rounds_half_away_from_zero(value: int) -> None:
    found = int(rescaled(np.array([value], object), 1)[0])
    exact = math.floor(abs(float(value)) / 2 + 0.5) * (1 if value > 0 else -1)
    assert found == exact


def schedule_of(model: onnx.ModelProto, bits: float) -> tuple[Circuit, IntegerProgram]:
    """A schedule in which every rounded tensor keeps so many bits after the point."""
    circuit = read_circuit(model)
    data = samples_of(model)
    values = [circuit.evaluate({n: x[i] for n, x in data.items()}) for i in range(4)]
    sizes = magnitudes(circuit, values, 0.25)
    wanted = Requirements(sizes, [bits] * len(circuit.nodes), 56, 32.5, False)
    schedule = solve(circuit, wanted)
    assert schedule is not None
    return circuit, IntegerProgram(circuit, schedule, 56)


def power(exponent: int) -> onnx.ModelProto:
    g = GraphBuilder({"x": (2, 8)})
    g("Pow", "x", float(exponent))
    return g.model()


def test_what_needs_no_rescale_gets_none() -> None:
    circuit, program = schedule_of(power(4), 10.0)
    assert all(program.schedule.rescaled(i) == 0 for i in range(len(circuit.nodes)))
    assert predict(program.to_onnx(), RunArguments(input_scale=0, param_scale=0)).rescale_rows == 0


def test_what_does_not_fit_is_rescaled_once() -> None:
    circuit, program = schedule_of(power(16), 10.0)
    rescales = [n for i, n in enumerate(circuit.nodes) if program.schedule.rescaled(i)]
    assert len(rescales) == 1


def test_the_smaller_tensor_is_rescaled() -> None:
    """A wide product of narrow factors: bits are taken away where there are fewer elements."""
    g = GraphBuilder({"x": (4, 8)})
    first = g("Pow", g("MatMul", "x", normal(8, 4, seed=1)), 6.0)
    g("MatMul", first, normal(4, 512, seed=2))
    circuit, program = schedule_of(g.model(), 14.0)
    sizes = {n.elements for i, n in enumerate(circuit.nodes) if program.schedule.rescaled(i)}
    assert sizes <= {16}


def test_noise_gains_are_derivatives() -> None:
    g = GraphBuilder({"x": (1, 16)})
    g("Mul", "x", 3.0)
    model = g.model()
    circuit = read_circuit(model)
    x = samples_of(model)["x"][0]
    gains = noise_gains(circuit, [circuit.evaluate({"x": x})])
    # An error e at each of 16 inputs becomes 3 e at each output, of size 3 |x|.
    wanted = 4.0 / float(np.linalg.norm(x))
    assert abs(gains[circuit.inputs["x"]] / wanted - 1.0) < 0.3


def test_a_network_of_someone_else_is_refused() -> None:
    g = GraphBuilder({"x": (1, 4)})
    g("Sigmoid", "x")
    with pytest.raises(OdpError, match="Sigmoid: not of a scheduled network"):
        simulate(g.model(), {"x": np.zeros((1, 4), object)})


def test_operators_that_no_circuit_has_are_named() -> None:
    g = GraphBuilder({"x": (1, 4)})
    g("Sigmoid", "x")
    with pytest.raises(OdpError, match="is a Sigmoid: no circuit"):
        read_circuit(g.model())


def test_integers_far_beyond_what_fits_are_overflows_and_no_crash() -> None:
    """A polynomial that rounding has driven out of its domain squares itself out of float64."""
    circuit = Circuit()
    x = circuit.input("x", (2,))
    for _ in range(6):
        x = circuit.add("mul", x, x)
    # What is compared has to fit, so the last square is rescaled.
    circuit.outputs["y"] = circuit.add("relu", x)
    calm = [{"x": np.array([1.0, 0.5])}]
    values = [circuit.evaluate(one) for one in calm]
    count = len(circuit.nodes)
    wanted = Requirements(magnitudes(circuit, values, 0.25), [20.0] * count, 56, 23.5, False)
    schedule = solve(circuit, wanted)
    assert schedule is not None and any(schedule.rescaled(number) for number in range(count))
    program = IntegerProgram(circuit, schedule, 56)
    _, overflows = program.simulate(program.quantise({"x": np.array([1e9, 0.0])}))
    assert overflows and max(one.bits for one in overflows) > 1000
