"""Rotary position embeddings as an operator of torch."""

from __future__ import annotations

from typing import Any

import torch

from odp.approximations.errors import OdpError
from odp.backends.triton.devices import check_device, interpreted, runs_kernels
from odp.backends.triton.operators import DTYPES

__all__ = ["rope"]

# Pairs of channels that a program holds at a time: 32 heads of 64 channels.
_PAIRS = 1024


def rope(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    interleaved: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries and keys by the angles of their positions.

    Args:
        q: [batch, heads, tokens, channels], any strides.
        k: [batch, key heads, tokens, channels].
        cos: [tokens, rotated] or [batch or 1, tokens, rotated]: cosines of the angles, one a
            channel; the first and the second half are those of the same pairs.  Channels beyond
            `rotated` stay as they are.
        sin: likewise.
        interleaved: pairs are neighbours (GPT-J) instead of channels half of `rotated` apart.

    Returns:
        The rotated queries and keys, in the layout of `q` and `k`.

    Raises:
        OdpError: shapes that do not fit, or a type or device that kernels do not take.
    """
    _check(q, k, cos, sin)
    rotated: tuple[torch.Tensor, torch.Tensor] = _rope(q, k, cos, sin, interleaved)
    return rotated


@torch.library.custom_op("odp::rope", mutates_args=())
def _rope(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    return _run(q, k, cos, sin, interleaved, backward=False)


@torch.library.custom_op("odp::rope_backward", mutates_args=())
def _rope_backward(
    d_q: torch.Tensor, d_k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    return _run(d_q, d_k, cos, sin, interleaved, backward=True)


@_rope.register_fake
@_rope_backward.register_fake
def _(q: Any, k: Any, cos: Any, sin: Any, interleaved: bool) -> Any:
    return torch.empty_like(q), torch.empty_like(k)


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    _, _, cos, sin, ctx.interleaved = inputs
    ctx.save_for_backward(cos, sin)


def _differentiate(ctx: Any, d_q: torch.Tensor, d_k: torch.Tensor) -> Any:
    return *_rope_backward(d_q, d_k, *ctx.saved_tensors, ctx.interleaved), None, None, None


_rope.register_autograd(_differentiate, setup_context=_remember)


def _check(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    check_device("rope", q.device)
    shapes = f"q {list(q.shape)}, k {list(k.shape)}, cos {list(cos.shape)}, sin {list(sin.shape)}"
    if any(x.device != q.device for x in (k, cos, sin)):
        raise OdpError(f"rope: q is on {q.device}, another tensor is not; move them together")
    allowed = (*DTYPES, torch.float64) if q.device.type == "cpu" else DTYPES
    for name, x in (("q", q), ("k", k), ("cos", cos), ("sin", sin)):
        if x.dtype not in allowed:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
            kind = str(x.dtype).removeprefix("torch.")
            raise OdpError(f"rope: {name} is {kind}; kernels take {known}")
    fits = (
        q.dim() == k.dim() == 4
        and q.shape[0] == k.shape[0]
        and q.shape[2:] == k.shape[2:]
        and cos.shape == sin.shape
        and cos.dim() in (2, 3)
        and cos.shape[-2] == q.shape[2]
        and cos.shape[-1] % 2 == 0
        and 0 < cos.shape[-1] <= q.shape[-1]
        and (cos.dim() == 2 or cos.shape[0] in (1, q.shape[0]))
    )
    if not fits:
        raise OdpError(
            f"rope: {shapes} do not fit; q and k are [batch, heads, tokens, channels], cos and sin "
            "[tokens, rotated] or [batch or 1, tokens, rotated], with an even number of rotated "
            "channels"
        )


def _run(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    interleaved: bool,
    backward: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    if not runs_kernels(q.device):
        cos, sin = (x if x.dim() == 3 else x[None] for x in (cos, sin))
        a, b = (_by_torch(x, cos, sin, interleaved, backward) for x in (q, k))
        return a, b
    from odp.kernels.rope import rope_kernel

    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    cos, sin = cos.contiguous(), sin.contiguous()
    rotated = torch.empty_like(q), torch.empty_like(k)
    if q.numel() == 0 and k.numel() == 0:
        return rotated
    half, channels = cos.shape[-1] // 2, q.shape[-1]
    rest = channels - 2 * half
    block = 1 << (half - 1).bit_length()
    heads = 1 << (max(q.shape[1], k.shape[1], 1) - 1).bit_length()
    batches, tokens = q.shape[0], q.shape[2]
    per_batch = cos.stride(0) if cos.dim() == 3 and cos.shape[0] > 1 else 0
    options = {} if interpreted() else {"num_warps": 4}
    rope_kernel[(batches * tokens,)](
        *(q, k, cos, sin, *rotated, q.shape[1], k.shape[1], tokens),
        *(x.stride(i) for x in (q, k, *rotated) for i in range(3)),
        *(per_batch, cos.stride(-2)),
        HALF=half,
        REST=rest,
        INTERLEAVED=interleaved,
        BACKWARD=backward,
        HEADS=min(heads, max(_PAIRS // block, 1)),
        BLOCK=block,
        REST_BLOCK=1 << max(rest - 1, 0).bit_length(),
        **options,
    )
    return rotated


def _by_torch(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool, backward: bool
) -> torch.Tensor:
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    width = cos.shape[-1]
    half = width // 2
    first = slice(0, width, 2) if interleaved else slice(0, half)
    second = slice(1, width, 2) if interleaved else slice(half, width)
    cos, sin = cos.to(wide)[:, None], sin.to(wide)[:, None]
    a, b = x[..., first].to(wide), x[..., second].to(wide)
    up, down = -sin[..., first], sin[..., second]
    # The transposed matrix.
    up, down = (down, up) if backward else (up, down)
    rotated = torch.empty_like(x)
    rotated[..., first] = (a * cos[..., first] + b * up).to(x.dtype)
    rotated[..., second] = (b * cos[..., second] + a * down).to(x.dtype)
    rotated[..., width:] = x[..., width:]
    return rotated
