"""The losses are what their formulas say, and their gradients lead where they should."""

from __future__ import annotations

import pytest
import torch

from odp.evaluation.distributions import compare
from odp.healing.losses import feature_loss, kl_loss, language_model_loss


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


def test_kl_and_likelihood_are_those_of_the_evaluation() -> None:
    original, adapted = numbers(2, 5, 30), numbers(2, 5, 30, seed=1)
    ids = torch.randint(0, 30, (2, 5), generator=torch.Generator().manual_seed(2))
    found, _ = compare(original.flatten(0, 1), adapted.flatten(0, 1), ids.roll(-1).flatten())
    # float32 against float64: its rounding times the largest term.
    assert float(kl_loss(original, adapted)) == pytest.approx(found.kl.mean(), rel=1e-5)
    inner = found.loss.reshape(2, 5)[:, :-1]
    targets = ids[:, 1:]
    wanted = -adapted[:, :-1].double().log_softmax(-1).gather(-1, targets[..., None]).mean()
    assert float(language_model_loss(adapted, ids)) == pytest.approx(float(wanted), rel=1e-6)
    assert inner.shape == targets.shape


def test_kl_of_a_model_to_itself_is_zero_and_has_no_gradient() -> None:
    logits = numbers(1, 4, 50).requires_grad_()
    loss = kl_loss(logits, logits)
    loss.backward()
    assert abs(float(loss.detach())) < 1e-6
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-7


def test_tokens_that_both_models_rule_out_add_nothing() -> None:
    original, adapted = numbers(1, 4, 9), numbers(1, 4, 9, seed=1).requires_grad_()
    ruled_out = torch.full((1, 4, 2), -torch.inf)
    longer = torch.cat([adapted, ruled_out], -1)
    loss = kl_loss(torch.cat([original, ruled_out], -1), longer)
    assert float(loss.detach()) == pytest.approx(
        float(kl_loss(original, adapted).detach()), rel=1e-6
    )
    (gradient,) = torch.autograd.grad(loss, adapted)
    (wanted,) = torch.autograd.grad(kl_loss(original, adapted), adapted)
    torch.testing.assert_close(gradient, wanted)


def test_no_gradient_flows_into_the_original() -> None:
    original, adapted = numbers(1, 3, 9).requires_grad_(), numbers(1, 3, 9, seed=1).requires_grad_()
    (kl_loss(original, adapted) + feature_loss([original], [adapted])).backward()
    assert original.grad is None and adapted.grad is not None


def test_every_token_counts_alike_in_hidden_states() -> None:
    original = torch.ones(1, 2, 4)
    original[0, 0] *= 1000
    adapted = original.clone()
    adapted[0, 0] *= 1.1
    adapted[0, 1] *= 1.3
    # (0.1^2 + 0.3^2) / 2, whatever the sizes.
    assert float(feature_loss([original], [adapted])) == pytest.approx(0.05, rel=1e-4)


def test_a_hidden_state_of_zeros_is_no_division_by_zero() -> None:
    zeros = torch.zeros(1, 2, 4)
    assert float(feature_loss([zeros], [zeros])) == 0


def test_losses_of_low_precision_are_computed_in_float32() -> None:
    original, adapted = numbers(1, 4, 200).bfloat16(), numbers(1, 4, 200, seed=1).bfloat16()
    loss = kl_loss(original, adapted)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(kl_loss(original.float(), adapted.float())))
