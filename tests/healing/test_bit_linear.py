"""One view of three spellings: what transformers computes, to the bit or to its rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from odp.approximations.errors import OdpError
from odp.healing.bit_linear import (
    BitLinearLora,
    adapted_layers,
    base_output,
    bit_linears,
    kind_of,
    quantise_adapters,
    quantised_input,
    see_quantised,
    straight_through,
    ternary,
    ternary_view,
)
from odp.healing.int8_adapter import rounded_adapter

from .tiny_bitnet import ATTENTION, KINDS, adapted, bitnet, layer, llama, logits, relative, tokens

# Sums of 24 products in another order: some units of 2^-24.
ROUNDING = 1e-6


@pytest.fixture(autouse=True)
def not_compiled() -> Iterator[None]:
    """The quantisers of transformers are compiled at their first call, which takes seconds."""
    torch.set_num_threads(1)
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_the_view_knows_the_effective_weight(kind: str) -> None:
    one = layer(kind)
    view = ternary_view(one)
    assert view.kind == kind == kind_of(one)
    assert view.signs.dtype == torch.int8 and set(view.signs.unique().tolist()) == {-1, 0, 1}
    # The identity as input gives the weight, columns scaled by what 8 bits leave of a one.
    seen = one(torch.eye(24))
    assert relative(seen.T, view.dense()) < ROUNDING


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_our_forward_is_that_of_transformers_to_the_bit(
    kind: str, norm: bool, bias: bool, dtype: torch.dtype
) -> None:
    one = layer(kind, bias=bias, norm=norm).to(dtype)
    if kind == "packed":
        one.dtype = dtype  # what from_pretrained(dtype=...) gives it
    x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        assert torch.equal(base_output(one, quantised_input(one, x)), one(x))


def test_zeros_stay_zeros() -> None:
    for kind in KINDS:
        one = layer(kind)
        assert not base_output(one, quantised_input(one, torch.zeros(2, 24))).any()
    online = layer("online")
    online.weight.data.zero_()
    assert ternary_view(online).scale == 0 and not ternary_view(online).dense().any()


@pytest.mark.parametrize("kind", KINDS)
def test_levels_are_integers_of_8_bits_and_the_largest_is_127(kind: str) -> None:
    x = torch.randn(100, 24) * torch.logspace(-8, 8, 100)[:, None]
    seen = quantised_input(layer(kind), x)
    assert torch.equal(seen.levels, seen.levels.round())
    assert seen.levels.abs().amax() == 127
    assert torch.equal(seen.values, seen.levels / seen.scale)


def test_gradients_pass_straight_through_both_roundings() -> None:
    one, reference = layer("online"), layer("online")
    x = torch.randn(4, 24, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    base_output(one, quantised_input(one, x)).square().sum().backward()
    reference(y).square().sum().backward()
    assert torch.equal(x.grad, y.grad)  # type: ignore[arg-type]
    assert torch.equal(one.weight.grad, reference.weight.grad)


def test_a_packed_layer_passes_gradients_too() -> None:
    """The class of transformers does not: its int8 stop them."""
    one = layer("packed")
    x = torch.randn(4, 24, requires_grad=True)
    seen = quantised_input(one, x)
    base_output(one, seen).sum().backward()
    expected = ternary_view(one).dense().sum(0)
    assert x.grad is not None
    assert relative(x.grad, expected.expand_as(x.grad)) < 1e-5


def test_straight_through_is_the_rounded_value_with_the_gradient_of_the_exact_one() -> None:
    x = torch.tensor([0.4, 1.6], requires_grad=True)
    y = straight_through(x, x.detach().round())
    assert y.tolist() == [0.0, 2.0]
    (y * torch.tensor([3.0, 5.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3.0, 5.0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing_and_is_all_that_trains(kind: str) -> None:
    model = bitnet(kind)
    ids, before = tokens(), logits(bitnet(kind), tokens())
    config = LoraConfig(r=3, target_modules=ATTENTION)
    model = get_peft_model(model, see_quantised(config))
    assert torch.equal(logits(model, ids), before)
    assert len(list(adapted_layers(model))) == 8
    assert {n.split(".")[-3] for n, p in model.named_parameters() if p.requires_grad} == {
        "lora_A",
        "lora_B",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapter_reads_the_quantised_activations(kind: str) -> None:
    one = next(adapted_layers(adapted(bitnet(kind))))
    x = torch.randn(5, 32)
    seen = quantised_input(one.get_base_layer(), x)
    expected = seen.values @ (ternary_view(one.get_base_layer()).dense() + one.update()).T
    with torch.no_grad():
        assert relative(one(x), expected) < ROUNDING


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_training_lowers_the_loss(kind: str, int8: bool) -> None:
    model = adapted(bitnet(kind), std=0.02).train()
    assert quantise_adapters(model, int8) == 8
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    losses = []
    for _ in range(12):
        loss = model(input_ids=tokens(), labels=tokens(), use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_adapters_are_switched_off_and_on() -> None:
    model, ids = adapted(bitnet()), tokens()
    on = logits(model, ids)
    with model.disable_adapter():
        assert torch.equal(logits(model, ids), logits(bitnet(), ids))
    assert torch.equal(logits(model, ids), on)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    found = []
    for checkpointing in (False, True):
        model = adapted(bitnet()).train()
        if checkpointing:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(input_ids=tokens(), labels=tokens(), use_cache=False).loss.backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_int8_is_off_by_at_most_half_a_level_of_each_factor() -> None:
    torch.manual_seed(0)
    down, up = torch.randn(4, 64), torch.randn(16, 4)
    form = rounded_adapter(down, up)
    assert form.down.dtype == form.up.dtype == torch.int8
    half_down = down.abs().amax(1, keepdim=True) / 127 / 2
    assert ((form.down_values(torch.float32) - down).abs() <= half_down * (1 + 1e-5)).all()
    # Of a column of B as large as the largest once the scales of A are in it.
    half_up = form.scale / form.down_scale.T / 2
    assert ((form.up_values(torch.float32) - up).abs() <= half_up * (1 + 1e-5)).all()
    assert relative(form.dense(), up @ down) < 0.02


def test_int8_answers_are_integers_times_one_scale_a_row() -> None:
    one = next(adapted_layers(adapted(bitnet())))
    x = torch.randn(6, 32)
    seen = quantised_input(one.get_base_layer(), x)
    down, up = one.factors("default")
    form = rounded_adapter(down.detach(), up.detach())
    integers = form.on_levels(seen.levels)
    assert integers.dtype == torch.int64
    one.int8 = True
    with torch.no_grad():
        added = one(x) - base_output(one.get_base_layer(), seen)
    assert relative(integers * form.scale.T / seen.scale, added) < 1e-5


def test_an_adapter_of_zeros_has_an_int8_form() -> None:
    form = rounded_adapter(torch.zeros(2, 5), torch.zeros(3, 2))
    assert not form.dense().any() and form.dense().isfinite().all()


def test_the_online_rounding_is_that_of_transformers() -> None:
    from transformers.integrations.bitnet import WeightQuant

    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.randn(16, 24).to(dtype)
        assert torch.equal(ternary(weight), WeightQuant.apply(weight))


def test_a_model_without_bitnet_layers_is_refused() -> None:
    with pytest.raises(OdpError, match=r"'x' has no BitNet layers .*quantization_config"):
        bit_linears(llama(), "'x'")


def test_an_offline_layer_that_is_not_ternary_is_refused() -> None:
    one: Any = layer("offline")
    one.weight.data[0, 0] = 0.5
    with pytest.raises(OdpError, match=r"weights of layers\.0 are not ternary"):
        ternary_view(one, "layers.0")


def test_damaged_packed_weights_are_refused() -> None:
    one: Any = layer("packed")
    one.weight[0, 0] = 0xFF
    with pytest.raises(OdpError, match="damaged"):
        ternary_view(one)


@pytest.mark.parametrize("options", [{"lora_bias": True}, {"use_dora": True}])
def test_variants_that_cannot_be_merged_are_refused(options: dict[str, Any]) -> None:
    config = see_quantised(LoraConfig(target_modules=ATTENTION, **options))
    with pytest.raises((OdpError, ValueError)):
        get_peft_model(bitnet(), config)


def test_layers_that_are_no_bitnet_layers_get_the_lora_of_peft() -> None:
    model = get_peft_model(
        bitnet(), see_quantised(LoraConfig(target_modules=["q_proj", "lm_head"]))
    )
    kinds = {type(m) for m in model.modules() if hasattr(m, "lora_A")}
    assert BitLinearLora in kinds and len(kinds) == 2
