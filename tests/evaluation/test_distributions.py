"""Losses and distances of distributions against the same in plain numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.evaluation import distributions
from odp.evaluation.distributions import compare, losses

EPSILON = float(np.finfo(np.float64).eps)


def plain_log_probabilities(logits: torch.Tensor) -> Any:
    x = logits.double().numpy()
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def rounding(*logits: torch.Tensor) -> float:
    """What some float64 operations on logarithms of this size may round, generously counted.

    A logarithm of a probability is at most the range of the logits plus log(vocabulary), and comes
    from three operations; each sum over the vocabulary adds at most its own number of roundings.
    """
    size = max(float(x.abs().max()) for x in logits)
    vocabulary = logits[0].shape[-1]
    return (vocabulary + 8) * EPSILON * (2 * size + math.log(vocabulary))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    positions, vocabulary = draw(st.integers(1, 20)), draw(st.integers(1, 70))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    scale = draw(st.sampled_from([0.01, 1.0, 30.0]))
    shape = (positions, vocabulary)
    original = (torch.randn(shape, generator=generator) * scale).to(dtype)
    variant = (original + 0.3 * scale * torch.randn(shape, generator=generator)).to(dtype)
    targets = torch.randint(vocabulary, (positions,), generator=generator)
    return original, variant, targets


@given(pairs())
@settings(deadline=None)
def test_numbers_are_those_of_the_definitions(
    pair: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    original, variant, targets = pair
    log_p, log_q = plain_log_probabilities(original), plain_log_probabilities(variant)
    allowed = rounding(original, variant)
    rows = np.arange(len(targets))

    loss, missing = losses(original, targets)
    assert missing == 0
    np.testing.assert_allclose(loss, -log_p[rows, targets], rtol=0, atol=allowed)

    found, missing = compare(original, variant, targets)
    assert missing == 0
    np.testing.assert_allclose(found.loss, -log_q[rows, targets], rtol=0, atol=allowed)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    np.testing.assert_allclose(found.kl, kl, rtol=0, atol=allowed)
    assert (found.kl >= 0).all()

    p, q = original.double().numpy(), variant.double().numpy()
    norms = np.linalg.norm(p, axis=-1) * np.linalg.norm(q, axis=-1)
    # Three sums of `vocabulary` products, each off by that many roundings of its absolute value,
    # which the norms bound; a quotient and a root more.
    few = (3 * p.shape[1] + 8) * EPSILON
    np.testing.assert_allclose(found.cosine, (p * q).sum(axis=-1) / norms, rtol=0, atol=few)
    assert (abs(found.cosine) <= 1).all()


def test_sets_of_top_tokens_without_ties() -> None:
    generator = torch.Generator().manual_seed(3)
    original = torch.randn(50, 30, generator=generator)
    variant = original + torch.randn(50, 30, generator=generator)
    found, _ = compare(original, variant, torch.zeros(50, dtype=torch.int64))
    best_p, best_q = (np.argsort(-x.numpy(), axis=-1) for x in (original, variant))
    for k in (5, 10):
        shared = [len(set(p[:k]) & set(q[:k])) / k for p, q in zip(best_p, best_q, strict=True)]
        assert found.shared_top[k].tolist() == shared
        assert 0 < sum(shared) < 50
    assert found.same_top.tolist() == (best_p[:, 0] == best_q[:, 0]).tolist()


def test_a_vocabulary_of_less_tokens_than_are_compared() -> None:
    original, variant = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    found, _ = compare(original, variant, torch.tensor([0]))
    assert [shares.tolist() for shares in found.shared_top.values()] == [[1.0], [1.0]]
    assert found.same_top.tolist() == [False]
    generator = torch.Generator().manual_seed(5)
    original, variant = torch.randn(2, 40, 7, generator=generator)
    found, _ = compare(original, variant, torch.zeros(40, dtype=torch.int64))
    assert (found.shared_top[10] == 1).all() and (found.shared_top[5] < 1).any()


@given(pairs())
@settings(deadline=None)
def test_equal_logits_are_at_distance_zero_exactly(
    pair: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    original, _, targets = pair
    found, _ = compare(original, original.clone(), targets)
    assert (found.kl == 0).all()
    assert found.same_top.all()
    assert all((shares == 1).all() for shares in found.shared_top.values())
    assert (found.cosine == 1).all()
    assert (found.loss == losses(original, targets)[0]).all()


def test_divergence_of_two_coins() -> None:
    # Logits log(3) and 0 are the probabilities 3/4 and 1/4.
    original = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    variant = torch.zeros(1, 2)
    found, _ = compare(original, variant, torch.tensor([1]))
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert found.kl[0] == pytest.approx(expected, abs=8 * EPSILON)
    assert found.loss[0] == pytest.approx(math.log(2), abs=2 * EPSILON)


@pytest.mark.parametrize("slice_elements", [1, 7, 40, 120, 10**9])
def test_slices_change_nothing(slice_elements: int) -> None:
    generator = torch.Generator().manual_seed(4)
    original, variant = torch.randn(2, 23, 40, generator=generator)
    targets = torch.randint(40, (23,), generator=generator)
    whole, _ = compare(original, variant, targets)
    sliced, _ = compare(original, variant, targets, slice_elements)
    allowed = rounding(original, variant)  # a row may be summed in another order
    np.testing.assert_allclose(sliced.kl, whole.kl, rtol=0, atol=allowed)
    np.testing.assert_allclose(sliced.loss, whole.loss, rtol=0, atol=allowed)
    np.testing.assert_array_equal(sliced.same_top, whole.same_top)
    np.testing.assert_equal(sliced.shared_top, whole.shared_top)
    np.testing.assert_allclose(sliced.cosine, whole.cosine, rtol=0, atol=(3 * 40 + 8) * EPSILON)
    np.testing.assert_allclose(
        losses(original, targets, slice_elements)[0], losses(original, targets)[0], atol=allowed
    )


def test_only_a_slice_is_ever_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    convert = distributions.as_float64

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return convert(tensor)

    monkeypatch.setattr(distributions, "as_float64", counted)
    logits = torch.randn(100, 50)
    compare(logits, logits, torch.zeros(100, dtype=torch.int64), 1000)
    assert max(sizes) == 1000 and sum(sizes) == 2 * logits.numel()


def test_positions_without_a_distribution_are_counted_and_infinite() -> None:
    good = [1.0, 2.0, 3.0]
    bad = [[math.nan, 0.0, 0.0], [math.inf, 0.0, 0.0], [-math.inf] * 3]
    variant = torch.tensor([good, *bad])
    original = torch.tensor([good] * 4)
    targets = torch.tensor([1, 1, 1, 1])
    found, missing = compare(original, variant, targets)
    assert missing == 3
    assert np.isinf(found.kl).tolist() == [False, True, True, True]
    assert np.isinf(found.loss).tolist() == [False, True, True, True]
    assert found.same_top.tolist() == [True, False, False, False]
    assert [shares.tolist() for shares in found.shared_top.values()] == [[1, 0, 0, 0]] * 2
    assert found.cosine.tolist() == [1, math.inf, math.inf, math.inf]
    # The other way round the variant is fine, but there is nothing to compare it with.
    found, missing = compare(variant, original, targets)
    assert missing == 0
    assert np.isfinite(found.loss).all()
    assert np.isinf(found.kl).tolist() == [False, True, True, True]
    assert np.isinf(found.cosine).tolist() == [False, True, True, True]
    assert losses(variant, targets)[1] == 3


def test_excluded_tokens_are_no_failure() -> None:
    original = torch.tensor([[1.0, 2.0, -math.inf]])
    same, missing = compare(original, original, torch.tensor([0]))
    assert missing == 0 and same.kl.tolist() == [0.0]
    # A token that the original finds possible and the variant does not is infinitely surprising.
    found, missing = compare(torch.tensor([[1.0, 2.0, 0.0]]), original, torch.tensor([0]))
    assert missing == 0 and found.kl.tolist() == [math.inf]
    # A token that only the variant finds possible costs what the others lose to it.
    found, _ = compare(original, torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([0]))
    lost = math.log(math.e + math.e**2 + 1) - math.log(math.e + math.e**2)
    assert found.kl[0] == pytest.approx(lost, abs=8 * EPSILON)


def test_cosines_that_are_known() -> None:
    up, right, none = [0.0, 3.0], [0.5, 0.0], [0.0, 0.0]
    original = torch.tensor([up, up, up, none, up, [1.0, 1.0]])
    variant = torch.tensor([[0.0, 1e-30], right, [0.0, -7.0], none, none, up])
    found, _ = compare(original, variant, torch.zeros(6, dtype=torch.int64))
    expected = [1.0, 0.0, -1.0, 1.0, 0.0, math.sqrt(0.5)]
    assert found.cosine.tolist() == pytest.approx(expected, abs=2 * EPSILON)


def test_a_number_added_to_all_logits_changes_nothing_but_their_cosine() -> None:
    original = torch.tensor([[1.0, -1.0, 0.0, 2.0]])
    found, _ = compare(original, original + 4.0, torch.tensor([0]))
    assert found.kl[0] <= rounding(original + 4.0) and found.same_top.all()
    # (6 + 4 * 2) / sqrt(6 * (6 + 2 * 4 * 2 + 4 * 16))
    assert found.cosine[0] == pytest.approx(14 / math.sqrt(6 * 86), abs=8 * EPSILON)


def test_excluded_tokens_have_no_part_in_the_angle() -> None:
    original = torch.tensor([[1.0, 2.0, -math.inf, 5.0]])
    variant = torch.tensor([[2.0, 1.0, 7.0, -math.inf]])
    found, missing = compare(original, variant, torch.tensor([0]))
    assert missing == 0 and found.cosine[0] == pytest.approx(0.8, abs=4 * EPSILON)
