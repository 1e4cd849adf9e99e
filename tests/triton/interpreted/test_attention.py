"""Kernels of attention in the interpreter, against float64 and bounds from certified errors."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch

from odp.approximations import approximate
from odp.backends.triton.attention import attention
from odp.backends.triton.precision import default_error
from odp.kernels.functions import KernelFunction, from_approximant, kernel_function

from ..attention_bounds import assert_within, attention_bounds

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="runs in test_interpreter.py"
)

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def tensors(
    *shape: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of batch, heads, key heads, queries, keys, channels."""
    batch, heads, key_heads, queries, keys, channels = shape
    torch.manual_seed(sum(shape))
    q = torch.randn(batch, heads, queries, channels).to(dtype)
    k, v = (torch.randn(batch, key_heads, keys, channels).to(dtype) for _ in range(2))
    return q, k, v


def check(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    exp: KernelFunction | None = None,
    division: str = "fast",
    **options: Any,
) -> torch.Tensor:
    """Result and gradients within their bounds."""
    exp = exp or kernel_function("exp", default_error(q.dtype))
    q, k, v = q.detach(), k.detach(), v.detach()
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    o = attention(*inputs, exp=exp, division=division, **options)
    assert o.dtype == q.dtype and o.shape == q.shape
    d_o = torch.randn(q.shape).to(q.dtype)
    gradients = torch.autograd.grad(o, inputs, d_o)
    # Products of bfloat16 take float32 in the interpreter.
    narrow = q.dtype == torch.float16
    bounds = attention_bounds(q, k, v, d_o, exp, narrow=narrow, **options)
    for name, found in zip(("o", "d_q", "d_k", "d_v"), (o, *gradients), strict=True):
        assert_within(found, bounds[name], name)
    return o


