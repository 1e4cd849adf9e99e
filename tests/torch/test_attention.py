"""Attention written out gives what torch's fused attention gives, for every mask and type."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.backends.torch.attention import attention

Tensor = torch.Tensor
QUERIES, KEYS, CHANNELS = 5, 7, 8
TYPES = [torch.float32, torch.bfloat16, torch.float64]


def tensors(dtype: torch.dtype, queries: int = QUERIES, groups: int = 1) -> list[Tensor]:
    """Query of 4 heads, key and value of 4 / groups heads."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, 4, queries), (2, 4 // groups, KEYS), (2, 4 // groups, KEYS)]
    return [torch.randn(*shape, CHANNELS, generator=generator).to(dtype) for shape in shapes]


def _allowed(*shape: int) -> Tensor:
    allowed = torch.rand(*shape, generator=torch.Generator().manual_seed(2)) > 0.4
    allowed[..., 1] = True
    return allowed


def _without_a_row(allowed: Tensor) -> Tensor:
    allowed = allowed.clone()
    allowed[..., 2, :] = False
    return allowed


def _infinite(allowed: Tensor) -> Tensor:
    return torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)


MASKS: dict[str, Any] = {
    "none": None,
    "boolean": _allowed(QUERIES, KEYS),
    "boolean_for_each_head": _allowed(2, 4, QUERIES, KEYS),
    "boolean_for_each_key": _allowed(2, 1, 1, KEYS),
    "boolean_with_an_empty_row": _without_a_row(_allowed(2, 1, QUERIES, KEYS)),
    "numbers": torch.randn(QUERIES, KEYS, generator=torch.Generator().manual_seed(3)),
    "infinite": _infinite(_allowed(QUERIES, KEYS)),
    "infinite_with_an_empty_row": _infinite(_without_a_row(_allowed(QUERIES, KEYS))),
    "everything_masked": torch.full((QUERIES, KEYS), -torch.inf),
    "nothing_allowed": torch.zeros(QUERIES, KEYS, dtype=torch.bool),
}


def bound(dtype: torch.dtype, value: Tensor) -> float:
    """Twice the roundings of a softmax and two products, each to the type of the inputs.

    Scores are below 8 here, and an error of d in a score changes a weight by d times itself.
    """
    unit = torch.finfo(dtype).eps / 2
    return 2.0 * (CHANNELS + KEYS + 8.0 + 4.0) * unit * float(value.abs().max().double())


def same(one: Tensor, other: Tensor, value: Tensor) -> None:
    assert one.dtype == other.dtype and one.shape == other.shape
    assert one.isfinite().all() and other.isfinite().all()
    assert (one.double() - other.double()).abs().max() <= bound(value.dtype, value)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("scale", [None, 0.25])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str, groups: int, scale: float | None, dtype: torch.dtype) -> None:
    query, key, value = tensors(dtype, groups=groups)
    mask = MASKS[name]
    if mask is not None and mask.is_floating_point():
        mask = mask.to(dtype)
    options = {"scale": scale, "enable_gqa": groups > 1}
    expected = F.scaled_dot_product_attention(query, key, value, mask, **options)
    same(attention(query, key, value, mask, **options), expected, value)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("queries", [KEYS, 3, 11])
def test_causal(queries: int, dtype: torch.dtype) -> None:
    query, key, value = tensors(dtype, queries)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    same(attention(query, key, value, is_causal=True), expected, value)


def test_a_mask_of_a_wider_type() -> None:
    query, key, value = tensors(torch.bfloat16)
    mask = MASKS["numbers"]
    expected = F.scaled_dot_product_attention(query, key, value, mask)
    same(attention(query, key, value, mask), expected, value)


@pytest.mark.parametrize("dims", [2, 3, 5])
def test_other_ranks(dims: int) -> None:
    shape = (2,) * (dims - 2)
    query, key, value = (torch.randn(*shape, n, CHANNELS) for n in (QUERIES, KEYS, KEYS))
    expected = F.scaled_dot_product_attention(query, key, value)
    same(attention(query, key, value), expected, value)


def test_values_of_another_width() -> None:
    query, key, _ = tensors(torch.float32)
    value = torch.randn(2, 4, KEYS, 3)
    expected = F.scaled_dot_product_attention(query, key, value)
    same(attention(query, key, value), expected, value)


def test_rows_that_attend_to_nothing_are_zero() -> None:
    query, key, value = tensors(torch.float32)
    for name in ("boolean_with_an_empty_row", "infinite_with_an_empty_row"):
        result = attention(query, key, value, MASKS[name])
        assert (result[:, :, 2] == 0.0).all()
        assert (result[:, :, 3] != 0.0).all()


def test_without_dropout_nothing_is_random() -> None:
    query, key, value = tensors(torch.float32)
    first, second = (attention(query, key, value, dropout_p=0.0) for _ in range(2))
    assert torch.equal(first, second)


def test_dropout_keeps_the_mean() -> None:
    query, key = torch.zeros(1, 64, 4), torch.zeros(1, 512, 4)
    value = torch.ones(1, 512, 1)
    result = attention(query, key, value, dropout_p=0.5)
    # Sums of 512 weights of 0 or 2/512: a standard deviation of 1/sqrt(512) in each of 64 rows.
    assert result.std() > 0.0
    assert abs(float(result.mean()) - 1.0) < 6.0 / math.sqrt(512 * 64)


def test_the_softmax_is_the_caller_s() -> None:
    seen = []

    def softmax(scores: Tensor, axis: int) -> Tensor:
        seen.append((scores.shape, axis, bool(scores.isfinite().all())))
        return torch.softmax(scores, axis)

    query, key, value = tensors(torch.float32)
    attention(query, key, value, MASKS["infinite_with_an_empty_row"], softmax=softmax)
    # Masks reach it as finite numbers.
    assert seen == [((2, 4, QUERIES, KEYS), -1, True)]


def test_gradients() -> None:
    given = [x.requires_grad_() for x in tensors(torch.float64)]
    mask = MASKS["infinite_with_an_empty_row"].double()
    found = torch.autograd.grad(attention(*given, mask).square().sum(), given)
    wanted = torch.autograd.grad(F.scaled_dot_product_attention(*given, mask).square().sum(), given)
    for one, other in zip(found, wanted, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@given(
    scale=st.floats(-64.0, 64.0),
    shift=st.floats(-100.0, 100.0),
    masked=st.integers(0, KEYS - 1),
)
@settings(max_examples=40, deadline=None)
def test_large_scores_stay_finite(scale: float, shift: float, masked: int) -> None:
    query, key, value = tensors(torch.float64)
    mask = torch.full((QUERIES, KEYS), shift, dtype=torch.float64)
    mask[:, masked] = -torch.inf
    expected = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    result = attention(query, key, value, mask, scale=scale)
    assert result.isfinite().all()
    # Scores of up to 1,000 lose as many units of their last place.
    size = abs(scale) * CHANNELS * 16.0 + abs(shift)
    limit = 8.0 * (1.0 + size) * torch.finfo(torch.float64).eps * float(value.abs().max())
    assert (result - expected).abs().max() <= limit
