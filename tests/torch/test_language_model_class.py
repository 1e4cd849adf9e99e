"""A model of transformers stays one: generate with its cache, PEFT, saving, other lengths."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import odp
from odp.backends.torch.discovery import Operations
from odp.evaluation import first_order_bounds

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
    REPORTS[result.model] = result.report
    return model, result.model


# Of the rewritten models, for the bounds that follow from what it declares.
REPORTS: dict[Any, Any] = {}
SAMPLED = 12


def assert_bounded(
    pair: tuple[Any, Any],
    run: Callable[[Any], torch.Tensor],
    rounded: Callable[[Any], torch.Tensor] | None = None,
) -> None:
    """Sampled elements differ by no more than the errors declared for the sites allow.

    Args:
        pair: original and rewritten model.
        run: what to look at of either of them, floating point.
        rounded: what to measure the rounding of the original on, twice which comes on top; `run`
            unless given.
    """
    original, model = pair
    rounded = rounded or run
    with torch.no_grad():
        wanted = run(original)
        exact = rounded(copy.deepcopy(original).double())
        rounding = float((exact - rounded(original)).abs().max())
    generator = torch.Generator().manual_seed(0)
    count = min(SAMPLED, wanted.numel())
    elements = torch.randperm(wanted.numel(), generator=generator)[:count].tolist()
    bounds = first_order_bounds(model, REPORTS[model], lambda: run(model), elements)
    for element, bound in zip(elements, bounds, strict=True):
        difference = abs(bound.value - float(wanted.flatten()[element]))
        assert difference <= bound.bound + 2 * rounding


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
    # What stands at padding is read by nobody, and makes eager attention NaN in float64.
    seen = MASK.bool()
    assert_bounded(
        pair,
        lambda model: model(IDS, attention_mask=MASK).logits[seen],
        rounded=lambda model: model(IDS).logits,
    )


def test_other_lengths_and_batches(pair: tuple[Any, Any]) -> None:
    for shape in [(1, 1), (1, 7), (3, 33)]:
        ids = torch.randint(3, 90, shape)
        assert_bounded(pair, lambda model, ids=ids: model(ids).logits)


def test_losses_and_hidden_states(pair: tuple[Any, Any]) -> None:
    assert_bounded(pair, lambda model: model(IDS, labels=IDS).loss)
    # The first are embeddings, which no site touches.
    for layer in (1, 2):
        assert_bounded(
            pair,
            lambda model, layer=layer: model(IDS, output_hidden_states=True).hidden_states[layer],
        )


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
        # Fresh adapters add zero.
        torch.testing.assert_close(found, model(IDS).logits)
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
    with torch.no_grad():
        truth, single = pair[0](IDS).logits, pair[1](IDS).logits
        own = float((original(IDS).logits - truth).abs().max())
        found = model(IDS).logits
    assert found.dtype == dtype
    # What the expressions do, tested above, and rounding like that of the original.
    expressions = float((single - truth).abs().max())
    assert float((found - truth).abs().max()) <= 4 * own + expressions


def test_beyond_the_table_of_positions_is_one_line() -> None:
    model = llama(layers=1)
    result = odp.rewrite(model, "rope{positions=16}", calibration=[{"input_ids": IDS}])
    with torch.no_grad():
        # Tables are exact.
        torch.testing.assert_close(result.model(IDS).logits, model(IDS).logits)
        with pytest.raises((odp.OdpError, IndexError, RuntimeError)) as raised:
            result.model(torch.randint(3, 90, (1, 20)))
    assert "16" in str(raised.value)
