"""A graph as EZKL's front end, tract, sees it: few kinds of operation, one output each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["TABLES", "Category", "Network", "Operation", "Source"]

Category = Literal["float", "integer", "bool"]
Array = npt.NDArray[Any]

# Operations that EZKL looks up in a table, and its names for them.
TABLES = {
    "Sigmoid": "Sigmoid", "Tanh": "Tanh", "Exp": "Exp", "Ln": "Ln", "Erf": "Erf", "Sin": "Sin",
    "Cos": "Cos", "Tan": "Tan", "Asin": "ASin", "Acos": "ACos", "Atan": "ATan", "Sinh": "Sinh",
    "Cosh": "Cosh", "Asinh": "ASinh", "Acosh": "ACosh", "Atanh": "ATanh",
    "HardSwish": "HardSwish",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """The ONNX node that an operation comes from.

    Attributes:
        name: of the node, or of the input or output of the model.
        op_type: as in ONNX.
        module_path: of the torch module, where the exporter wrote it down.
    """

    name: str
    op_type: str
    module_path: str = ""


@dataclass
class Operation:
    """One operation.

    Attributes:
        kind: "Add", "EinSum", "Axes" for whatever only renames axes, "Const", "Input", ...
        inputs: operations, by number.
        shape: of the output.
        category: what the output consists of.
        source: where it comes from.
        attributes: what the kind needs: axes, an equation, bounds.
        value: of a constant.
    """

    kind: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    category: Category
    source: Source
    attributes: dict[str, Any] = field(default_factory=dict)
    value: Array | None = None

    @property
    def elements(self) -> int:
        """Elements of the output."""
        return math.prod(self.shape)

    @property
    def uniform(self) -> float | None:
        """The number that every element of a constant is, if there is one."""
        if self.value is None or not self.value.size:
            return None
        first = self.value.reshape(-1)[0]
        return float(first) if bool(np.all(self.value == first)) else None


@dataclass
class Network:
    """Operations by number, in no particular order.

    Attributes:
        operations: what there is; some may no longer be reachable.
        inputs: of the model.
        outputs: of the model.
    """

    operations: dict[int, Operation] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def add(self, operation: Operation) -> int:
        """Add an operation and return its number."""
        number = len(self.operations)
        self.operations[number] = operation
        return number

    def __getitem__(self, number: int) -> Operation:
        return self.operations[number]

    def order(self) -> list[int]:
        """What the outputs need, in tract's order of evaluation: it decides where rows begin."""
        done: set[int] = set()
        order: list[int] = []
        for output in self.outputs:
            stack = [(output, self._children(output))]
            if output in done:
                continue
            while stack:
                number, children = stack[-1]
                child = next((c for c in children if c not in done), None)
                if child is None:
                    stack.pop()
                    if number not in done:
                        done.add(number)
                        order.append(number)
                else:
                    stack.append((child, self._children(child)))
        return order

    def _children(self, number: int) -> Iterator[int]:
        inputs = self[number].inputs
        # Operands that are computed come before sources and constants.
        yield from (i for i in inputs if self[i].inputs)
        yield from (i for i in inputs if not self[i].inputs)

    def users(self) -> dict[int, list[int]]:
        """Who reads each reachable operation, once for every operand."""
        users: dict[int, list[int]] = {}
        for number in self.order():
            users.setdefault(number, [])
            for operand in self[number].inputs:
                users[operand].append(number)
        return users

    def replace(self, old: int, new: int) -> None:
        """Let every reader of one operation, and the outputs, read another."""
        for number, operation in self.operations.items():
            if old in operation.inputs and number != new:
                operation.inputs = tuple(new if i == old else i for i in operation.inputs)
        self.outputs = [new if o == old else o for o in self.outputs]

    def only_reader(self, users: dict[int, list[int]], number: int) -> int | None:
        """The one reader of an operation that is no output."""
        readers = users.get(number, [])
        return readers[0] if len(readers) == 1 and number not in self.outputs else None

    def cut(self, operand: int, axis: int, start: int, end: int) -> int:
        """A slice of an operation; of a constant, a constant."""
        inner = self[operand]
        shape = tuple(end - start if i == axis else n for i, n in enumerate(inner.shape))
        if shape == inner.shape:
            return operand
        if inner.value is not None:
            part = tuple(
                slice(start, end) if i == axis else slice(None) for i in range(inner.value.ndim)
            )
            return self.add(
                Operation("Const", (), shape, inner.category, inner.source, value=inner.value[part])
            )
        bounds = {"axis": axis, "start": start, "end": end}
        return self.add(Operation("Slice", (operand,), shape, inner.category, inner.source, bounds))
