"""Adapters on the constants of a circuit, and the circuit that comes of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from odp.approximations.errors import OdpError
from odp.backends.ezkl.circuit import Circuit
from odp.backends.ezkl.integer_program import IntegerProgram
from odp.backends.ezkl.reading import read_circuit
from odp.backends.ezkl.schedule import Requirements, solve
from odp.backends.ezkl.torch_circuit import TorchCircuit
from odp.healing.circuit_adapter import (
    LowRank,
    Moved,
    attach_to_circuits,
    healed_program,
    trainable_constants,
)
from odp.healing.settings import HealingSettings

SETTINGS = HealingSettings(rank=2, targets=("q_proj",))
NUMBERS = np.random.default_rng(0)


def circuit() -> Circuit:
    """A norm's weights, a layer that is a target, one that is not, and a table of positions."""
    made, numbers = Circuit(), np.random.default_rng(1)
    x = made.input("x", (3, 4))
    table = made.constant(numbers.standard_normal((3, 4)))
    normed = made.add("mul", x, made.constant(numbers.random(4) + 0.5), module="layer.norm1")
    placed = made.add("mul", normed, table, module="layer.attn")
    q = made.add(
        "matmul", placed, made.constant(numbers.standard_normal((4, 4))), module="layer.attn.q_proj"
    )
    up = made.constant(numbers.standard_normal((4, 4)))
    made.outputs["y"] = made.add("matmul", q, up, module="layer.mlp.up_proj")
    return made


def module(bits: float = 8.0) -> TorchCircuit:
    made = circuit()
    schedule = solve(made, Requirements([5.0] * 9, [bits] * 9, 56, 30.0, False))
    assert schedule is not None
    return TorchCircuit(IntegerProgram(made, schedule, 56))


def test_norms_and_targets_are_found_and_nothing_else() -> None:
    made = circuit()

    def readers(*train: str) -> set[str]:
        numbers = trainable_constants(made, train, SETTINGS.targets)  # type: ignore[arg-type]
        return {made.nodes[user].module for n in numbers for user in made.users()[n]}

    assert readers("norms") == {"layer.norm1"}
    assert readers("lora") == {"layer.attn.q_proj"}
    assert readers("lora", "norms") == {"layer.norm1", "layer.attn.q_proj"}


def test_a_constant_that_something_else_reads_is_left_alone() -> None:
    made = circuit()
    (norm,) = trainable_constants(made, ["norms"], ())
    made.add("mul", made.inputs["x"], norm, module="layer.attn")
    assert trainable_constants(made, ["norms"], ()) == set()


def test_a_fresh_adapter_changes_nothing() -> None:
    fresh, adapted = module(), module()
    x = {"x": torch.from_numpy(NUMBERS.standard_normal((5, 3, 4)))}
    assert attach_to_circuits([adapted], ["norms", "lora"], SETTINGS) == 4 + 2 * (4 * 2)
    assert torch.equal(fresh(x)["y"], adapted(x)["y"])
    assert {type(one) for one in adapted.replaced.values()} == {LowRank, Moved}


def test_the_healed_circuit_has_the_integers_that_were_trained() -> None:
    adapted = module()
    attach_to_circuits([adapted], ["norms", "lora"], SETTINGS)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    program = healed_program(adapted)
    x = NUMBERS.standard_normal((3, 4))
    found = adapted({"x": torch.from_numpy(x)[None]})["y"][0].detach().numpy()
    values, overflows = program.simulate(program.quantise({"x": x}))
    assert not overflows
    # All integers here have less than 53 bits.
    assert max(int(abs(v).max()).bit_length() for v in values if v.size) < 53
    assert np.array_equal(program.outputs(values)["y"], found)
    before = adapted.program.simulate(adapted.program.quantise({"x": x}))[0]
    assert not np.allclose(adapted.program.outputs(before)["y"], found, rtol=1e-3)
    again = TorchCircuit(program)({"x": torch.from_numpy(x)[None]})["y"][0]
    assert np.array_equal(again.numpy(), found)


def test_training_reaches_the_constants_through_their_rounding() -> None:
    """At 4 bits a step of this size changes no integer at first; their sum of steps does."""
    adapted = module(4.0)
    attach_to_circuits([adapted], ["norms"], SETTINGS)
    given = {"x": torch.from_numpy(NUMBERS.standard_normal((16, 3, 4)))}
    wanted = (adapted(given)["y"] * 1.5).detach()
    optimiser = torch.optim.Adam(adapted.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = (adapted(given)["y"] - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_nothing_to_train_is_said() -> None:
    made = Circuit()
    x = made.input("x", (2, 2))
    made.outputs["y"] = made.add("mul", x, made.constant(np.ones((2, 2)) / 3), module="layer")
    schedule = solve(made, Requirements([1.0] * 3, [4.0] * 3, 56, 30.0, False))
    assert schedule is not None
    bare = TorchCircuit(IntegerProgram(made, schedule, 56))
    with pytest.raises(OdpError, match="circuit of layer 0: it has no weights of q_proj"):
        attach_to_circuits([bare], ["lora"], SETTINGS)


@pytest.mark.parametrize("dense, kinds", [((), ["matmul", "mul"]), (("q_proj",), ["matmul"])])
def test_ternary_weights_become_one_matrix_where_they_will_change(
    dense: tuple[str, ...], kinds: list[str]
) -> None:
    weight = np.float32(0.25) * np.array([[1, 0], [-1, 1]], np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="/layer/q_proj/MatMul")],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 2))],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 2))],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 12)])
    found = read_circuit(model, dense=dense)
    assert [n.kind for n in found.nodes if n.value is None and n.kind != "input"] == kinds
    x = np.array([[2.0, 3.0]])
    assert np.array_equal(found.evaluate({"x": x})[found.outputs["y"]], x @ weight)
