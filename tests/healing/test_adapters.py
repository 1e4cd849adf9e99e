"""Adapters on rewritten models: attached, saved, and refused where they do not belong."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from odp import OdpError
from odp.backends.torch.discovery import Operations
from odp.healing import HealingSettings, Identity, attach_adapter, load_adapter, sharing_copy
from odp.healing.adapters import save_adapter, trainable

from ..evaluation.tiny_models import gpt2, llama, perturbed, tokenizer
from .rewritten_models import SETTINGS, coarse, original

IDS = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))
SURGERY = {"passes": "rsqrt,sigmoid", "expressions": "abc"}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def adapted(target: str = "torch", seed: int = 0) -> Any:
    """An adapter that changes something, as after a training."""
    made = attach_adapter(sharing_copy(coarse(target)), SETTINGS)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable(made).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return made


@pytest.mark.parametrize("target", ["torch", "triton"])
def test_a_fresh_adapter_changes_nothing_and_trains_alone(target: str) -> None:
    model = coarse(target)
    made = attach_adapter(sharing_copy(model), SETTINGS)
    assert torch.equal(logits(made), logits(model))
    names = list(trainable(made))
    # Four layers with two factors in each of two blocks.
    assert len(names) == 16 and all("lora_" in name for name in names)
    made(input_ids=IDS, labels=IDS).loss.backward()
    gradients = [name for name, p in made.named_parameters() if p.grad is not None]
    assert gradients == names
    with Operations() as executed:
        logits(made)
    assert not {"aten::rsqrt", "aten::silu", "aten::sigmoid"} & set(executed.all)


def test_the_copy_shares_memory_and_leaves_the_model_alone() -> None:
    model = llama(layers=1)
    copied = sharing_copy(model)
    pairs = zip(model.parameters(), copied.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() and a.requires_grad for a, b in pairs)
    attach_adapter(copied, SETTINGS)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any("lora" in name for name, _ in model.named_modules())


def test_models_of_one_architecture_get_the_same_first_numbers() -> None:
    torch.manual_seed(5)
    first = trainable(attach_adapter(sharing_copy(coarse()), SETTINGS))
    torch.manual_seed(6)
    state = torch.random.get_rng_state()
    second = trainable(attach_adapter(sharing_copy(original()), SETTINGS))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("target", ["torch", "triton"])
def test_saved_and_put_back(tmp_path: Path, target: str) -> None:
    made, model = adapted(target), coarse(target)
    save_adapter(made, tmp_path / "a", Identity.of(model, tokenizer(), SURGERY))
    loaded = load_adapter(
        sharing_copy(model), tmp_path / "a", tokenizer=tokenizer(), surgery=SURGERY
    )
    assert torch.equal(logits(loaded), logits(made))
    assert not torch.equal(logits(loaded), logits(model))
    # Without ODP's file it is an adapter of peft like any other.
    # Merging writes into the layers' own memory, which must not be that of other tests.
    plain = PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path / "a")).eval()
    assert torch.equal(logits(plain), logits(made))
    merged = plain.merge_and_unload()
    torch.testing.assert_close(logits(merged), logits(made), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(adapted(), folder, Identity.of(coarse(), tokenizer(), SURGERY))
    return folder


def refusal(saved: Path, model: Any, **options: Any) -> str:
    with pytest.raises(OdpError) as raised:
        load_adapter(model, saved, **{"surgery": SURGERY, **options})
    return str(raised.value)


def test_another_model_is_refused(saved: Path) -> None:
    assert "belongs to a LlamaForCausalLM, and the model is a GPT2" in refusal(saved, gpt2())
    assert "names or shapes of parameters differ" in refusal(saved, llama(layers=3))
    other = refusal(saved, llama(layers=2, seed=1))
    assert "the numbers of parameter 'model.embed_tokens.weight' differ" in other
    # A model that was trained on a little is another model.
    assert "differ" in refusal(saved, perturbed(original(), size=0.02))


def test_the_same_model_in_low_precision_is_the_same(saved: Path) -> None:
    load_adapter(copy.deepcopy(coarse()).bfloat16(), saved, surgery=SURGERY)


def test_another_tokenizer_or_surgery_is_refused(saved: Path) -> None:
    other = tokenizer()
    other.add_tokens(["new"])
    model = sharing_copy(coarse())
    assert "trained with another tokenizer" in refusal(saved, model, tokenizer=other)
    assert "the model is the original model" in refusal(saved, model, surgery={})
    changed = {**SURGERY, "expressions": "abd"}
    assert "was trained for a rewritten one (passes" in refusal(saved, model, surgery=changed)


def test_what_is_no_adapter(saved: Path, tmp_path: Path) -> None:
    model = sharing_copy(coarse())
    assert "there is no adapter in" in refusal(tmp_path, model)
    for name in ("adapter_config.json", "odp.json"):
        (tmp_path / name).write_text((saved / name).read_text())
    assert "cannot load the adapter" in refusal(tmp_path, model)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"nothing")
    assert "cannot load the adapter" in refusal(tmp_path, sharing_copy(coarse()))
    (tmp_path / "odp.json").write_text(json.dumps({"architecture": "x"}))
    assert "cannot tell which model" in refusal(tmp_path, model)


def test_layers_that_do_not_exist_are_named_with_those_that_do() -> None:
    settings = HealingSettings(targets=("q_proj", "c_attn"))
    with pytest.raises(OdpError, match=r"named 'c_attn'; there are .*down_proj.*q_proj"):
        attach_adapter(sharing_copy(coarse()), settings)
    assert len(trainable(attach_adapter(gpt2(), HealingSettings(targets=("c_attn",))))) == 4


def test_a_second_adapter_is_refused() -> None:
    made = adapted()
    for model in (made, made.get_base_model()):
        with pytest.raises(OdpError, match="has an adapter already"):
            attach_adapter(model, SETTINGS)


@pytest.mark.parametrize("missing", ["peft", "accelerate"])
def test_a_missing_library_is_one_line(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(OdpError, match=rf'healing needs {missing}: pip install "odp-rewrite\[heal'):
        attach_adapter(sharing_copy(original()), SETTINGS)
