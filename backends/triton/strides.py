"""How the rows of several tensors lie in memory, in as few indices as will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["MOST_LEADING", "Rows", "is_one_range", "rows_of"]

MOST_LEADING = 3
"""Leading indices that kernels are generated for."""


@dataclass(frozen=True)
class Rows:
    """Rows of several tensors of one shape.

    Attributes:
        extents: of the leading indices, at least one.
        tensors: with a stride of 1 along rows; a copy of what had another one.
        strides: of each tensor, along the leading indices.
    """

    extents: tuple[int, ...]
    tensors: tuple[torch.Tensor, ...]
    strides: tuple[tuple[int, ...], ...]


def is_one_range(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether tensors fill their memory without gaps, all in the same order of elements."""
    first = tensors[0]
    if any(x.shape != first.shape or x.stride() != first.stride() for x in tensors):
        return False
    expected = 1
    for stride, extent in sorted(zip(first.stride(), first.shape, strict=True)):
        if extent != 1:
            if stride != expected:
                return False
            expected *= extent
    return True


def rows_of(tensors: Sequence[torch.Tensor], has_columns: Sequence[bool]) -> Rows:
    """The rows of tensors in common leading indices.

    Args:
        tensors: of the same leading extents; strides of 0 are fine.
        has_columns: whether the last extent of each is the columns of a row, or there is none.
    """
    ready = [
        x if not columns or x.shape[-1] <= 1 or x.stride(-1) == 1 else x.contiguous()
        for x, columns in zip(tensors, has_columns, strict=True)
    ]
    extents, strides = _joined(ready, has_columns)
    if len(extents) > MOST_LEADING:
        ready = [x.contiguous() for x in ready]
        extents, strides = _joined(ready, has_columns)
    return Rows(extents, tuple(ready), strides)


def _joined(
    tensors: Sequence[torch.Tensor], has_columns: Sequence[bool]
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Extents and strides of leading indices; neighbours that are one index in all are joined."""
    leading = [
        (x.shape[:-1], x.stride()[:-1]) if columns else (x.shape, x.stride())
        for x, columns in zip(tensors, has_columns, strict=True)
    ]
    extents: list[int] = []
    strides: list[list[int]] = []
    for position, extent in enumerate(leading[0][0]):
        if extent == 1:
            continue
        here = [stride[position] for _, stride in leading]
        if extents and all(
            before == stride * extent for before, stride in zip(strides[-1], here, strict=True)
        ):
            extents[-1] *= extent
            strides[-1] = here
        else:
            extents.append(extent)
            strides.append(here)
    if not extents:
        return (1,), tuple((0,) for _ in tensors)
    return tuple(extents), tuple(zip(*strides, strict=True))
