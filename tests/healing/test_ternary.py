"""Three values again: the nearest ones, trained, and the price of both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from odp.approximations.errors import OdpError
from odp.healing.bit_linear import bit_linears, ternary_view
from odp.healing.merging import merge_adapters, save_bitnet
from odp.healing.ternary import TernarySettings, dense_layers, nearest_ternary, ternarise

from .tiny_bitnet import adapted, bitnet, llama, logits, tokenizer, tokens


@pytest.fixture(autouse=True)
def not_compiled() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.compiler.set_stance("force_eager"):
        yield


def test_a_ternary_weight_is_its_own_nearest() -> None:
    signs = torch.randint(-1, 2, (16, 24)).float()
    found, scale = nearest_ternary(0.25 * signs)
    assert torch.equal(found, signs) and float(scale) == pytest.approx(0.25, rel=1e-6)


def test_no_other_scale_and_signs_are_nearer() -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 50)
    signs, scale = nearest_ternary(weight)
    best = (weight - signs * scale).square().sum()
    for factor in (0.9, 0.99, 1.01, 1.1):
        # With the best signs for that scale.
        other = factor * scale
        nearest = weight.sign() * (weight.abs() > other / 2)
        assert (weight - nearest * other).square().sum() > best


def test_zeros_are_ternary() -> None:
    signs, scale = nearest_ternary(torch.zeros(3, 4))
    assert not signs.any() and float(scale) == 0.0


def test_training_wins_back_what_rounding_lost() -> None:
    model = merge_adapters(adapted(bitnet(), std=0.3))
    assert len(dense_layers(model)) == 8
    before = logits(model, tokens())
    batches = [tokens(32, 8, seed) for seed in range(1, 25)]
    seen: list[tuple[str, int, int]] = []
    price = ternarise(
        model,
        batches,
        tokens(32, 8),
        TernarySettings(rate=0.03),
        lambda *event: seen.append(event),
    )
    assert dense_layers(model) == {}
    assert price.kl_trained < 0.7 * price.kl_rounded
    assert 0 < price.changed < 0.5
    assert (price.layers, price.steps, price.tokens) == (8, 24, 24 * 256)
    assert price.weights == 2 * (2 * 32 * 32 + 2 * 32 * 16) and price.bytes == 16 * price.weights
    assert seen[-1] == ("ternary", 24, 24)
    for path, one in bit_linears(model).items():
        assert set(ternary_view(one, path).signs.unique().tolist()) <= {-1, 0, 1}
    assert not torch.equal(logits(model, tokens()), before)


def test_rounding_alone_is_training_of_no_steps(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = merge_adapters(adapted(bitnet()))
    price = ternarise(model, [], tokens())
    assert price.kl_rounded == price.kl_trained > 0 and price.changed == 0
    # It is written as any other BitNet.
    save_bitnet(model, tokenizer(), tmp_path / "ternary")


def test_a_loss_that_is_not_finite_leaves_the_model_as_it_was() -> None:
    model = merge_adapters(adapted(bitnet()))
    before = logits(model, tokens())
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    with pytest.raises(OdpError, match=r"loss of step \d+ is (nan|inf)"):
        ternarise(model, [tokens()] * 5, tokens(), TernarySettings(rate=float("inf")))
    assert torch.equal(logits(model, tokens()), before)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trainable


def test_models_with_nothing_to_round_are_refused() -> None:
    with pytest.raises(OdpError, match="nothing to make ternary"):
        ternarise(bitnet("offline"), [], tokens())
    with pytest.raises(OdpError, match="has no BitNet layers"):
        ternarise(llama(), [], tokens())
