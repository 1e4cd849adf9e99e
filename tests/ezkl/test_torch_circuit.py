"""Circuits in torch are their integers: values to the bit, gradients those of real numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.ezkl.circuit import Circuit
from odp.backends.ezkl.integer_program import IntegerProgram
from odp.backends.ezkl.magnitudes import magnitudes
from odp.backends.ezkl.schedule import Requirements, solve
from odp.backends.ezkl.torch_circuit import TorchCircuit, rounded_constant

Array = NDArray[np.float64]

MANTISSA = 53
SHAPE = (1, 4, 6)
GENERATOR = np.random.default_rng(0)
WEIGHT = GENERATOR.standard_normal((6, 6))
SAMPLES = [{"x": GENERATOR.standard_normal(SHAPE)} for _ in range(5)]


def every_kind() -> Circuit:
    """A circuit with every operation that a circuit without roots has."""
    made = Circuit()
    x = made.input("x", SHAPE)
    y = made.add("matmul", x, made.constant(WEIGHT))
    y = made.add("add", y, made.constant(GENERATOR.standard_normal(6)))
    half = made.add("mul", y, made.constant(0.5))
    low = made.add("slice", half, parts=((2, 0, 3, 1),))
    high = made.add("slice", half, parts=((2, 3, 6, 1),))
    turned = made.add("concat", made.add("neg", high), low, axis=2)
    both = made.add("sub", made.add("max", y, turned), made.add("min", y, turned))
    scores = made.add("matmul", both, made.add("transpose", y, order=(0, 2, 1)))
    top = made.add("reduce_max", scores, axes=(2,))
    scores = made.add("sub", scores, top)
    square = made.add("mul", scores, scores)
    total = made.add("sum", square, axes=(2,))
    wide = made.add("broadcast", total, shape=(1, 4, 6))
    picked = made.add("gather", wide, indices=np.array([5, 0, 1, 1, 2, 3]), axis=2)
    folded = made.add("reshape", made.add("abs", picked), shape=(4, 6))
    out = made.add("mul", made.add("relu", folded), made.add("reshape", y, shape=(4, 6)))
    made.outputs["y"] = out
    return made


def scheduled(
    circuit: Circuit,
    bits: float,
    samples: list[dict[str, Array]] | None = None,
    digits: int = 28,
) -> IntegerProgram:
    """A circuit whose tensors keep so many bits after the point, or more, where they are rounded.

    Few digits make rescales necessary: what is compared has to fit them.
    """
    values = [circuit.evaluate(one) for one in samples or SAMPLES]
    wanted = Requirements(
        magnitudes(circuit, values, 0.25), [bits] * len(circuit.nodes), digits, 30.0, False
    )
    schedule = solve(circuit, wanted, 5.0)
    assert schedule is not None
    return IntegerProgram(circuit, schedule, digits)


def simulated(program: IntegerProgram, inputs: dict[str, Array]) -> list[Any]:
    values, overflows = program.simulate(program.quantise(inputs))
    assert not overflows
    return values


def every_value(module: TorchCircuit, inputs: dict[str, Array]) -> list[torch.Tensor]:
    given = {name: torch.from_numpy(array) for name, array in inputs.items()}
    return module._evaluated(given, module._known())[0]


def stacked(samples: list[dict[str, Array]]) -> dict[str, torch.Tensor]:
    return {"x": torch.from_numpy(np.stack([one["x"] for one in samples]))}


def test_values_are_the_integers_to_the_bit_where_float64_holds_them() -> None:
    program = scheduled(every_kind(), 3.0)
    nodes, schedule = program.circuit.nodes, program.schedule
    assert any(schedule.rescaled(number) for number in range(len(nodes)))
    module = TorchCircuit(program)
    for inputs in SAMPLES:
        integers, found = simulated(program, inputs), every_value(module, inputs)
        for number, node in enumerate(nodes):
            if node.value is not None:
                continue
            widest = max(abs(int(i)) for i in integers[number].flat).bit_length()
            assert widest + max(schedule.rescaled(number), 0) <= MANTISSA
            real = np.ldexp(integers[number].astype(np.float64), -schedule.scales[number])
            assert np.array_equal(found[number].numpy(), real), node


def test_longer_integers_are_off_by_what_float64_loses_in_each_operation() -> None:
    """Each node, given what the integers give it, is within 2^-53 of its terms, and one unit."""
    program = scheduled(every_kind(), 24.0, digits=70)
    circuit, schedule = program.circuit, program.schedule
    module = TorchCircuit(program)
    widest = 0
    for inputs in SAMPLES[:2]:
        integers = simulated(program, inputs)
        real = [
            torch.from_numpy(
                np.ldexp(integers[i].astype(np.float64), -schedule.scales[i])
                if node.value is None
                else np.array(node.value)
            )
            for i, node in enumerate(circuit.nodes)
        ]
        sizes = [one.abs() for one in real]
        plain = TorchCircuit(dataclasses.replace(program), rounding=False)
        for number, node in enumerate(circuit.nodes):
            if node.value is not None or node.kind == "input":
                continue
            widest = max(widest, max(abs(int(i)) for i in integers[number].flat).bit_length())
            found = module._result(number, node, real, module._known())
            if schedule.rescaled(number):
                unit = 2.0 ** -schedule.scales[number]
                found = torch.round(found / unit) * unit
            absolute = {key: value.abs() for key, value in plain._known().items()}
            kinds = {"sub": "add", "max": "add", "min": "add"}
            same = dataclasses.replace(node, kind=kinds.get(node.kind, node.kind))
            terms = plain._result(number, same, sizes, absolute).abs()
            # Operands, products and sums round once each, a dot product has as many as terms.
            bound = (4 + circuit.nodes[node.inputs[0]].shape[-1]) * 2.0**-MANTISSA * terms
            if schedule.rescaled(number):
                bound = bound + 2.0 ** -schedule.scales[number]
            assert bool(((found - real[number]).abs() <= bound).all()), node
    assert widest > MANTISSA


def test_windows_are_computed_apart() -> None:
    module = TorchCircuit(scheduled(every_kind(), 8.0))
    together = module(stacked(SAMPLES))["y"]
    assert together.shape == (5, 4, 6) and together.dtype == torch.float64
    for number, inputs in enumerate(SAMPLES):
        alone = module(stacked([inputs]))["y"][0]
        assert torch.equal(alone, together[number])


def linear() -> Circuit:
    made = Circuit()
    x = made.input("x", SHAPE)
    y = made.add("matmul", x, made.constant(WEIGHT))
    z = made.add("sub", made.add("mul", y, made.constant(GENERATOR.standard_normal(6))), x)
    # All of it is positive; that it is compared makes a rescale necessary.
    z = made.add("relu", made.add("add", z, made.constant(50.0)))
    made.outputs["y"] = made.add("sum", z, axes=(1,))
    return made


def gradient(module: TorchCircuit, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    module({"x": x})["y"].sum().backward()
    assert x.grad is not None
    return x.grad


def test_the_gradient_of_a_linear_circuit_is_that_of_its_rounded_constants() -> None:
    program = scheduled(linear(), 9.0)
    module = TorchCircuit(program)
    assert any(program.schedule.rescaled(i) for i in range(len(program.circuit.nodes)))
    x = stacked(SAMPLES)["x"]
    # The same circuit in real numbers, with the constants as the integers have them.
    exact = TorchCircuit(program, rounding=False)
    exact._constants = module._constants
    assert not torch.equal(module({"x": x})["y"], exact({"x": x})["y"])
    assert torch.equal(gradient(module, x), gradient(exact, x))


def test_gradients_are_those_in_real_numbers_where_nothing_is_rounded() -> None:
    """Inputs and constants of a few bits: all roundings are there, and move nothing."""
    made = Circuit()
    x = made.input("x", SHAPE)
    weight = np.rint(4 * WEIGHT) / 4
    y = made.add("matmul", x, made.constant(weight))
    square = made.add("mul", made.add("relu", y), y)
    made.outputs["y"] = made.add("mul", square, square)
    inputs = [{"x": np.rint(2 * one["x"]) / 2} for one in SAMPLES]
    program = scheduled(made, 12.0, inputs)
    module, exact = TorchCircuit(program), TorchCircuit(program, rounding=False)
    given = stacked(inputs)
    assert torch.equal(module(given)["y"], exact(given)["y"])
    assert torch.equal(gradient(module, given["x"]), gradient(exact, given["x"]))


def test_a_window_beyond_its_range_is_seen() -> None:
    program = scheduled(linear(), 8.0)
    values = [program.circuit.evaluate(one) for one in SAMPLES]
    module = TorchCircuit(program, magnitudes(program.circuit, values, 0.25))
    given = stacked(SAMPLES)
    assert not module.checked(given)[1].any()
    given["x"][1] *= 10.0
    given["x"][3, 0, 0, 0] = float("nan")
    assert module.checked(given)[1].tolist() == [False, True, False, True, False]


def test_a_trained_constant_is_rounded_like_any_other() -> None:
    value = torch.from_numpy(np.append(GENERATOR.standard_normal(50) * 2.0 ** np.arange(50), 0.0))
    made = Circuit()
    number = made.constant(value.numpy())
    user = made.add("mul", made.input("x", (51,)), number)
    made.outputs["y"] = user
    program = scheduled(made, 5.0, [{"x": np.ones(51)}])
    place = made.nodes[user].inputs.index(number)
    scale = program.schedule.constants[user, place]
    wanted = np.ldexp(program.constant(user, place).astype(np.float64), -scale)
    value.requires_grad_()
    found = rounded_constant(value, scale)
    assert np.array_equal(found.detach().numpy(), wanted)
    assert not torch.equal(found, value)
    found.sum().backward()
    assert value.grad is not None and torch.equal(value.grad, torch.ones(51).double())


def test_roots_that_the_prover_claims_are_refused() -> None:
    made = Circuit()
    made.outputs["y"] = made.add("sqrt", made.input("x", (2,)), name="root", module="norm")
    program = scheduled(made, 8.0, [{"x": np.ones(2)}])
    with pytest.raises(OdpError, match=r"'root' \(norm\).*policy 'rational'"):
        TorchCircuit(program)
