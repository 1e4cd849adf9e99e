"""Launches of the kernels of attention."""

from __future__ import annotations

import math
from typing import Any

import torch

from odp.approximations.errors import OdpError
from odp.backends.triton.attention_blocks import Pass, attention_blocks
from odp.backends.triton.attention_by_torch import result_like
from odp.backends.triton.devices import interpreted
from odp.kernels.device_function import power_of_two
from odp.kernels.functions import KernelFunction

__all__ = ["launch_backward", "launch_forward"]

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

# Of the second and third index of a grid.
_MOST_PROGRAMS = 65535


def launch_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float,
    exp: KernelFunction,
    division: str,
) -> Three:
    """See `odp.backends.triton.attention_by_torch.forward_by_torch`; by one kernel.

    Shifts are integers, in units of powers of two.

    Raises:
        OdpError: a GPU without bfloat16, for tensors of bfloat16.
    """
    from odp.kernels.attention_forward import attention_forward_kernel

    call = _Call(q, k, mask, causal, scale, exp, division)
    o = call.result(q)
    shift, reciprocal = call.row_result(), call.row_result()
    tensors = [_by_channels(x) for x in (q, k, v)]
    call.launch(
        attention_forward_kernel,
        "forward",
        [*tensors, call.mask, o, shift, reciprocal],
        [call.factor, 1 / call.factor],
        [*tensors, o],
        INTERPRETED=interpreted(),
    )
    return o.to(q.dtype), shift, reciprocal


def launch_backward(
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
    exp: KernelFunction,
    division: str,
) -> Three:
    """See `odp.backends.triton.attention_by_torch.backward_by_torch`; by two kernels."""
    from odp.kernels.attention_backward_keys import attention_keys_backward_kernel
    from odp.kernels.attention_backward_queries import attention_queries_backward_kernel

    call = _Call(q, k, mask, causal, scale, exp, division)
    d_q, d_k, d_v = (call.result(x) for x in (q, k, v))
    delta = call.row_result()
    shift, reciprocal = shift.contiguous(), reciprocal.contiguous()
    d_o, o, q, k, v = (_by_channels(x) for x in (d_o, o, q, k, v))
    numbers = [call.factor, 1 / call.factor, scale]
    call.launch(
        attention_queries_backward_kernel,
        "queries",
        [d_o, o, shift, reciprocal, delta, q, k, v, call.mask, d_q],
        numbers,
        [d_o, o, q, k, v, d_q],
    )
    call.launch(
        attention_keys_backward_kernel,
        "keys",
        [d_o, shift, reciprocal, delta, q, k, v, call.mask, d_k, d_v],
        numbers,
        [d_o, q, k, v, d_k, d_v],
    )
    return d_q.to(q.dtype), d_k.to(k.dtype), d_v.to(v.dtype)


class _Call:
    """What the kernels of one call have in common."""

    def __init__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        mask: torch.Tensor | None,
        causal: bool,
        scale: float,
        exp: KernelFunction,
        division: str,
    ) -> None:
        self.q = q
        self.batches, self.heads, self.queries, self.channels = q.shape
        self.key_heads, self.keys = k.shape[1:3]
        self.mask = mask
        self.kind = "none"
        if mask is not None:
            self.mask = mask.expand(self.batches, self.heads, self.queries, self.keys)
            self.kind = "keys" if self.mask.stride(2) == 0 else "full"
        self.causal = causal
        power = power_of_two(exp)
        # An expression behind a clip gets powers of two, too.
        self.factor = scale * math.log2(math.e)
        self.constants: dict[str, Any] = {
            "FUNCTION": power.function,
            "REDUCED": power.reduced,
            # libdevice is not in the interpreter.
            "DIVISION": "full" if interpreted() and division == "fast" else division,
            "GROUP": self.heads // self.key_heads,
            "CAUSAL": causal,
            "MASK": self.kind,
            # Without bfloat16 in the interpreter, products take float32 there.
            "WIDE": interpreted() and q.dtype == torch.bfloat16,
            "CHANNELS": self.channels,
            "BLOCK_CHANNELS": max(16, 1 << (self.channels - 1).bit_length()),
        }

    def result(self, x: torch.Tensor) -> torch.Tensor:
        """For a result like `x`, rounded by torch: the interpreter rounds bfloat16 to zero."""
        narrow = interpreted() and x.dtype == torch.bfloat16
        return result_like(x, torch.float32 if narrow else x.dtype)

    def row_result(self) -> torch.Tensor:
        """For a float32 for each row."""
        return self.q.new_empty(self.q.shape[:-1], dtype=torch.float32)

    def launch(
        self,
        kernel: Any,
        which: Pass,
        tensors: list[torch.Tensor | None],
        numbers: list[float],
        placed: list[torch.Tensor],
        **constants: Any,
    ) -> None:
        """Launch a kernel over all blocks, heads and batches.

        Args:
            kernel: the function.
            which: of the passes.
            tensors: its pointers, in order.
            numbers: after the numbers of queries and keys.
            placed: tensors whose strides it takes, in order; those of the mask follow.
            **constants: that only this kernel takes.
        """
        blocks = attention_blocks(
            which, self.channels, self.q.dtype, _capability(self.q), self.mask is not None
        )
        queries, keys = (
            min(block, max(16, 1 << (extent - 1).bit_length()))
            for block, extent in ((blocks.queries, self.queries), (blocks.keys, self.keys))
        )
        count = -(-self.keys // keys) if which == "keys" else -(-self.queries // queries)
        heads = self.key_heads if which == "keys" else self.heads
        options = {} if interpreted() else blocks.options
        mask_strides = (0, 0, 0, 0) if self.mask is None else self.mask.stride()
        for start in range(0, self.batches, _MOST_PROGRAMS):
            part = slice(start, start + _MOST_PROGRAMS)
            kernel[(count, heads, min(self.batches - start, _MOST_PROGRAMS))](
                *(x if x is None else x[part] for x in tensors),
                *(self.queries, self.keys, *numbers),
                *(stride for x in placed for stride in x.stride()[:3]),
                *mask_strides,
                **self.constants,
                **constants,
                BLOCK_QUERIES=queries,
                BLOCK_KEYS=keys,
                **options,
            )


def _by_channels(x: torch.Tensor) -> torch.Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _capability(q: torch.Tensor) -> int | None:
    """Compute capability times ten; None in the interpreter.

    Raises:
        OdpError: see `launch_forward`.
    """
    if q.device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(q.device)
    if q.dtype == torch.bfloat16 and major < 8:
        raise OdpError(
            f"attention: a GPU of compute capability {major}.{minor} has no bfloat16; take float16"
        )
    return 10 * major + minor
