"""A model of transformers stays one: generate with its cache, PEFT, saving, other lengths."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import odp
from odp.backends.torch.discovery import Operations

from ..evaluation.tiny_models import gpt2, llama
from .rewriting import cheap

PASSES = cheap("rsqrt", "softmax", "exp", "silu", "gelu", "layer_norm", "rope", "sigmoid", "tanh")
IDS = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(12) >= torch.tensor([[5], [0]])).long()


@pytest.fixture(scope="module", params=["llama-sdpa", "llama-eager", "gpt2-sdpa"])
def pair(request: Any) -> tuple[Any, Any]:
    kind, attention = request.param.split("-")
    model = {"llama": llama, "gpt2": gpt2}[kind]()
    model.set_attn_implementation(attention)
    # What the tests ask of it: long inputs, and padding, whose hidden states are others.
    padded = {"input_ids": IDS, "attention_mask": MASK}
    long = {"input_ids": torch.randint(3, 90, (16, 40))}
    result = odp.rewrite(model, PASSES, calibration=[long, padded], measure=False)
    assert result.report.model.transcendental_after == {}
    return model, result.model


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-2, rtol=0)


def test_it_is_of_the_same_class(pair: tuple[Any, Any]) -> None:
    original, model = pair
    assert isinstance(model, type(original)) and model.config is not original.config
    assert model.config.to_dict() == original.config.to_dict()
    assert list(model.state_dict()) == list(original.state_dict())


def test_generates_the_same_with_and_without_a_cache(pair: tuple[Any, Any]) -> None:
    original, model = pair
    options: dict[str, Any] = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    wanted = original.generate(IDS, **options)
    model.generate(IDS, **options)
    with Operations() as executed:
        found = model.generate(IDS, **options)
    # Generation samples from nothing here, and its processors compare scores only.
    assert not executed.transcendental
    assert torch.equal(found, wanted)
    assert torch.equal(model.generate(IDS, use_cache=False, **options), wanted)
    assert torch.equal(model.generate(IDS, cache_implementation="static", **options), wanted)


def test_padding_and_masks(pair: tuple[Any, Any]) -> None:
    original, model = pair
    with torch.no_grad():
        wanted = original(IDS, attention_mask=MASK).logits
        close(model(IDS, attention_mask=MASK).logits, wanted)


def test_other_lengths_and_batches(pair: tuple[Any, Any]) -> None:
    original, model = pair
    for shape in [(1, 1), (1, 7), (3, 33)]:
        ids = torch.randint(3, 90, shape)
        with torch.no_grad():
            close(model(ids).logits, original(ids).logits)


def test_losses_and_hidden_states(pair: tuple[Any, Any]) -> None:
    original, model = pair
    with torch.no_grad():
        wanted = original(IDS, labels=IDS, output_hidden_states=True, return_dict=True)
        found = model(IDS, labels=IDS, output_hidden_states=True, return_dict=True)
    close(found.loss, wanted.loss)
    for one, other in zip(found.hidden_states, wanted.hidden_states, strict=True):
        close(one, other)


def test_trains(pair: tuple[Any, Any]) -> None:
    _, model = pair
    model = copy.deepcopy(model).train()
    model.gradient_checkpointing_enable()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(5):
        loss = model(IDS, labels=IDS, use_cache=False).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_lora(pair: tuple[Any, Any]) -> None:
    """Adapters replace layers inside of the model; the functions around them stay rational."""
    original, model = pair
    targets = ["q_proj", "v_proj"] if "Llama" in type(original).__name__ else ["c_attn"]
    settings = LoraConfig(r=2, target_modules=targets, init_lora_weights=True)
    adapted: Any = get_peft_model(copy.deepcopy(model), settings)
    with torch.no_grad():
        adapted(IDS)
        with Operations() as executed:
            found = adapted(IDS).logits
        close(found, original(IDS).logits)
    assert not executed.transcendental
    adapted(IDS, labels=IDS).loss.backward()
    with_gradient = [name for name, p in adapted.named_parameters() if p.grad is not None]
    assert with_gradient and all("lora" in name for name in with_gradient)
    merged = adapted.merge_and_unload()
    assert isinstance(merged, type(original))


def test_saved_weights_are_those_of_the_original_class(
    pair: tuple[Any, Any], tmp_path: Path
) -> None:
    original, model = pair
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is type(original)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, original(IDS).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(pair: tuple[Any, Any], dtype: torch.dtype) -> None:
    original, model = (copy.deepcopy(one).to(dtype) for one in pair)
    exact = pair[0]
    with torch.no_grad():
        truth = exact(IDS).logits
        own = float((original(IDS).logits - truth).abs().max())
        found = model(IDS).logits
    assert found.dtype == dtype
    assert float((found - truth).abs().max()) <= 4 * own + 1e-2


def test_beyond_the_table_of_positions_is_one_line() -> None:
    model = llama(layers=1)
    result = odp.rewrite(model, "rope{positions=16}", calibration=[{"input_ids": IDS}])
    with torch.no_grad():
        close(result.model(IDS).logits, model(IDS).logits)
        with pytest.raises((odp.OdpError, IndexError, RuntimeError)) as raised:
            result.model(torch.randint(3, 90, (1, 20)))
    assert "16" in str(raised.value)