@pytest.mark.parametrize("causal", [False, True], ids=["whole", "causal"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_types(dtype: torch.dtype, causal: bool) -> None:
    check(*tensors(1, 2, 1, 70, 90, 24, dtype=dtype), causal=causal)


@pytest.mark.parametrize("channels", [1, 16, 33, 80, 256])
def test_heads_of_any_size(channels: int) -> None:
    check(*tensors(1, 2, 1, 33, 40, channels), causal=channels % 2 == 0)


@pytest.mark.parametrize("extents", [(1, 1), (1, 130), (130, 1), (64, 64), (128, 64), (65, 129)])
@pytest.mark.parametrize("causal", [False, True], ids=["whole", "causal"])
def test_any_number_of_queries_and_keys(extents: tuple[int, int], causal: bool) -> None:
    check(*tensors(1, 1, 1, *extents, 16), causal=causal)


@pytest.mark.parametrize(
    "shape", [(2, 1, 1, 70), (70,), (40, 70), (1, 2, 40, 70), (2, 1, 40, 1)], ids=str
)
@pytest.mark.parametrize("kind", ["numbers", "booleans"])
def test_masks(shape: tuple[int, ...], kind: str) -> None:
    q, k, v = tensors(2, 2, 1, 40, 70, 16)
    seen = torch.rand(shape) > 0.4
    numbers = torch.where(seen, torch.randn(shape), -math.inf)
    check(q, k, v, mask=seen if kind == "booleans" else numbers)


def test_a_mask_of_any_strides_and_causal() -> None:
    q, k, v = tensors(2, 2, 2, 40, 70, 16)
    mask = torch.randn(70, 2, 40).permute(1, 2, 0)[:, None].half()
    check(q, k, v, mask=mask, causal=True)


@pytest.mark.parametrize("division", ["full", "newton"])
def test_rows_that_see_nothing_are_zero(division: str) -> None:
    q, k, v = (x.requires_grad_() for x in tensors(1, 2, 2, 90, 70, 16))
    mask = torch.zeros(1, 1, 90, 70)
    mask[:, :, 50] = -math.inf
    o = attention(q, k, v, mask=mask, causal=True, division=division)
    (d_q,) = torch.autograd.grad(o.sum(), [q])
    unseen = [*range(20), 50]
    assert (o[:, :, unseen] == 0).all() and (d_q[:, :, unseen] == 0).all()
    check(q, k, v, mask=mask, causal=True, division=division)


def test_layouts() -> None:
    fused = torch.randn(2, 40, 3, 4, 16)
    check(*(x.transpose(1, 2) for x in fused.unbind(2)), causal=True)
    q, k, v = tensors(2, 4, 1, 40, 50, 16)
    check(q.mT.contiguous().mT, k[:1].expand(2, -1, -1, -1), v[:, :, :1].expand(-1, -1, 50, -1))


@pytest.mark.parametrize(
    "options",
    [{}, {"scheme": "minimax", "form": "raw"}],
    ids=["polynomial", "rational"],
)
@pytest.mark.parametrize("division", ["full", "newton"])
def test_an_expression_behind_a_clip(options: dict[str, Any], division: str) -> None:
    domain = (-8.0, 0.0) if options else (-32.0, 0.0)
    exp = from_approximant(approximate("exp", domain, error=1e-5, **options))
    q, k, v = tensors(1, 4, 2, 40, 50, 16)
    mask = torch.where(torch.rand(50) > 0.4, torch.randn(50), -math.inf)
    check(q, k, v, exp, division, causal=True)
    check(q, k, v, exp, division, mask=mask)
    assert bool(options) == bool(exp.expression.counts.divisions)


def test_newton_steps_need_no_special_function() -> None:
    check(*tensors(1, 2, 2, 40, 50, 16), division="newton")


def test_a_rough_exp_adds_its_error_once_whatever_the_number_of_blocks() -> None:
    # Scores that rise from block to block: the largest of the row changes in every one.
    q, k, v = tensors(1, 1, 1, 16, 1000, 16)
    k = k + torch.arange(1000)[:, None] / 100
    check(q.abs(), k, v, kernel_function("exp", 2e-3))


def test_scores_of_any_size() -> None:
    q, k, v = tensors(1, 2, 2, 40, 50, 16)
    check(q * 300, k, v)
    # So far apart that one key has all the weight: its power times the reciprocal of its power.
    o = attention(q * 1e3, k * 1e3, v)
    best = (q @ k.mT).argmax(-1, keepdim=True).expand(-1, -1, -1, 16)
    expected = v.gather(2, best)
    assert ((o - expected).abs() <= 2**-22 * expected.abs()).all()


@pytest.mark.parametrize("hidden", [-3.4e38, -1e30, -65504.0])
def test_large_negative_numbers_hide_keys(hidden: float) -> None:
    q, k, v = tensors(1, 2, 2, 40, 90, 16)
    seen = torch.rand(40, 90) > 0.5
    mask = torch.where(seen, 0.0, hidden)
    assert torch.equal(attention(q, k, v, mask=mask), attention(q, k, v, mask=seen))


@pytest.mark.parametrize("clip", [False, True])
def test_what_is_not_a_number_stays_in_its_row(clip: bool) -> None:
    q, k, v = tensors(1, 2, 2, 40, 50, 16)
    q[0, 1, 7, 3] = math.nan
    exp = approximate("exp", (-16.0, 0.0), error=1e-4) if clip else None
    o = attention(q, k, v, exp=exp, causal=True)
    expected = torch.zeros(1, 2, 40, 16, dtype=torch.bool)
    expected[0, 1, 7] = True
    assert torch.equal(o.isnan(), expected)


def test_a_row_with_a_score_that_is_no_number_has_no_reciprocal() -> None:
    # The bits of a power are no NaN on a GPU, so that this is what makes the row one.
    q, k, v = tensors(1, 1, 1, 40, 150, 16)
    mask = torch.zeros(40, 150)
    mask[3, 2], mask[5, 140], mask[8] = math.nan, math.inf, -math.inf
    exp = kernel_function("exp", 1e-4)
    _, shift, reciprocal = torch.ops.odp.attention(q, k, v, mask, False, 1.0, exp.text, "full")
    assert reciprocal[0, 0].isnan().nonzero().flatten().tolist() == [3, 5]
    assert shift[0, 0, 8] == reciprocal[0, 0, 8] == 0
    inputs = [x.requires_grad_() for x in (q, k, v)]
    o = attention(*inputs, mask=mask, exp=exp)
    d_q, d_k, _ = torch.autograd.grad(o[:, :, 3].sum(), inputs)
    assert d_q[0, 0, 3].isnan().all() and d_k.isnan().all()


def test_batches_are_launched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odp.backends.triton.attention_launch._MOST_PROGRAMS", 2)
    q, k, v = tensors(5, 2, 1, 17, 18, 16)
    check(q, k, v, mask=torch.randn(5, 1, 17, 18))
