"""Kernels: named outputs, each a term; and the layouts that one is generated for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from odp.kernels.term import OPERANDS, REDUCTIONS, Term, is_row, nodes

__all__ = ["Kernel", "Layout", "Output", "OutputKind"]

OutputKind = Literal["elements", "row", "column_sum"]
"""A tensor as large as the elements, a number a row, or sums over all rows, one a column."""


@dataclass(frozen=True)
class Output:
    """One result of a kernel."""

    name: str
    term: Term
    kind: OutputKind = "elements"


@dataclass(frozen=True)
class Layout:
    """How the operands lie in memory, and how a row is gone through.

    Attributes:
        leading: number of indices that lead to a row: 0 where elements are one flat range, 1 where
            rows lie at one distance, up to 3 for slices, transposed and broadcast tensors.
        looped: whether a row is too long for one block, and is gone through in several.
    """

    leading: int
    looped: bool = False


@dataclass(frozen=True)
class Kernel:
    """What one launch computes.

    Attributes:
        name: of the Triton function.
        outputs: its results.
    """

    name: str
    outputs: tuple[Output, ...]

    @cached_property
    def terms(self) -> list[Term]:
        """All terms, operands before what uses them."""
        return nodes(output.term for output in self.outputs)

    @cached_property
    def operands(self) -> Mapping[str, str]:
        """Kind of each operand by name, in order of use."""
        return {term.name: term.op for term in self.terms if term.op in OPERANDS}

    @cached_property
    def rows(self) -> Mapping[Term, bool]:
        """Which terms have one number a row."""
        known: dict[Term, bool] = {}
        for term in self.terms:
            is_row(term, known)
        return known

    @property
    def reduces(self) -> bool:
        """Whether a row is reduced, so that one program has to see all of it."""
        return any(term.op in REDUCTIONS for term in self.terms) or any(
            output.kind == "row" for output in self.outputs
        )

    @property
    def sums_columns(self) -> bool:
        """Whether a result is a sum over rows."""
        return any(output.kind == "column_sum" for output in self.outputs)

    @property
    def counts_rows(self) -> bool:
        """Whether a row is asked for its number."""
        return any(term.op == "row_in_group" for term in self.terms)

    @property
    def flat(self) -> bool:
        """Whether elements can be one range, whatever row they are in."""
        positional = {"column", "row", "row_integer", "columns", "column_index", "row_in_group"}
        return not (self.reduces or self.sums_columns or positional & {t.op for t in self.terms})
