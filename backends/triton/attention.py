"""Attention as an operator of torch, whose exp is an expression of the library.

    from odp.backends.triton.attention import attention

    o = attention(q, k, v, causal=True)                       # bfloat16: exp within 1e-4
    o = attention(q, k, v, mask=mask, exp=approximant)        # the expression of a circuit

On a GPU the weights are never in memory; elsewhere the same exp is computed by torch.  With a
relative error e of exp, a weight is within (1 + e) / (1 - e) - 1 of what it should be, and a result
is within that of the largest |v|, besides what float32 and the type of the tensors round.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from odp.approximations.approximant import Approximant
from odp.approximations.errors import OdpError
from odp.backends.triton.attention_by_torch import (
    backward_by_torch,
    forward_by_torch,
    result_like,
)
from odp.backends.triton.attention_launch import launch_backward, launch_forward
from odp.backends.triton.devices import check_device, runs_kernels
from odp.backends.triton.functional import function_text
from odp.backends.triton.launch import DIVISIONS
from odp.backends.triton.operators import DTYPES
from odp.backends.triton.precision import default_error
from odp.kernels.device_function import exp_of_scores
from odp.kernels.functions import KernelFunction

__all__ = ["MOST_CHANNELS", "attention"]

MOST_CHANNELS = 256
"""Channels of a head that a block of registers has room for."""


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    exp: KernelFunction | Approximant | None = None,
    error: float | None = None,
    division: str = "fast",
) -> torch.Tensor:
    """`softmax(scale q k^T + mask) v`.

    Args:
        q: [batch, heads, queries, channels], up to 256 channels; bfloat16, float16 or float32
            (float64 on a CPU), any strides.
        k: [batch, key heads, keys, channels]; the heads of q are a multiple of those of k, and
            neighbours share one.
        v: like k.
        mask: numbers that are added to scaled scores, or booleans that say which keys are seen, of
            a shape that broadcasts to [batch, heads, queries, keys]; no gradient flows to it.
        causal: query i sees keys up to i + keys - queries, also where there is a mask.
        scale: positive; None for 1 / sqrt(channels).
        exp: how it is computed: for every float, or an expression for numbers up to 0.
        error: of exp, relative; None for that of the type, see `precision.default_error`.
        division: ``fast``, ``full`` or ``newton``, for one reciprocal a row and divisions in exp.

    Returns:
        A tensor like q.  A row that sees no key is 0.

    Raises:
        OdpError: shapes that do not fit, or a type, device or function that kernels do not take.
    """
    _check(q, k, v, mask, 1.0 if scale is None else scale, division)
    text = function_text("exp", exp, default_error(q.dtype) if error is None else error)
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1])
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -math.inf)
    # The one query of a step of decoding sees all keys.
    causal = causal and q.shape[2] > 1
    o: torch.Tensor = _attention(q, k, v, mask, causal, scale, text, division)[0]
    return o


@torch.library.custom_op("odp::attention", mutates_args=())
def _attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float,
    exp: str,
    division: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The result, and for each row the shift of its scores and the reciprocal of its sum."""
    _check(q, k, v, mask, scale, division)
    function = exp_of_scores(KernelFunction.parse(exp))
    if q.numel() == 0 or k.numel() == 0:
        o, shift, reciprocal = _results(q)
        return o.zero_(), shift.zero_(), reciprocal.zero_()
    if not _by_kernels(q):
        return forward_by_torch(q, k, v, mask, causal, scale, function)
    return launch_forward(q, k, v, mask, causal, scale, function, division)


@_attention.register_fake
def _(q: Any, k: Any, v: Any, mask: Any, causal: Any, scale: Any, exp: Any, division: Any) -> Any:
    return _results(q)


