"""What a matrix product costs: cells of Freivalds' algorithm, or dot products in the main columns.

EZKL checks a product C = A B by random vectors: r C s = (r A)(B s), in columns of its own, so a
product takes no row of the main columns, whatever its inner size. It falls back to one dot product
for each element of the output, in the main columns, where at most one axis of a size above 1 is not
shared by both operands: a vector times a matrix is such a case, so a sequence of one token costs
K * N cells where two tokens cost none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from odp.backends.ezkl.cost_region import Region

__all__ = ["Einsum", "lay_out_einsum"]


@dataclass(frozen=True)
class Einsum:
    """An equation and the sizes of its axes, without axes of size 1.

    Attributes:
        inputs: axes of each operand, a letter each.
        output: axes of the result.
        sizes: size of each axis.
    """

    inputs: tuple[str, ...]
    output: str
    sizes: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, equation: str, shapes: tuple[tuple[int, ...], ...]) -> Einsum:
        """Read an equation such as "amk,kn->amn".

        Raises:
            ValueError: where one letter stands for two sizes; EZKL refuses that too, so a product
                that broadcasts a batch axis has to be expanded first.
        """
        operands, output = equation.split("->")
        sizes: dict[str, int] = {}
        for axes, shape in zip(operands.split(","), shapes, strict=True):
            for axis, size in zip(axes, shape, strict=True):
                if sizes.setdefault(axis, size) != size:
                    raise ValueError(f"axis {axis} of {equation} is {sizes[axis]} and {size}")
        return cls(
            inputs=tuple(
                "".join(axis for axis in axes if sizes[axis] > 1) for axes in operands.split(",")
            ),
            output="".join(axis for axis in output if sizes.get(axis, 1) > 1),
            sizes=tuple(sorted((axis, size) for axis, size in sizes.items() if size > 1)),
        )

    def volume(self, axes: str | set[str]) -> int:
        """Elements of a tensor with these axes."""
        sizes = dict(self.sizes)
        return math.prod(sizes[axis] for axis in axes)

    @property
    def shared(self) -> set[str]:
        """Axes of more than one operand."""
        return {a for a, _ in self.sizes if sum(a in axes for axes in self.inputs) > 1}

    @property
    def by_freivalds(self) -> bool:
        """Whether EZKL checks this by random vectors."""
        own = {axis for axis, _ in self.sizes} - self.shared
        return bool(self.output) and bool(self.shared) and len(own) > 1


def lay_out_einsum(region: Region, einsum: Einsum) -> None:
    """Lay out a product of two operands.

    Raises:
        ValueError: for what EZKL writes out as a sum of products, or for other than two operands.
    """
    if len(einsum.inputs) != 2:
        raise ValueError("an einsum with other than two operands")
    _reserve(region, einsum)
    if region.freivalds and einsum.by_freivalds:
        _freivalds(region, einsum)
        return
    own = {axis for axis, _ in einsum.sizes} - einsum.shared
    if own - set(einsum.output):
        raise ValueError("an einsum that sums over an axis of one operand alone")
    summed = {axis for axis, _ in einsum.sizes} - set(einsum.output)
    length = einsum.volume(summed)
    region.flush()
    region.repeat(einsum.volume(einsum.output), lambda: region.accumulate(length))


def _flush(region: Region) -> None:
    region.einsum_cells += -region.einsum_cells % region.columns


def _accumulate(region: Region, n: int, padding: float = 0.0) -> None:
    _flush(region)
    padded = math.ceil(n / region.columns) * region.columns
    if padded != n:
        region.constants.add(padding)
    region.einsum_cells += padded


@dataclass(frozen=True)
class _Step:
    """One step of Freivalds' algorithm.

    Attributes:
        count: results.
        length: terms of each.
        paired: whether two operands are multiplied element by element instead.
    """

    count: int
    length: int
    paired: bool = False


def _steps(einsum: Einsum) -> tuple[list[_Step], list[_Step], int]:
    """Combinations of the result, reductions of the operands, and scalars that are left."""
    sizes = dict(einsum.sizes)
    combined = [
        _Step(einsum.volume(einsum.output[:i]), sizes[einsum.output[i]])
        for i in reversed(range(len(einsum.output)))
    ]
    reduced: list[_Step] = []
    operands = list(einsum.inputs)

    def reduce(axis: str) -> None:
        nonlocal operands
        readers = [axes for axes in operands if axis in axes]
        others = [axes for axes in operands if axis not in axes]
        union = set("".join(readers))
        if axis in einsum.output and len(readers) > 1:
            # An axis of both operands that is kept: they are multiplied first.
            reduced.append(_Step(einsum.volume(union), 1, paired=True))
        else:
            union -= {axis}
            reduced.append(_Step(einsum.volume(union), sizes[axis]))
        operands = [*others, "".join(sorted(union))]

    # Kept axes first, in order, then those that are summed.
    for axis in einsum.output:
        while any(axis in axes for axes in operands):
            reduce(axis)
    for axis in sorted(set("".join(operands))):
        reduce(axis)
    return combined, reduced, sum(not axes for axes in operands)


def _reserve(region: Region, einsum: Einsum) -> None:
    combined, reduced, _ = _steps(einsum)
    region.einsum_capacity += sum(step.count * step.length for step in combined + reduced)
    region.einsum_axes = max(region.einsum_axes, len(einsum.output))


def _freivalds(region: Region, einsum: Einsum) -> None:
    """Count the cells of the random combinations of the output and of the operands."""
    combined, reduced, scalars = _steps(einsum)
    for step in combined:
        _flush(region)
        _repeat(region, step)
    region.einsum_cells += 1
    for step in reduced:
        _flush(region)
        if step.paired:
            region.einsum_cells += step.count
        else:
            _repeat(region, step)
    _accumulate(region, scalars, padding=1.0)


def _repeat(region: Region, step: _Step) -> None:
    region.repeat(step.count, lambda: _accumulate(region, step.length))
