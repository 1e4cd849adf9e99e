"""Decoder layers taken out, and circuits put in their place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from odp.approximations.errors import OdpError
from odp.backends.ezkl.circuit import Circuit
from odp.backends.ezkl.integer_program import IntegerProgram
from odp.backends.ezkl.schedule import Requirements, solve
from odp.backends.ezkl.torch_circuit import TorchCircuit
from odp.evaluation.layers import decoder_blocks
from odp.healing.circuit_scoring import score_circuits, windows_of
from odp.healing.decoder_circuits import (
    CircuitLayer,
    circuit_ready,
    layer_inputs,
    put_circuits,
    refused_windows,
    static_layers,
    write_layer,
)

from .tiny_bitnet import bitnet, llama, logits, relative, tokens

TOKENS = 6


@pytest.fixture(autouse=True)
def not_compiled() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.compiler.set_stance("force_eager"):
        yield


def doubling(hidden: int, limit: float) -> TorchCircuit:
    """A circuit that doubles the hidden states, and refuses windows beyond a limit."""
    made = Circuit()
    x = made.input("x", (1, TOKENS, hidden))
    made.outputs["y"] = made.add("mul", x, made.constant(np.full(hidden, 2.0)))
    magnitudes = [limit + 1.0] * len(made.nodes)
    schedule = solve(made, Requirements(magnitudes, [20.0] * len(made.nodes), 56, 30.0, False))
    assert schedule is not None
    return TorchCircuit(IntegerProgram(made, schedule, 56), magnitudes)


def with_doubling(model: Any, limit: float) -> Any:
    ready = circuit_ready(model)
    statics = static_layers(ready, TOKENS)
    hidden = model.config.hidden_size
    return put_circuits(ready, [doubling(hidden, limit) for _ in statics], statics)


@pytest.mark.parametrize("make", [llama, bitnet])
def test_a_static_layer_computes_what_its_layer_does(make: Any) -> None:
    model = circuit_ready(make())
    ids = tokens(TOKENS, batch=3)
    inputs = layer_inputs(model, ids)
    statics = static_layers(model, TOKENS)
    assert len(inputs) == len(statics) == 2
    with torch.no_grad():
        for static, one, following in zip(statics, inputs, inputs[1:], strict=False):
            assert one.shape == (3, TOKENS, 32)
            # The mask is -1e4 instead of the least float32: weights of 0 either way.
            assert relative(static(one), following) < 1e-6


def test_a_written_layer_is_the_layer(tmp_path: Path) -> None:
    import onnxruntime

    model = circuit_ready(bitnet())
    (inputs, _), (static, _) = (
        layer_inputs(model, tokens(TOKENS)),
        static_layers(model, TOKENS),
    )
    write_layer(static, inputs, tmp_path / "layer.onnx")
    assert "Round" not in {node.op_type for node in onnx.load(tmp_path / "layer.onnx").graph.node}
    stored = np.load(tmp_path / "layer.npz")["x"]
    assert stored.shape == (2, 1, TOKENS, 32)
    session = onnxruntime.InferenceSession(tmp_path / "layer.onnx")
    (found,) = session.run(None, {"x": stored[1]})
    with torch.no_grad():
        assert relative(torch.from_numpy(found), static(inputs[1:])) < 1e-6


def test_the_original_is_left_alone() -> None:
    model = bitnet()
    before, ids = logits(model, tokens(TOKENS)), tokens(TOKENS)
    copied = with_doubling(model, 10.0)
    assert relative(logits(copied, ids), before) > 0.01
    assert torch.equal(logits(model, ids), before)
    assert not any(parameter.requires_grad for parameter in copied.parameters())


def test_circuits_answer_in_the_place_of_layers() -> None:
    model = llama()
    copied = with_doubling(model, 20.0)
    ids = tokens(TOKENS, batch=3)
    (before, after) = layer_inputs(copied, ids)
    # Inputs are rounded to 20 bits, and then doubled; the model has float32.
    assert float((after - 2 * before).abs().max()) <= 2 * 2.0**-21 + 2.0**-24 * float(
        after.abs().max()
    )
    assert not refused_windows(copied).any()


@pytest.mark.parametrize("with_gradient", [False, True])
def test_a_refused_window_is_answered_by_the_layer(with_gradient: bool) -> None:
    """Of three windows the second leaves the range; the others are the circuit's."""
    static = static_layers(circuit_ready(llama()), TOKENS)[0]
    layer = CircuitLayer(doubling(32, 2.0), static)
    x = torch.rand(3, TOKENS, 32, generator=torch.Generator().manual_seed(0))
    x[1, 2, 3] = 1e30
    x.requires_grad_(with_gradient)
    with torch.set_grad_enabled(with_gradient):
        found = layer(x)
    assert layer.refused.tolist() == [False, True, False]
    wanted = torch.stack([2 * x[0], static(x[1:2])[0], 2 * x[2]])
    assert relative(found.detach(), wanted.detach()) < 1e-6
    if with_gradient:
        found[0].sum().backward()
        assert x.grad is not None
        assert torch.equal(x.grad[0], torch.full((TOKENS, 32), 2.0)) and not x.grad[2].any()


def test_another_number_of_tokens_is_refused() -> None:
    with pytest.raises(OdpError, match=f"has {TOKENS} tokens, and the model was given 7"):
        logits(with_doubling(llama(), 10.0), tokens(7))


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(OdpError, match="65 tokens are more than the 64 positions"):
        static_layers(circuit_ready(llama()), 65)


def test_only_windows_that_can_be_proven_are_scored() -> None:
    model, ids = llama(), tokens(TOKENS, batch=8)
    everything = score_circuits(model, with_doubling(model, 20.0), ids)
    assert (everything.windows, everything.refused) == (8, 0)
    assert everything.tokens == 8 * (TOKENS - 1)
    nothing = score_circuits(model, with_doubling(model, -20.0), ids)
    assert (nothing.refused, nothing.tokens) == (8, 0)
    assert not nothing.loss <= 1e9


def test_the_original_scores_as_itself() -> None:
    model, ids = llama(), tokens(TOKENS, batch=8)
    copied = with_doubling(model, 20.0)
    for layer, block in zip(decoder_blocks(copied), decoder_blocks(model), strict=True):
        assert isinstance(layer, CircuitLayer)
        layer.circuit = Same(block)  # type: ignore[assignment]
        layer.circuit.static = layer.static
    found = score_circuits(model, copied, ids)
    assert abs(found.change) < 1e-6 and found.kl < 1e-9 and found.top1 == 1.0
    with torch.no_grad():
        exact = model(input_ids=ids, labels=ids).loss
    assert found.perplexity == pytest.approx(float(exact.exp()), rel=1e-5)


class Same(torch.nn.Module):
    """What a circuit without any error would answer."""

    static: Any

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block

    def checked(self, inputs: dict[str, torch.Tensor]) -> Any:
        x = inputs["x"]
        return {"y": self.static(x).double()}, torch.zeros(len(x), dtype=torch.bool)


def test_windows_are_full_and_begin_as_the_tokenizer_has_it() -> None:
    from odp.evaluation.texts import TokenisedText

    texts = [TokenisedText("a", np.arange(10)), TokenisedText("b", np.arange(20, 25))]
    assert windows_of(texts, 4, None).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [20, 21, 22, 23]]
    assert windows_of(texts, 5, 99)[0].tolist() == [99, 0, 1, 2, 3]
