"""How many queries and keys a program of attention holds: by channels and GPU, without trials.

The blocks are the largest of those tried for which no register is spilled, forward with a causal
mask, for float16 (which has the longer polynomial for exp) and by the compiler of Triton 3.9; their
shared memory is within 227 KiB of H100 and B200, and 99 KiB of every other GPU, an RTX among them.
`tests/triton/test_attention_machine_code.py` compiles them and counts.  Nothing here was timed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

__all__ = ["Blocks", "Pass", "attention_blocks"]

Pass = Literal["forward", "queries", "keys"]
"""The forward kernel, and the backward ones by whose gradient they give."""


@dataclass(frozen=True)
class Blocks:
    """Shape of a program."""

    queries: int
    keys: int
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, Any]:
        """Options of a launch."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


Table = Mapping[tuple[Pass, int], Blocks]

# H100, H200, B200: tensor cores read shared memory.
_LARGE: Table = {
    ("forward", 64): Blocks(128, 128, 8, 3),
    ("forward", 128): Blocks(128, 64, 8, 3),
    ("forward", 256): Blocks(128, 32, 8, 2),
    ("queries", 64): Blocks(128, 64, 8, 2),
    ("queries", 128): Blocks(128, 64, 8, 2),
    ("queries", 256): Blocks(32, 32, 8, 1),
    ("keys", 64): Blocks(64, 128, 8, 2),
    ("keys", 128): Blocks(32, 128, 8, 1),
    ("keys", 256): Blocks(32, 32, 8, 2),
}
# Tensor cores read registers.
_MIDDLE: Table = {
    ("forward", 64): Blocks(128, 64, 4, 2),
    ("forward", 128): Blocks(128, 64, 8, 2),
    ("forward", 256): Blocks(64, 32, 8, 2),
    ("queries", 64): Blocks(128, 64, 8, 2),
    ("queries", 128): Blocks(128, 32, 8, 2),
    ("queries", 256): Blocks(32, 32, 8, 1),
    ("keys", 64): Blocks(32, 64, 4, 2),
    ("keys", 128): Blocks(64, 64, 8, 1),
    ("keys", 256): Blocks(32, 32, 8, 1),
}
# Products are sums of fused multiply-adds, whose operands Triton holds in registers all at once:
# the backward pass spills some beyond 128 channels, in the smallest block there is.
_SMALL: Table = {
    ("forward", 64): Blocks(64, 32, 8, 1),
    ("forward", 128): Blocks(32, 32, 8, 1),
    ("forward", 256): Blocks(32, 16, 8, 1),
    ("queries", 64): Blocks(32, 32, 8, 1),
    ("queries", 128): Blocks(16, 16, 8, 1),
    ("queries", 256): Blocks(16, 16, 8, 1),
    ("keys", 64): Blocks(32, 32, 8, 1),
    ("keys", 128): Blocks(16, 16, 8, 1),
    ("keys", 256): Blocks(16, 16, 8, 1),
}
# An operation costs 15 us a program in the interpreter, whatever the size of a block.
_INTERPRETED = Blocks(64, 64, 4, 1)


def attention_blocks(
    which: Pass, channels: int, dtype: torch.dtype, capability: int | None, masked: bool = False
) -> Blocks:
    """The blocks of one kernel.

    Args:
        which: kernel.
        channels: of a head, up to 256.
        dtype: of the tensors; float32 has no tensor cores that would be exact to its last bits,
            and Triton uses none of compute capability 7.5.
        capability: compute capability times ten; None for the interpreter.
        masked: whether there is a mask, for whose registers a step is half as long.

    >>> attention_blocks("forward", 80, torch.bfloat16, 90)
    Blocks(queries=128, keys=64, warps=8, stages=3)
    """
    if capability is None:
        return _INTERPRETED
    if dtype == torch.float32 or capability < 80:
        table = _SMALL
    else:
        table = _LARGE if 90 <= capability < 120 else _MIDDLE
    found = table[which, next(size for size in (64, 128, 256) if channels <= size)]
    if not masked:
        return found
    if which == "keys":
        return replace(found, queries=max(16, found.queries // 2))
    return replace(found, keys=max(16, found.keys // 2))
