"""Adapters in 8-bit integers: beside ternary weights, all products stay products of integers.

The levels of the activations, int8, meet `down`, int8; their sums meet `up`, int8; one float scale
for each output row is all that is left.  The scales of the rows of A are moved into the columns of
B before B is rounded, so that none stands between the two products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Int8Adapter", "rounded_adapter"]

_LARGEST = 127
# Of a row: smaller ones are zeros.
_SMALLEST = 1e-30


@dataclass(frozen=True)
class Int8Adapter:
    """An adapter that adds scale * up @ down to a weight.

    Attributes:
        down: int8, (r, in).
        up: int8, (out, r).
        scale: float32, (out, 1).
        down_scale: of the rows of `down` before it went into `up`; float32, (r, 1).
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: torch.Tensor
    down_scale: torch.Tensor

    def dense(self) -> torch.Tensor:
        """What is added to the weight, float32, (out, in)."""
        # Exact: integers below 2^24 for ranks up to 1,040.
        return self.scale * (self.up.float() @ self.down.float())

    def on_levels(self, levels: torch.Tensor) -> torch.Tensor:
        """The integers that `scale` multiplies: int64, (..., out), of levels (..., in).

        127 * 128 * in * 127 * r at most: 38 bits for r = 16 and in = 6,912, exact in int64.
        """
        inner = levels.to(torch.int64) @ self.down.to(torch.int64).T
        return inner @ self.up.to(torch.int64).T

    def down_values(self, dtype: torch.dtype) -> torch.Tensor:
        """A as rounded, (r, in)."""
        return (self.down.float() * self.down_scale).to(dtype)

    def up_values(self, dtype: torch.dtype) -> torch.Tensor:
        """B as rounded, (out, r)."""
        return (self.up.float() * self.scale / self.down_scale.T).to(dtype)


def rounded_adapter(down: torch.Tensor, up: torch.Tensor) -> Int8Adapter:
    """The 8-bit form of an adapter; each entry is off by at most half a level of its row.

    Args:
        down: (r, in).
        up: (out, r), scaling included.
    """
    down, up = down.float(), up.float()
    down_scale = down.abs().amax(dim=1, keepdim=True).clamp(min=_SMALLEST) / _LARGEST
    folded = up * down_scale.T
    scale = folded.abs().amax(dim=1, keepdim=True).clamp(min=_SMALLEST) / _LARGEST
    return Int8Adapter(
        (down / down_scale).round().to(torch.int8),
        (folded / scale).round().to(torch.int8),
        scale,
        down_scale,
    )
