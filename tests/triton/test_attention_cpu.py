"""Attention by torch, with the exp of the kernels; and what torch asks of an operator."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch

from odp.approximations import OdpError, approximate
from odp.backends.triton.attention import attention
from odp.backends.triton.precision import default_error
from odp.kernels.functions import KernelFunction, from_approximant, kernel_function

from .attention_bounds import assert_within, attention_bounds, attention_reference

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter has tests of its own"
)

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
EXP = kernel_function("exp", 1e-4)


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
    **options: Any,
) -> torch.Tensor:
    """Result and gradients within their bounds."""
    exp = exp or kernel_function("exp", default_error(q.dtype))
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    o = attention(*inputs, exp=exp, **options)
    assert o.dtype == q.dtype and o.shape == q.shape
    d_o = torch.randn(q.shape).to(q.dtype)
    gradients = torch.autograd.grad(o, inputs, d_o)
    unit = torch.finfo(torch.float64 if q.dtype == torch.float64 else torch.float32).eps / 2
    bounds = attention_bounds(q, k, v, d_o, exp, unit=unit, **options)
    for name, found in zip(("o", "d_q", "d_k", "d_v"), (o, *gradients), strict=True):
        assert_within(found, bounds[name], name)
    return o


@pytest.mark.parametrize("causal", [False, True], ids=["whole", "causal"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_types(dtype: torch.dtype, causal: bool) -> None:
    check(*tensors(2, 6, 2, 40, 50, 24, dtype=dtype), causal=causal)


def test_the_reference_is_that_of_torch() -> None:
    q, k, v = tensors(2, 4, 2, 50, 50, 24, dtype=torch.float64)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    mask = torch.randn(2, 1, 50, 50).double()
    shared = v.repeat_interleave(2, 1)
    expected = sdpa(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(attention_reference(q, k, mask, scale=0.3) @ shared, expected)
    expected = sdpa(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(attention_reference(q, k, causal=True) @ shared, expected)


@pytest.mark.parametrize("shape", [(50,), (40, 50), (2, 1, 1, 50), (1, 4, 40, 50)], ids=str)
@pytest.mark.parametrize("kind", ["numbers", "booleans"])
def test_masks(shape: tuple[int, ...], kind: str) -> None:
    q, k, v = tensors(2, 4, 2, 40, 50, 16)
    seen = torch.rand(shape) > 0.4
    mask = seen if kind == "booleans" else torch.where(seen, torch.randn(shape), -math.inf)
    check(q, k, v, mask=mask)
    check(q, k, v, mask=mask, causal=True, scale=0.7)


def test_rows_that_see_nothing_are_zero() -> None:
    q, k, v = (x.requires_grad_() for x in tensors(1, 2, 2, 30, 20, 16))
    o = attention(q, k, v, causal=True)
    (d_q,) = torch.autograd.grad(o.sum(), [q])
    assert (o[:, :, :10] == 0).all() and (d_q[:, :, :10] == 0).all()
    assert (o[:, :, 10:] != 0).all()


def test_expressions_behind_a_clip() -> None:
    q, k, v = tensors(1, 4, 2, 40, 50, 16)
    approximant = approximate("exp", (-16.0, 0.0), error=1e-5)
    check(q, k, v, from_approximant(approximant), causal=True)
    given = attention(q, k, v, exp=approximant, causal=True)
    assert torch.equal(given, attention(q, k, v, exp=from_approximant(approximant), causal=True))


def test_the_error_decides_on_the_exp() -> None:
    q, k, v = tensors(1, 1, 1, 8, 8, 16)
    default = attention(q, k, v)
    assert torch.equal(default, attention(q, k, v, error=default_error(torch.float32)))
    assert not torch.equal(default, attention(q, k, v, error=1e-3))


def test_gradients_are_those_of_differences() -> None:
    # A derivative that puts exp into the formula of exp is off by the error of its slope, and this
    # one is far below what gradcheck allows.
    exp = from_approximant(approximate("exp", (-32.0, 0.0), error=1e-13, target="float64"))
    inputs = [x.requires_grad_() for x in tensors(1, 2, 1, 4, 5, 3, dtype=torch.float64)]
    for options in ({}, {"causal": True}, {"mask": torch.randn(5).double()}):
        torch.autograd.gradcheck(lambda *x, o=options: attention(*x, exp=exp, **o), inputs)


def test_only_what_needs_a_gradient_gets_one() -> None:
    q, k, v = tensors(1, 2, 1, 4, 5, 8)
    k.requires_grad_()
    attention(q, k, v).sum().backward()
    assert k.grad is not None and q.grad is None and v.grad is None


@pytest.mark.parametrize("extents", [(0, 4), (4, 0), (0, 0)])
def test_without_elements(extents: tuple[int, int]) -> None:
    q, k, v = (x.requires_grad_() for x in tensors(2, 2, 1, *extents, 8))
    o = attention(q, k, v)
    o.sum().backward()
    assert o.shape == q.shape and not o.any()
    assert all(x.grad.shape == x.shape and not x.grad.any() for x in (q, k, v))
    assert attention(*(x[:0] for x in (q, k, v))).shape == (0, 2, extents[0], 8)


LAYOUTS = {
    "contiguous": lambda x: x,
    "tokens first": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "channels apart": lambda x: x.mT.contiguous().mT,
    "sliced": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "broadcast": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_torch_accepts_the_operators(layout: str) -> None:
    inputs = [LAYOUTS[layout](x) for x in tensors(2, 4, 2, 5, 6, 8)]
    inputs = [x.detach().requires_grad_() for x in inputs]
    mask = torch.randn(2, 1, 5, 6)
    for given, causal in ((mask, False), (None, True)):
        arguments = (*inputs, given, causal, 0.3, EXP.text, "fast")
        torch.library.opcheck(torch.ops.odp.attention.default, arguments)
        with torch.no_grad():
            saved = torch.ops.odp.attention(*arguments)
        d_o = torch.randn(saved[0].shape)
        plain = (x.detach() for x in inputs)
        torch.library.opcheck(
            torch.ops.odp.attention_backward.default,
            (d_o, *saved, *plain, given, causal, 0.3, EXP.text, "fast"),
        )


def test_compiles_without_a_break() -> None:
    def block(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention(q * 2, k, v, causal=True).transpose(1, 2).flatten(2)

    inputs = [x.requires_grad_() for x in tensors(2, 4, 2, 9, 9, 8)]
    fast = torch.compile(block, fullgraph=True, backend="aot_eager")
    for function in (block, fast):
        o = function(*inputs)
        found = (o.detach(), *torch.autograd.grad(o.square().sum(), inputs))
        if function is block:
            expected = found
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_an_exported_program_keeps_one_node() -> None:
    class Block(torch.nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return attention(q, k, v, mask=torch.ones(k.shape[2], dtype=torch.bool))

    inputs = tensors(2, 4, 2, 9, 7, 8)
    keys = torch.export.Dim("keys", min=2, max=100)
    program = torch.export.export(Block(), inputs, dynamic_shapes=[{}, {2: keys}, {2: keys}])
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert names.count("odp.attention.default") == 1
    assert not any("exp" in name or "softmax" in name for name in names)
    q, k, v = tensors(2, 4, 2, 9, 30, 8)
    torch.testing.assert_close(program.module()(q, k, v), attention(q, k, v))


Q, K, V = tensors(2, 4, 2, 5, 6, 8)
REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("q is int64; kernels take bfloat16", (Q.long(), K, V), {}),
    ("q is float32, k float16", (Q, K.half(), V), {}),
    ("do not fit; q is [batch, heads", (Q[0], K, V), {}),
    ("do not fit", (Q, K, V[:, :, :3]), {}),
    ("do not fit", (Q, K[..., :4], V[..., :4]), {}),
    ("do not fit", (Q[:1], K, V), {}),
    ("3 heads of q cannot share 2 of k", (Q[:, :3], K, V), {}),
    ("1 to 256 channels, not 257", tuple(torch.randn(1, 1, 2, 257) for _ in range(3)), {}),
    ("a mask of [5, 7] does not broadcast", (Q, K, V), {"mask": torch.ones(5, 7)}),
    ("the mask is int64", (Q, K, V), {"mask": torch.ones(5, 6).long()}),
    ("scale must be a positive number, not -1.0", (Q, K, V), {"scale": -1.0}),
    ("scale must be a positive number, not nan", (Q, K, V), {"scale": math.nan}),
    ("division is fast, full or newton, not 'slow'", (Q, K, V), {"division": "slow"}),
    ("k is on meta, q on cpu", (Q, K.to("meta"), V), {}),
    ("one for rsqrt", (Q, K, V), {"exp": kernel_function("rsqrt", 1e-3)}),
    ("made for [-4, -1]", (Q, K, V), {"exp": approximate("exp", (-4.0, -1.0), error=1e-3)}),
]


@pytest.mark.parametrize(
    ("message", "inputs", "options"), REFUSED, ids=[row[0][:40] for row in REFUSED]
)
def test_refuses_in_one_line(
    message: str, inputs: tuple[torch.Tensor, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(OdpError) as caught:
        attention(*inputs, **options)
    text = str(caught.value)
    assert message in text and "\n" not in text and text.startswith("attention: ")


def test_refuses_a_mask_that_wants_a_gradient() -> None:
    mask = torch.zeros(6, requires_grad=True)
    with pytest.raises(OdpError, match="no gradient flows to the mask"):
        attention(Q, K, V, mask=mask)
    with torch.no_grad():
        attention(Q, K, V, mask=mask)


def test_refuses_a_text_that_is_no_function() -> None:
    with pytest.raises(OdpError, match="no function of a kernel"):
        torch.ops.odp.attention(Q, K, V, None, False, 1.0, "exp", "fast")