@torch.library.custom_op("odp::attention_backward", mutates_args=())
def _attention_backward(
    d_o: torch.Tensor,
    o: torch.Tensor,
    shift: torch.Tensor,
    reciprocal: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float,
    exp: str,
    division: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of q, k and v."""
    function = exp_of_scores(KernelFunction.parse(exp))
    if q.numel() == 0 or k.numel() == 0:
        return result_like(q).zero_(), result_like(k).zero_(), result_like(v).zero_()
    saved = (d_o, o, shift, reciprocal)
    if not _by_kernels(q):
        return backward_by_torch(*saved, q, k, v, mask, causal, scale, function)
    return launch_backward(*saved, q, k, v, mask, causal, scale, function, division)


@_attention_backward.register_fake
def _(d_o: Any, o: Any, shift: Any, reciprocal: Any, q: Any, k: Any, v: Any, *rest: Any) -> Any:
    return result_like(q), result_like(k), result_like(v)


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, v, mask, *ctx.rest = inputs
    if ctx.needs_input_grad[3]:
        raise OdpError(
            "attention: no gradient flows to the mask; detach it, or take functional.softmax"
        )
    o, shift, reciprocal = output
    ctx.save_for_backward(o, shift, reciprocal, q, k, v, mask)
    # They are for the derivative alone.
    ctx.mark_non_differentiable(shift, reciprocal)


def _differentiate(ctx: Any, d_o: torch.Tensor, *unused: Any) -> Any:
    gradients = _attention_backward(d_o, *ctx.saved_tensors, *ctx.rest)
    return *gradients, *(None for _ in range(5))


_attention.register_autograd(_differentiate, setup_context=_remember)


def _by_kernels(q: torch.Tensor) -> bool:
    return runs_kernels(q.device) and q.dtype != torch.float64


def _results(q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    shift, reciprocal = (q.new_empty(q.shape[:-1], dtype=wide) for _ in range(2))
    return result_like(q), shift, reciprocal


def _check(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    division: str,
) -> None:
    """Refuse what no kernel takes.

    Raises:
        OdpError: one line that says what it is.
    """
    check_device("attention", q.device)
    for name, x in (("k", k), ("v", v), ("mask", mask)):
        if x is not None and x.device != q.device:
            raise OdpError(
                f"attention: {name} is on {x.device}, q on {q.device}; move them together"
            )
    allowed = (*DTYPES, torch.float64) if q.device.type == "cpu" else DTYPES
    known = ", ".join(_name(dtype) for dtype in allowed)
    if q.dtype not in allowed:
        raise OdpError(f"attention: q is {_name(q.dtype)}; kernels take {known}")
    if k.dtype != q.dtype or v.dtype != q.dtype:
        kinds = f"q is {_name(q.dtype)}, k {_name(k.dtype)}, v {_name(v.dtype)}"
        raise OdpError(f"attention: {kinds}; convert them to one type")
    shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
    fits = q.dim() == k.dim() == 4 and k.shape == v.shape and q.shape[0] == k.shape[0]
    if not fits or q.shape[3] != k.shape[3]:
        raise OdpError(
            f"attention: {shapes} do not fit; q is [batch, heads, queries, channels], k and v are "
            "[batch, key heads, keys, channels]"
        )
    if k.shape[1] == 0 or q.shape[1] % k.shape[1] != 0:
        raise OdpError(
            f"attention: {q.shape[1]} heads of q cannot share {k.shape[1]} of k; their number must "
            "be a multiple"
        )
    if not 0 < q.shape[3] <= MOST_CHANNELS:
        raise OdpError(
            f"attention: kernels take heads of 1 to {MOST_CHANNELS} channels, not {q.shape[3]}"
        )
    if mask is not None:
        _check_mask(mask, (*q.shape[:3], k.shape[2]), (*allowed, torch.bool))
    if not 0 < scale < math.inf:
        raise OdpError(f"attention: scale must be a positive number, not {scale}")
    if division not in DIVISIONS:
        raise OdpError(
            f"attention: division is {', '.join(DIVISIONS[:-1])} or {DIVISIONS[-1]}, "
            f"not '{division}'"
        )


def _check_mask(
    mask: torch.Tensor, scores: tuple[int, ...], allowed: tuple[torch.dtype, ...]
) -> None:
    if mask.dtype not in allowed:
        known = ", ".join(_name(dtype) for dtype in allowed)
        raise OdpError(f"attention: the mask is {_name(mask.dtype)}; kernels take {known}")
    shape = tuple(mask.shape)
    padded = (1,) * (len(scores) - len(shape)) + shape
    if len(padded) != len(scores) or any(
        have not in (1, want) for have, want in zip(padded, scores, strict=True)
    ):
        raise OdpError(
            f"attention: a mask of {list(shape)} does not broadcast to the scores, {list(scores)}"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
