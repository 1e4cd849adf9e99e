"""A graph of + - * and reductions: what a circuit computes, before it is known in which integers.

One node is one tensor.  `evaluate` runs it on float64 arrays, which is the reference, or on arrays
of Python integers, which is the simulation of the circuit: the semantics are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Circuit", "Node", "apply"]

Array = NDArray[Any]

# Sums of products up to here are exact in float64; limbs shorter than a byte are not worth it.
_MANTISSA, _SHORTEST_LIMB = 53, 8


@dataclass(frozen=True)
class Node:
    """One tensor of a circuit.

    Attributes:
        kind: `input`, `constant`, `add`, `sub`, `mul`, `neg`, `matmul`, `sum`, `max`, `min`,
            `relu`, `abs`, `reduce_max`, `div`, `sqrt` and `reciprocal` where a policy keeps them,
            or a move of elements: `reshape`, `transpose`, `slice`, `concat`, `gather`,
            `broadcast`.
        inputs: numbers of the nodes that it reads.
        shape: of the tensor.
        attributes: of the operation, by name.
        value: of a constant, float64.
        name: of the ONNX node that it came from.
        module: path of the module that the ONNX node came from.
    """

    kind: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    value: Array | None = None
    name: str = ""
    module: str = ""

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def where(self) -> str:
        """Name and module path, for messages."""
        return f"'{self.name}'" + (f" ({self.module})" if self.module else "")


class Circuit:
    """Nodes in the order of evaluation.

    Attributes:
        nodes: all of them; a node's number is its place here.
        inputs: names of the inputs and their nodes.
        outputs: names of the outputs and their nodes.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self._constants: dict[tuple[Any, ...], int] = {}

    def add(
        self, kind: str, *inputs: int, name: str = "", module: str = "", **attributes: Any
    ) -> int:
        """Append a node, whose shape is that of its operation on zeros; its number."""
        operands = [np.broadcast_to(np.float64(0), self.nodes[i].shape) for i in inputs]
        shape = apply(kind, operands, attributes).shape
        self.nodes.append(Node(kind, inputs, shape, attributes, None, name, module))
        return len(self.nodes) - 1

    def input(self, name: str, shape: Sequence[int]) -> int:
        """Append an input; its number."""
        self.nodes.append(Node("input", (), tuple(shape), name=name))
        self.inputs[name] = len(self.nodes) - 1
        return self.inputs[name]

    def constant(self, value: Any, name: str = "", module: str = "") -> int:
        """Append a constant, or find the same one; its number."""
        array = np.asarray(value, dtype=np.float64)
        key = (array.shape, array.tobytes())
        if key not in self._constants:
            self.nodes.append(Node("constant", (), array.shape, {}, array, name, module))
            self._constants[key] = len(self.nodes) - 1
        return self._constants[key]

    def users(self) -> list[list[int]]:
        """For every node those that read it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for number, node in enumerate(self.nodes):
            for operand in node.inputs:
                found[operand].append(number)
        return found

    def evaluate(
        self,
        inputs: Mapping[str, Array],
        change: Callable[[int, Array], Array] = lambda number, value: value,
    ) -> list[Array]:
        """Every node's value in float64.

        Args:
            inputs: by name.
            change: called with every node's number and value; what it returns is used instead.
        """
        values: list[Array] = []
        for number, node in enumerate(self.nodes):
            if node.kind == "input":
                value = np.asarray(inputs[node.name], np.float64).reshape(node.shape)
            elif node.value is not None:
                value = node.value
            else:
                value = apply(node.kind, [values[i] for i in node.inputs], node.attributes)
            values.append(change(number, value))
        return values

    def again(
        self, values: Sequence[Array], number: int, value: Array, affected: Iterable[int]
    ) -> dict[int, Array]:
        """What another value of one node makes of those that depend on it.

        Args:
            values: of all nodes, as they were.
            number: the node.
            value: its new value.
            affected: the nodes that depend on it, in order.
        """
        changed = {number: value}
        for other in affected:
            node = self.nodes[other]
            operands = [changed.get(i, values[i]) for i in node.inputs]
            changed[other] = apply(node.kind, operands, node.attributes)
        return changed

    def without_unused(self) -> Circuit:
        """The same circuit without nodes that no output needs; inputs stay."""
        needed = {*self.outputs.values(), *self.inputs.values()}
        for number in reversed(range(len(self.nodes))):
            if number in needed:
                needed.update(self.nodes[number].inputs)
        renumbered = {old: new for new, old in enumerate(sorted(needed))}
        result = Circuit()
        for old in renumbered:
            node = self.nodes[old]
            inputs = tuple(renumbered[i] for i in node.inputs)
            result.nodes.append(
                Node(
                    node.kind,
                    inputs,
                    node.shape,
                    node.attributes,
                    node.value,
                    node.name,
                    node.module,
                )
            )
        result.inputs = {name: renumbered[i] for name, i in self.inputs.items()}
        result.outputs = {name: renumbered[i] for name, i in self.outputs.items()}
        return result


def apply(kind: str, operands: Sequence[Array], attributes: Mapping[str, Any]) -> Array:
    """One operation on arrays of floats or of Python integers.

    Raises:
        ValueError: the operation is not one of a circuit.
    """
    rule = _RULES.get(kind)
    if rule is None:
        raise ValueError(f"no operation '{kind}'")
    return np.asarray(rule(operands, attributes))


def _sliced(x: Array, attributes: Mapping[str, Any]) -> Array:
    index = [slice(None)] * x.ndim
    for axis, start, stop, step in attributes["parts"]:
        # A slice backwards to the first element stops before -1, which means the last one.
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


_RULES: dict[str, Callable[[Sequence[Array], Mapping[str, Any]], Any]] = {
    "add": lambda o, a: o[0] + o[1],
    "sub": lambda o, a: o[0] - o[1],
    "mul": lambda o, a: o[0] * o[1],
    "div": lambda o, a: np.divide(o[0], o[1], where=o[1] != 0, out=np.zeros(_joint(o))),
    "neg": lambda o, a: -o[0],
    "sqrt": lambda o, a: np.sqrt(o[0]),
    "reciprocal": lambda o, a: np.divide(1.0, o[0], where=o[0] != 0, out=np.zeros(o[0].shape)),
    "matmul": lambda o, a: _product(o[0], o[1]),
    "sum": lambda o, a: o[0].sum(axis=a["axes"], keepdims=True),
    "reduce_max": lambda o, a: o[0].max(axis=a["axes"], keepdims=True),
    "max": lambda o, a: np.maximum(o[0], o[1]),
    "min": lambda o, a: np.minimum(o[0], o[1]),
    "relu": lambda o, a: np.maximum(o[0], 0),
    "abs": lambda o, a: np.abs(o[0]),
    "reshape": lambda o, a: o[0].reshape(a["shape"]),
    "transpose": lambda o, a: o[0].transpose(a["order"]),
    "slice": lambda o, a: _sliced(o[0], a),
    "concat": lambda o, a: np.concatenate(o, axis=a["axis"]),
    "gather": lambda o, a: np.take(o[0], a["indices"], axis=a["axis"]),
    "broadcast": lambda o, a: np.broadcast_to(o[0], a["shape"]),
}


def _product(a: Array, b: Array) -> Array:
    """A matrix product; of Python integers it is exact, and as quick as one of float64.

    Integers are taken apart into limbs whose products and sums stay below 2^53.
    """
    if a.dtype != object and b.dtype != object:
        return np.asarray(np.matmul(a, b))
    bits = [int(np.abs(m).max(initial=0)).bit_length() for m in (a, b)]
    room = _MANTISSA - min(bits) - a.shape[-1].bit_length()
    if room < _SHORTEST_LIMB:
        return np.asarray(np.matmul(np.asarray(a, object), np.asarray(b, object)))
    wide, narrow = (a, b) if bits[0] >= bits[1] else (b, a)
    narrow = narrow.astype(np.float64)
    total: Any = 0
    sign = np.where(wide < 0, -1.0, 1.0)
    rest = np.abs(np.asarray(wide, object))
    for index in range(math.ceil(max(bits) / room) if max(bits) else 1):
        limb = sign * (rest % (1 << room)).astype(np.float64)
        part = np.matmul(limb, narrow) if wide is a else np.matmul(narrow, limb)
        whole = np.asarray(part.astype(np.int64), object)
        total = total + whole * (1 << (room * index))
        rest = rest // (1 << room)
    return np.asarray(total, object)


def _joint(operands: Sequence[Array]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(operand.shape for operand in operands))
