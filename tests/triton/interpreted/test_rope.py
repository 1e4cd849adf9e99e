"""Rotary embeddings in the interpreter: layouts of queries, keys and tables, both directions."""

from __future__ import annotations

import pytest
import torch

from odp.backends.triton.functional import rope

from ..checks import DTYPES, assert_within
from ..references import rotated, rotation_error

Tensor = torch.Tensor


def tables(*shape: int, interleaved: bool = False) -> tuple[Tensor, Tensor]:
    """Cosines and sines, [..., tokens, channels] with the angle of each pair twice."""
    angles = torch.randn(*shape[:-1], shape[-1] // 2) * 3
    angles = angles.repeat_interleave(2, -1) if interleaved else torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def check(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> None:
    """Results and gradients."""
    leaves = [x.detach().requires_grad_() for x in (q, k)]
    found = rope(*leaves, cos, sin, interleaved=interleaved)
    for leaf, y in zip(leaves, found, strict=True):
        assert y.dtype == leaf.dtype
        expected = rotated(leaf.detach(), cos, sin, interleaved)
        error = rotation_error(expected, leaf.detach(), cos, sin, interleaved)
        assert_within(y, expected, error)
    incoming = [torch.randn_like(y) for y in found]
    for leaf, d, gradient in zip(
        leaves, incoming, torch.autograd.grad(found, leaves, incoming), strict=True
    ):
        wide = leaf.detach().double().requires_grad_()
        (expected,) = torch.autograd.grad(rotated(wide, cos, sin, interleaved), wide, d.double())
        error = rotation_error(expected, d, cos, sin, interleaved)
        assert_within(gradient, expected, error)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rotation_is_within_the_bound(dtype: torch.dtype, interleaved: bool) -> None:
    q, k = (torch.randn(2, heads, 3, 16).to(dtype) for heads in (4, 2))
    cos, sin = tables(3, 16, interleaved=interleaved)
    check(q, k, cos, sin, interleaved)
    check(q, k, cos.to(dtype), sin.to(dtype), interleaved)


@pytest.mark.parametrize("rotated_channels, channels", [(2, 2), (6, 6), (6, 9), (12, 16), (2, 40)])
def test_channels_that_are_no_power_of_two_and_those_that_stay(
    rotated_channels: int, channels: int
) -> None:
    for interleaved in (False, True):
        q, k = torch.randn(1, 2, 3, channels), torch.randn(1, 1, 3, channels)
        check(q, k, *tables(3, rotated_channels, interleaved=interleaved), interleaved)


@pytest.mark.parametrize("heads, key_heads", [(1, 1), (3, 1), (5, 3), (1, 4)])
def test_any_number_of_heads(heads: int, key_heads: int) -> None:
    check(torch.randn(2, heads, 3, 8), torch.randn(2, key_heads, 3, 8), *tables(3, 8))


def test_more_heads_than_one_block() -> None:
    check(torch.randn(1, 9, 2, 512), torch.randn(1, 5, 2, 512), *tables(2, 512))


def test_strides() -> None:
    q = torch.randn(2, 3, 4, 8).transpose(1, 2)
    packed = torch.randn(2, 3, 2, 3 * 8).transpose(1, 2)
    cos, sin = tables(3, 8)
    check(q, packed[..., 8:16], cos, sin)
    check(q, torch.randn(2, 1, 3, 8).expand(2, 4, 3, 8), cos, sin)
    check(torch.randn(2, 4, 8, 3).transpose(2, 3), packed[..., 16:], cos, sin)
    check(q, q, cos.t().contiguous().t(), sin.repeat_interleave(2, 0)[::2])


def test_tables_for_each_batch_and_for_all() -> None:
    q, k = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 3, 8)
    check(q, k, *tables(2, 3, 8))
    check(q, k, *tables(1, 3, 8))


def test_results_have_the_layout_of_their_operands() -> None:
    q, k = torch.randn(2, 3, 4, 8).transpose(1, 2), torch.randn(2, 2, 3, 8)
    for x, y in zip((q, k), rope(q, k, *tables(3, 8)), strict=True):
        assert y.stride() == x.stride()


@pytest.mark.parametrize("shape", [(0, 2, 3, 8), (2, 0, 3, 8), (2, 2, 0, 8)])
def test_empty_tensors(shape: tuple[int, ...]) -> None:
    q = torch.randn(shape)
    cos, sin = tables(shape[2], 8)
    a, b = rope(q, q, cos, sin)
    assert a.shape == b.shape == shape


def test_no_queries_but_keys() -> None:
    k = torch.randn(2, 2, 3, 8)
    cos, sin = tables(3, 8)
    _, found = rope(torch.randn(2, 0, 3, 8), k, cos, sin)
    expected = rotated(k, cos, sin, interleaved=False)
    assert_within(found, expected, rotation_error(expected, k, cos, sin, interleaved=False))


def test_nan_stays_in_its_pair() -> None:
    q = torch.randn(1, 2, 3, 8)
    q[0, 1, 2, 3] = torch.nan
    found, other = rope(q, q[:, :1], *tables(3, 8))
    assert found.isnan().nonzero().tolist() == [[0, 1, 2, 3], [0, 1, 2, 7]]
    assert not other.isnan().any()
