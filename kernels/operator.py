"""Operators: what a user calls, as terms forward and backward, and the registry of them.

An operator is declared once: its operands, the functions it leaves open, what it computes, and its
derivatives.  Kernels, torch operators, the CPU path, tests and benchmarks are made from that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from odp.approximations.expression import variable as expression_variable
from odp.kernels.functions import KernelFunction
from odp.kernels.gradient import gradients
from odp.kernels.kernel import Kernel, Output
from odp.kernels.term import (
    Term,
    input_column,
    input_elements,
    input_row,
    input_row_integer,
    is_row,
)

__all__ = ["Functions", "Operand", "Operator"]

Functions = Mapping[str, KernelFunction]
"""How each open function of an operator is computed, by name."""

Kind = Literal["elements", "column", "row", "row_integer"]
_LEAVES: dict[str, Callable[[str], Term]] = {
    "elements": input_elements,
    "column": input_column,
    "row": input_row,
    "row_integer": input_row_integer,
}


@dataclass(frozen=True)
class Operand:
    """A tensor that an operator takes.

    Attributes:
        name: in the schema of the torch operator.
        kind: ``elements`` (the shape of the result, or one that broadcasts to it), ``column`` (its
            last extent), ``row`` or ``row_integer`` (all extents but the last).
        differentiable: whether a gradient flows to it.
        optional: whether it may be None; what is computed is then another term.
    """

    name: str
    kind: Kind = "elements"
    differentiable: bool = True
    optional: bool = False

    @property
    def term(self) -> Term:
        """The operand in terms."""
        return _LEAVES[self.kind](self.name)


Build = Callable[[Functions, frozenset[str]], tuple[Output, ...]]
"""Results from the functions and the names of the operands that are given."""


@dataclass(frozen=True, eq=False)
class Operator:
    """One torch operator and its derivative.

    Attributes:
        name: of the torch operator, in the namespace ``odp``.
        summary: one line; what it computes.
        operands: tensors.
        functions: names of the functions that are left open.
        forward: builds the results; gradients of the first `results` of them come back.
        backward: builds the gradients, each output named ``d_`` and the operand; from operands,
            from saved results, and from ``d_`` and the name of each result.
        results: how many outputs the caller gets; the others are for the derivative alone.
        saved: outputs that the derivative needs.
        scalars: names of numbers.
        integers: names of whole numbers.
        grouped: whether rows are counted within the last extent but one.
        dtypes: of outputs that are not of the type of the operands, by name.
    """

    name: str
    summary: str
    operands: tuple[Operand, ...]
    functions: tuple[str, ...]
    forward: Build
    backward: Build | None
    results: int = 1
    saved: tuple[str, ...] = ()
    scalars: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()
    dtypes: Mapping[str, str] | None = None

    @cached_property
    def outputs(self) -> tuple[tuple[str, str], ...]:
        """Name and kind of every forward output, which do not depend on functions and operands."""
        identity = expression_variable("x")
        functions = {n: KernelFunction(n, "clip", identity, -1.0, 1.0) for n in self.functions}
        built = self.forward(functions, frozenset(operand.name for operand in self.operands))
        return tuple((output.name, output.kind) for output in built)

    def forward_kernel(self, functions: Functions, given: frozenset[str]) -> Kernel:
        """The kernel of the results."""
        return Kernel(f"{self.name}_forward", self.forward(functions, given))

    def backward_kernel(
        self, functions: Functions, given: frozenset[str], wanted: frozenset[str], exact: bool
    ) -> Kernel:
        """The kernel of the derivatives.

        Args:
            functions: as forward.
            given: operands that are there.
            wanted: operands whose gradient is needed.
            exact: differentiate the approximation, operation by operation, instead of putting it
                into the derivative of the function.
        """
        build = self.backward
        outputs = (
            self._differentiated(functions, given)
            if exact or build is None
            else build(functions, given)
        )
        kept = tuple(output for output in outputs if output.name.removeprefix("d_") in wanted)
        return Kernel(f"{self.name}_backward", kept)

    def _differentiated(self, functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
        results = self.forward(functions, given)[: self.results]
        leaves = [o for o in self.operands if o.differentiable and o.name in given]
        kinds = {"elements": input_elements, "row": input_row}
        pairs = [(result.term, kinds[result.kind](f"d_{result.name}")) for result in results]
        found = gradients(pairs, [leaf.term for leaf in leaves])
        outputs = []
        for leaf, term in zip(leaves, found, strict=True):
            kind = "column_sum" if leaf.kind == "column" else leaf.kind
            assert kind != "row_integer"
            assert kind != "row" or is_row(term, {})
            outputs.append(Output(f"d_{leaf.name}", term, kind))
        return tuple(outputs)
