"""What a legalisation rule is, and the pen with which it writes nodes of the target opset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["RULES", "Emitter", "Refusal", "Rule", "constant", "integers", "rank", "rule"]

Array = npt.NDArray[np.generic]
AttributeValue = int | float | str | Sequence[int] | Sequence[float]


class Refusal(Exception):
    """A rule cannot express its node; the message is the reason."""


RuleFunction = Callable[[ir.Node, "Emitter"], Sequence[ir.Value | None] | None]
"""Changes the node in place and returns None, or returns one value per output of the node."""


@dataclass(frozen=True)
class Rule:
    """One row of the legaliser: an operator, the source opsets it concerns, and the rewriting.

    Attributes:
        op_type: operator of ai.onnx.
        first: first source opset (inclusive) that needs the rule.
        last: last source opset (inclusive).
        rewrite: the rewriting.
    """

    op_type: str
    first: int
    last: int
    rewrite: RuleFunction = field(compare=False)


RULES: dict[str, list[Rule]] = {}
"""All rules by operator; filled by the `legalise_*` modules when they are imported."""


def rule(
    *op_types: str, first: int = 0, last: int = 10_000
) -> Callable[[RuleFunction], RuleFunction]:
    """Register a function as the rule for some operators and a range of source opsets."""

    def register(function: RuleFunction) -> RuleFunction:
        for op_type in op_types:
            RULES.setdefault(op_type, []).append(Rule(op_type, first, last, function))
        return function

    return register


def constant(value: ir.Value | None) -> Array | None:
    """Return the value of a constant, or None: an initializer or the output of a Constant node."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value, propagate_shape_type=False)
    return None if tensor is None else tensor.numpy()


def integers(value: ir.Value | None, what: str) -> list[int]:
    """Return a constant as a list of ints.

    Raises:
        Refusal: the value is computed at run time.
    """
    array = constant(value)
    if array is None:
        raise Refusal(f"its {what} are computed at run time, before opset 13 they are attributes")
    return [int(i) for i in np.atleast_1d(array).ravel()]


def rank(value: ir.Value | None, why: str) -> int:
    """Return the number of dimensions of a value.

    Raises:
        Refusal: it is unknown; `why` says what needs it.
    """
    if value is None or value.shape is None:
        raise Refusal(f"the rank of its input is unknown, which {why} needs")
    return len(value.shape)


class Emitter:
    """Writes nodes before the node that is being replaced, with that node's provenance.

    Every new value gets a name that is unique in the whole model, and every new node the
    `metadata_props` of the node it replaces.
    """

    def __init__(self, model: ir.Model, opset: int) -> None:
        self.opset = opset
        self.source_opset = model.opset_imports[""]
        self._root = model.graph
        self._names = _all_names(model)
        self._counter = 0
        self._node: ir.Node | None = None
        self._emitted: set[ir.Value] = set()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def start(self, node: ir.Node) -> None:
        """Begin to replace a node."""
        self._node = node
        self._emitted.clear()

    @property
    def node(self) -> ir.Node:
        """The node that is being replaced."""
        assert self._node is not None
        return self._node

    def fresh_name(self, suffix: str) -> str:
        """Make up a value name that says which node it stems from."""
        outputs = [o.name for o in self.node.outputs if o.name]
        base = self.node.name or (outputs[0] if outputs else self.node.op_type)
        while True:
            name = f"{base}/{suffix}_{self._counter}"
            self._counter += 1
            if name not in self._names:
                self._names.add(name)
                return name

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        dtype: ir.DataType | None = None,
        outputs: int = 1,
    ) -> ir.Value:
        """Emit a node and return its first output.

        Args:
            op_type: operator of ai.onnx.
            inputs: inputs; None is an absent optional one.
            attributes: attributes.
            dtype: element type of the outputs; by default that of the first input.
            outputs: number of outputs; the others are found at `.producer().outputs`.
        """
        if dtype is None and inputs and inputs[0] is not None:
            dtype = inputs[0].dtype
        values = []
        for _ in range(outputs):
            value = ir.Value(name=self.fresh_name(op_type))
            if dtype is not None:
                value.type = ir.TensorType(dtype)
            values.append(value)
        node = ir.Node(
            "",
            op_type,
            inputs,
            ir.convenience.convert_attributes(dict(attributes or {})),
            outputs=values,
            name=values[0].name,
            metadata_props=dict(self.node.metadata_props),
        )
        graph = self.node.graph
        assert graph is not None
        graph.insert_before(self.node, node)
        self._emitted.update(values)
        return values[0]

    def constant(self, array: npt.ArrayLike, dtype: ir.DataType | None = None) -> ir.Value:
        """Return an initializer of the main graph; equal small constants are shared."""
        data = np.asarray(array)
        if dtype is not None:
            data = data.astype(dtype.numpy())
        key = (str(data.dtype), data.shape, data.tobytes() if data.size <= 64 else b"")
        if data.size <= 64 and key in self._constants:
            return self._constants[key]
        name = self.fresh_name("constant")
        tensor = ir.tensor(data, name=name)
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(data.shape),
            const_value=tensor,
        )
        self._root.register_initializer(value)
        if data.size <= 64:
            self._constants[key] = value
        return value

    def like(self, number: float, value: ir.Value) -> ir.Value:
        """Return a scalar constant of the element type of a value.

        Raises:
            Refusal: the element type is unknown.
        """
        return self.constant(np.asarray(number), self.dtype(value))

    def dtype(self, value: ir.Value | None) -> ir.DataType:
        """Return the element type of a value.

        Raises:
            Refusal: it is unknown.
        """
        if value is None or value.dtype is None:
            raise Refusal("the element type of its input is unknown")
        return value.dtype

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Cast a value, or return it where it has the type already."""
        if value.dtype == dtype:
            return value
        return self.op("Cast", [value], {"to": int(dtype)}, dtype=dtype)

    def replace(self, node: ir.Node, values: Sequence[ir.Value | None]) -> None:
        """Give every use of the node's outputs to new values, and remove the node.

        Names, types and shapes of the outputs go over to the new values.
        """
        for old, new in zip(node.outputs, values, strict=False):
            if new is None:
                continue
            if new not in self._emitted:  # an input, a constant, or already another output
                new = self.op("Identity", [new], dtype=new.dtype)
            self._emitted.remove(new)
            if old.type is not None:
                new.type = old.type
            if old.shape is not None:
                new.shape = old.shape
            new.metadata_props.update(old.metadata_props)
            name, old.name = old.name, None
            new.name = name
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph = node.graph
        assert graph is not None
        graph.remove(node, safe=True)


def _all_names(model: ir.Model) -> set[str]:
    names: set[str] = set()
    for graph in model.graphs():
        names.update(v.name for v in graph.inputs if v.name)
        names.update(graph.initializers)
        for node in graph:
            names.update(o.name for o in node.outputs if o.name)
            if node.name:
                names.add(node.name)
    return names
