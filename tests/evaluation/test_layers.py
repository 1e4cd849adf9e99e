"""Errors of hidden states, and how decoder blocks are found."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from odp.evaluation import Text, evaluate
from odp.evaluation.layers import decoder_blocks

from .tiny_models import gpt2, llama, perturbed, prose, tokenizer

TEXT = Text("text", prose(50))


def test_blocks_of_real_architectures() -> None:
    model = llama()
    assert decoder_blocks(model) == list(model.model.layers)
    model = gpt2()
    assert decoder_blocks(model) == list(model.transformer.h)


def test_a_longer_list_inside_a_block_is_not_the_list_of_blocks() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(9))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.short = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
            self.blocks = nn.ModuleList(Block() for _ in range(3))

    model: Any = Model()
    assert decoder_blocks(model) == list(model.blocks)
    nothing: Any = nn.Linear(2, 2)
    assert decoder_blocks(nothing) == []


@pytest.mark.parametrize("make", [llama, gpt2])
def test_errors_are_those_of_all_hidden_states(make: Any) -> None:
    original = make()
    variant = perturbed(original)
    found = evaluate(
        original, {"variant": variant}, tokenizer(), [TEXT], context=20, stride=8, speed=False
    )
    ids = torch.tensor(tokenizer()(TEXT.text)["input_ids"])
    # The windows: 20 tokens, then 8 further each, of which the last 8 tokens are scored.
    rows = [(0, 20, slice(0, 19))]
    rows += [(b, min(b + 20, 50), slice(11, min(b + 20, 50) - b - 1)) for b in range(8, 33, 8)]
    squares = torch.zeros(len(decoder_blocks(original)), dtype=torch.float64)
    differences = torch.zeros_like(squares)
    for begin, end, used in rows:
        states = []
        for model in (original, variant):
            kept: list[torch.Tensor] = []
            # The library's own way, except for the last block: its state comes after a norm there.
            handle = decoder_blocks(model)[-1].register_forward_hook(
                lambda m, a, o, k=kept: k.append(o[0] if isinstance(o, tuple) else o)
            )
            with torch.no_grad():
                output = model(ids[None, begin:end], output_hidden_states=True)
            handle.remove()
            states.append([*output.hidden_states[1:-1], *kept])
        for index, (exact, other) in enumerate(zip(*states, strict=True)):
            exact, other = exact[0, used].double(), other[0, used].double()
            squares[index] += exact.square().sum()
            differences[index] += (other - exact).square().sum()
    expected = (differences / squares).sqrt().tolist()
    # The same float32 numbers; only float64 sums of some thousand squares may round otherwise.
    assert found.variants[0].layer_errors == pytest.approx(expected, rel=1e-12)
    assert min(expected) > 1e-3


def test_the_error_begins_where_the_change_is() -> None:
    original = llama(layers=4)
    variant = copy.deepcopy(original)
    with torch.no_grad():
        variant.model.layers[2].mlp.down_proj.weight.mul_(1.01)
    found = evaluate(
        original, {"variant": variant}, tokenizer(), [TEXT], context=20, stride=8, speed=False
    )
    errors = found.variants[0].layer_errors
    assert errors is not None
    assert errors[:2] == [0.0, 0.0] and errors[2] > 0 and errors[3] > 0


def test_the_layer_that_gives_nan_is_seen() -> None:
    original = llama()
    broken = copy.deepcopy(original)
    with torch.no_grad():
        broken.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
    found = evaluate(
        original, {"broken": broken}, tokenizer(), [TEXT], context=20, stride=8, speed=False
    )
    assert found.variants[0].layer_errors == [0.0, math.inf, math.inf]


def test_other_depths_are_not_compared_layer_by_layer() -> None:
    found = evaluate(
        llama(layers=3),
        {"short": llama(layers=2)},
        tokenizer(),
        [TEXT],
        context=20,
        stride=8,
        speed=False,
    )
    assert found.variants[0].layer_errors is None
    assert found.warnings == ["layers: 'short' has 2 decoder blocks, the original 3"]
    assert found.variants[0].difference is not None


@pytest.mark.parametrize("who", ["original", "variant"])
def test_blocks_that_are_not_called_are_reported(who: str) -> None:
    silent = llama()
    # It goes on running its blocks, but the list that is found holds others.
    blocks = list(silent.model.layers)
    del silent.model.layers
    silent.model.layers = blocks
    silent.shadow = nn.ModuleList(nn.Identity() for _ in blocks)
    models = {"original": llama(), "variant": llama(), who: silent}
    found = evaluate(
        models["original"],
        {"variant": models["variant"]},
        tokenizer(),
        [TEXT],
        context=20,
        stride=8,
        speed=False,
    )
    assert found.variants[0].layer_errors is None
    (warning,) = found.warnings
    assert ("the original" if who == "original" else "'variant'") in warning
    assert "does not call its decoder blocks" in warning
    assert found.variants[0].difference is not None
    assert found.variants[0].difference.mean_kl == 0


def test_no_hook_is_left_behind() -> None:
    original, variant = llama(), llama()
    evaluate(original, {"v": variant}, tokenizer(), [TEXT], context=20, stride=8, speed=False)
    modules = [*original.modules(), *variant.modules()]
    assert not any(module._forward_hooks for module in modules)


def test_layers_can_be_left_out() -> None:
    found = evaluate(
        llama(),
        {"v": llama()},
        tokenizer(),
        [TEXT],
        context=20,
        stride=8,
        layers=False,
        speed=False,
    )
    assert found.variants[0].layer_errors is None and found.warnings == []
