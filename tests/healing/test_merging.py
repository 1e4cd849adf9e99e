"""Merged equals unmerged: for layers, models, checkpoints; and the naive ways do not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.integrations.bitnet import AutoBitLinear

from odp.approximations.errors import OdpError
from odp.evaluation.language_model import load_language_model
from odp.healing.bit_linear import adapted_layers, quantise_adapters, ternary_view
from odp.healing.bitnet_adapters import random_adapter, read_adapter
from odp.healing.merge_check import DENSE, INT8, OURS, PEFT, ROUNDED, check_merge
from odp.healing.merging import make_offline, merge_adapters, merged_layer, save_bitnet

from .tiny_bitnet import (
    ATTENTION,
    KINDS,
    adapted,
    bitnet,
    layer,
    llama,
    logits,
    relative,
    save,
    tokenizer,
    tokens,
)

# What the issue demands of float32.
FLOAT_ROUNDING = 1e-5


@pytest.fixture(autouse=True)
def not_compiled() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_layer_answers_as_the_unmerged_one(kind: str, int8: bool) -> None:
    model = adapted(bitnet(kind))
    quantise_adapters(model, int8)
    for number, one in enumerate(adapted_layers(model)):
        x = torch.randn(200, 32, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            unmerged = one(x)
            merged = merged_layer(one.get_base_layer(), one.update())
            assert relative(merged(x), unmerged) < FLOAT_ROUNDING
            # No row is far off where the others hide it.
            rows = (merged(x) - unmerged).norm(dim=-1) / unmerged.norm(dim=-1)
            assert rows.max() < FLOAT_ROUNDING


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [False, True])
def test_bias_and_norm_are_merged_too(kind: str, norm: bool) -> None:
    one, x = layer(kind, bias=True, norm=norm), torch.randn(50, 24)
    update = torch.randn(16, 24) / 50
    with torch.no_grad():
        seen = one.rms_norm(x) if norm else x
        scale = 127 / seen.abs().amax(-1, keepdim=True)
        values = (seen * scale).round() / scale
        expected = one(x) + values @ update.T
        assert relative(merged_layer(one, update)(x), expected) < FLOAT_ROUNDING


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_answers_as_the_unmerged_one(kind: str) -> None:
    # In float64 no float rounding moves an activation over the middle between two levels, which
    # would be an honest difference of 1/127 of that activation.
    model, ids = adapted(bitnet(kind)).double(), tokens()
    before = logits(model, ids)
    assert relative(before, logits(bitnet(kind).double(), ids)) > 0.01
    merged = merge_adapters(model)
    assert relative(logits(merged, ids), before) < 1e-12
    assert type(merged).__name__ == "BitNetForCausalLM"
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_pefts_own_calls_merge_and_unmerge() -> None:
    model, ids = adapted(bitnet().double()), tokens()
    before = logits(model, ids)
    names = set(model.state_dict())
    model.merge_adapter()
    assert relative(logits(model, ids), before) < 1e-12
    model.unmerge_adapter()
    assert torch.equal(logits(model, ids), before)
    assert set(model.state_dict()) == names


def test_a_merged_layer_refuses_a_second_merge() -> None:
    model = adapted(bitnet())
    one = next(adapted_layers(model))
    one.merge()
    one.merge()  # of the same adapter: nothing to do
    one.lora_A["other"], one.lora_B["other"] = one.lora_A["default"], one.lora_B["default"]
    with pytest.raises(OdpError, match="unmerge before merging more"):
        one.merge(adapter_names=["other"])


def test_infinite_adapters_are_not_merged() -> None:
    model = adapted(bitnet())
    next(adapted_layers(model)).lora_B["default"].weight.data[0, 0] = torch.inf
    with pytest.raises(OdpError, match="not finite"):
        merge_adapters(model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_merged_model_is_loaded_by_transformers(kind: str, tmp_path: Path) -> None:
    merged = merge_adapters(adapted(bitnet(kind)))
    save_bitnet(merged, tokenizer(), tmp_path / "merged")
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", attn_implementation="eager"
    )
    assert torch.equal(logits(loaded, tokens()), logits(merged, tokens()))
    layers = [m for m in loaded.modules() if isinstance(m, AutoBitLinear)]
    assert len(layers) == 14 and not any(one.online_quant for one in layers)
    dense = [one for one in layers if len(one.weight.unique()) > 3]
    assert len(dense) == 8, "without an adapter layers stay ternary"
    assert (tmp_path / "merged").stat().st_mode == tmp_path.stat().st_mode


def test_a_merged_folder_that_was_loaded_again_is_merged_from(tmp_path: Path) -> None:
    """What was loaded with a quantiser of transformers is written with the new settings."""
    folder = save(tmp_path / "online", bitnet())
    loaded = load_language_model(folder)
    merged = merge_adapters(adapted(loaded.model))
    save_bitnet(merged, loaded.tokenizer, tmp_path / "merged")
    again = load_language_model(tmp_path / "merged").model
    assert again.config.quantization_config.quantization_mode == "offline"
    assert torch.equal(logits(again, tokens()), logits(merged, tokens()))


def test_nothing_is_left_where_a_model_cannot_be_written(tmp_path: Path) -> None:
    model = bitnet()
    with pytest.raises(OdpError, match="it exists; name a new folder"):
        save_bitnet(model, tokenizer(), tmp_path)

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    model.save_pretrained = full
    with pytest.raises(OdpError, match=r"cannot write .*no space left"):
        save_bitnet(model, tokenizer(), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_offline_answers_are_those_of_the_other_spelling(kind: str) -> None:
    model, ids = bitnet(kind).double(), tokens()
    before = logits(model, ids)
    assert make_offline(model) == (0 if kind == "offline" else 14)
    # An online weight is signs / (1 / scale) rounded to float32 once more than signs * scale.
    assert relative(logits(model, ids), before) < FLOAT_ROUNDING


def test_pefts_merge_is_what_the_check_says_it_is() -> None:
    """The check computes what PEFT does; here PEFT itself does it."""
    for kind in ("online", "offline"):
        model, ids = adapted(bitnet(kind).double()), tokens()
        check = check_merge(model, ids)
        state = {k: v for k, v in model.state_dict().items() if "lora_" in k}
        plain = get_peft_model(
            bitnet(kind).double(), LoraConfig(r=4, lora_alpha=8, target_modules=ATTENTION)
        ).eval()
        plain.load_state_dict(state, strict=False)
        before = logits(plain, ids)
        after = logits(plain.merge_and_unload(), ids)
        (way,) = (way for way in check.ways if way.name == PEFT)
        assert way.logits == pytest.approx(relative(after, before), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_finds_ours_equal_and_the_others_not(kind: str) -> None:
    model, ids = adapted(bitnet(kind)), tokens(48)
    before = logits(model, ids)
    check = check_merge(model, ids)
    ways = {way.name: way for way in check.ways}
    assert list(ways) == [PEFT, DENSE, OURS, INT8, ROUNDED]
    assert check.is_equal and ways[OURS].layer < FLOAT_ROUNDING  # type: ignore[operator]
    assert check.layers == {kind: 14} and check.adapted == 8 and check.tokens == 96
    assert check.activations == 96 * 2 * (6 * 32 + 48)
    if check.flips == 0:
        assert ways[OURS].logits < FLOAT_ROUNDING  # type: ignore[operator]
    # Half a level of 127 in a row of 32 normal numbers, for an update of this strength.
    assert ways[DENSE].layer > 1e-4  # type: ignore[operator]
    assert ways[ROUNDED].layer > 1e-2  # type: ignore[operator]
    if kind == "packed":
        assert ways[PEFT].layer is None and "packed" in ways[PEFT].note
    else:
        assert ways[PEFT].layer > 1e-2  # type: ignore[operator]
    assert torch.equal(logits(model, ids), before), "the model is as it was"
    assert not any(one.int8 or "forward" in one.__dict__ for one in adapted_layers(model))


def test_a_check_leaves_adapters_in_8_bits_in_8_bits() -> None:
    model, ids = adapted(bitnet()), tokens()
    exact = check_merge(model, ids)
    quantise_adapters(model)
    before = logits(model, ids)
    # The ways are the same, whatever the adapters are at the moment.
    assert check_merge(model, ids) == exact and exact.int8_error > 0
    assert all(one.int8 for one in adapted_layers(model))
    assert torch.equal(logits(model, ids), before)


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bitnet()

    def full(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half of it")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(OdpError, match=r"cannot write '.*model': I/O error: No space left"):
        save_bitnet(model, tokenizer(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_flips_are_counted_and_explain_what_float_rounding_does_not() -> None:
    """Random weights this large make chaos of one activation that falls on another level."""
    ids = tokens(60, 8)
    rough = check_merge(adapted(bitnet(layers=4, hidden=64)), ids)
    exact = check_merge(adapted(bitnet(layers=4, hidden=64).double()), ids)
    for check in (rough, exact):
        (ours,) = (way for way in check.ways if way.name == OURS)
        assert check.is_equal and ours.logits is not None
        assert ours.logits < FLOAT_ROUNDING or check.flips > 0
    assert exact.flips == 0 and ours.logits < 1e-12


def test_bfloat16_is_equal_within_its_own_rounding() -> None:
    check = check_merge(adapted(bitnet().bfloat16()), tokens())
    assert check.dtype == "bfloat16" and check.is_equal
    assert check.tolerance == pytest.approx(4 * 2**-7)


def test_random_adapters_are_as_strong_as_asked_and_the_same_every_time() -> None:
    first = random_adapter(bitnet(), ATTENTION, 4, 0.05)
    second = random_adapter(bitnet(), ATTENTION, 4, 0.05)
    for one, other in zip(adapted_layers(first), adapted_layers(second), strict=True):
        assert torch.equal(one.update(), other.update())
        strength = one.update().norm() / ternary_view(one.get_base_layer()).dense().norm()
        assert float(strength) == pytest.approx(0.05, rel=1e-5)


def test_adapters_of_peft_are_read(tmp_path: Path) -> None:
    model = adapted(bitnet())
    model.save_pretrained(tmp_path)
    read = read_adapter(bitnet(), tmp_path)
    assert torch.equal(logits(read, tokens()), logits(model, tokens()))


def test_adapters_of_other_models_are_refused(tmp_path: Path) -> None:
    adapted(bitnet(hidden=64)).save_pretrained(tmp_path / "wide")
    adapted(bitnet(layers=1)).save_pretrained(tmp_path / "shallow")
    adapted(bitnet(layers=3)).save_pretrained(tmp_path / "deep")
    with pytest.raises(OdpError, match=r"does not fit the model: .*size mismatch"):
        read_adapter(bitnet(), tmp_path / "wide")
    for other in ("shallow", "deep"):
        with pytest.raises(OdpError, match="was made for another model"):
            read_adapter(bitnet(), tmp_path / other)
    with pytest.raises(OdpError, match=r"there is no adapter in .*adapter_config.json is missing"):
        read_adapter(bitnet(), tmp_path)
    with pytest.raises(OdpError, match="has no BitNet layers"):
        read_adapter(llama(), tmp_path / "wide")
    damaged = copy.copy(tmp_path / "wide" / "adapter_model.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(OdpError, match="cannot read"):
        read_adapter(bitnet(hidden=64), tmp_path / "wide")


def test_models_without_mergeable_adapters_are_refused() -> None:
    plain = get_peft_model(bitnet(), LoraConfig(target_modules=ATTENTION))
    for call in (lambda: merge_adapters(plain), lambda: check_merge(plain, tokens())):
        with pytest.raises(OdpError, match="no adapter"):
            call()
    with pytest.raises(OdpError, match="not merged; call merge_adapters"):
        make_offline(adapted(bitnet()))
    with pytest.raises(OdpError, match="no BitNet layer is named c_attn; there are down_proj"):
        random_adapter(bitnet(), ["c_attn"], 4, 0.1)
