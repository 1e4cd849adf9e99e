"""ONNX to tract's operations: one handler for a node, constants evaluated on the way.

tract writes composite nodes out (Clip, LayerNormalization, Softplus, Gemm, ...); the handlers below
do it as tract does at the commit that EZKL 23 is locked to. What has no handler becomes an
operation of kind "Unknown".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from odp.backends.ezkl.cost_network import Category, Network, Operation, Source
from odp.rewriter.onnx_graph import module_path

__all__ = ["Builder", "Handler", "Inputs", "Outputs", "lower"]

Array = npt.NDArray[Any]


def lower(model: ir.Model) -> Network:
    """Lower the main graph of a model.

    Args:
        model: with static shapes of its inputs.

    Raises:
        ValueError: where the shape of an input is not static.
    """
    # Handlers use the builder below.
    from odp.backends.ezkl.cost_handlers import HANDLERS

    builder = Builder(opset=model.opset_imports.get("", 17))
    graph = model.graph
    for value in graph.inputs:
        if value.name in graph.initializers:
            continue
        builder.values[value.name or ""] = builder.source(value)
    for name, value in graph.initializers.items():
        assert value.const_value is not None
        builder.values[name] = builder.constant(value.const_value.numpy(), Source(name, "Constant"))
    for node in graph:
        builder.current = Source(node.name or "", node.op_type, module_path(node))
        inputs = [
            None if value is None else builder.values[value.name or ""] for value in node.inputs
        ]
        outputs = builder.fold(node, inputs)
        if outputs is None:
            handler = HANDLERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            outputs = None if handler is None else handler(builder, node, inputs)
        if outputs is None:
            outputs = [builder.unknown(value, inputs) for value in node.outputs]
        for value, number in zip(node.outputs, outputs, strict=False):
            builder.values[value.name or ""] = number
    builder.network.outputs = [builder.values[value.name or ""] for value in graph.outputs]
    return builder.network


Inputs = list[int | None]
Outputs = list[int] | None
Handler = Callable[["Builder", ir.Node, Inputs], Outputs]


@dataclass
class Builder:
    """A network under construction.

    Attributes:
        opset: version of the default domain.
        network: what there is.
        values: operations by the name of the ONNX value.
        current: the node that is being lowered.
    """

    opset: int
    network: Network = field(default_factory=Network)
    values: dict[str, int] = field(default_factory=dict)
    current: Source = field(default_factory=lambda: Source("", ""))
    _constants: dict[tuple[str, tuple[int, ...], bytes], int] = field(default_factory=dict)

    def shape(self, number: int) -> tuple[int, ...]:
        """Shape of an operation's output."""
        return self.network[number].shape

    def constant(self, value: Array, source: Source | None = None) -> int:
        """A constant; tract keeps one for all that are equal, so it can have several readers."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            kind: Category = (
                "bool" if value.dtype == bool else "float" if value.dtype.kind == "f" else "integer"
            )
            self._constants[key] = self.network.add(
                Operation("Const", (), value.shape, kind, source or self.current, value=value)
            )
        return self._constants[key]

    def source(self, value: ir.Value) -> int:
        """An input of the model."""
        shape = None if value.shape is None else list(value.shape)
        if shape is None or not all(isinstance(d, int) for d in shape):
            raise ValueError(f"input {value.name} has no static shape: {value.shape}")
        category: Category = "float"
        if value.dtype is not None and value.dtype == ir.DataType.BOOL:
            category = "bool"
        elif value.dtype is not None and value.dtype.is_integer():
            category = "integer"
        number = self.network.add(
            Operation(
                "Input",
                (),
                tuple(int(str(d)) for d in shape),
                category,
                Source(value.name or "", "Input"),
            )
        )
        self.network.inputs.append(number)
        return number

    def value(self, number: int | None) -> Array | None:
        """The value of a constant."""
        return None if number is None else self.network[number].value

    def add(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        category: Category | None = None,
        **attributes: Any,
    ) -> int:
        """Add an operation; its category is that of its first operand unless given."""
        first: Category = self.network[inputs[0]].category if inputs else "float"
        return self.network.add(
            Operation(
                kind,
                tuple(inputs),
                tuple(int(n) for n in shape),
                category or first,
                self.current,
                attributes,
            )
        )

    def unary(self, kind: str, operand: int, **attributes: Any) -> int:
        """An element-wise operation."""
        return self.add(kind, [operand], self.shape(operand), **attributes)

    def align(self, operands: Sequence[int]) -> list[int]:
        """Give operands the same rank by axes of size 1 in front, as tract wants it."""
        rank = max(len(self.shape(o)) for o in operands)
        return [
            self.reshape(o, (1,) * (rank - len(self.shape(o))) + self.shape(o)) for o in operands
        ]

    def reshape(self, operand: int, shape: Sequence[int]) -> int:
        """Rename axes. A constant that changes becomes a constant of its own."""
        target = tuple(int(n) for n in shape)
        if target == self.shape(operand):
            return operand
        value = self.value(operand)
        if value is not None:
            return self.constant(value.reshape(target), self.network[operand].source)
        return self.add("Axes", [operand], target, to=("reshape", target))

    def binary(self, kind: str, left: int, right: int, category: Category | None = None) -> int:
        """An element-wise operation of two operands, broadcast."""
        a, b = self.align([left, right])
        shape = np.broadcast_shapes(self.shape(a), self.shape(b))
        return self.add(kind, [a, b], shape, category)

    def scalar(self, value: float, like: int) -> int:
        """A constant of the rank of an operand."""
        rank = len(self.shape(like))
        return self.constant(np.full((1,) * rank, value, np.float32))

    def divide(self, left: int, right: int) -> int:
        """A quotient: tract multiplies by the reciprocal, in float32 where that is a constant."""
        value = self.value(right)
        if value is not None:
            inverse = self.constant((np.float32(1) / value.astype(np.float32)).astype(np.float32))
            return self.binary("Mul", left, inverse)
        return self.binary("Mul", left, self.unary("Recip", right))

    def reduce(self, kind: str, operand: int, axes: Sequence[int], keep: bool = True) -> int:
        """A reduction along axes."""
        shape = self.shape(operand)
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        result = self.add(kind, [operand], kept, axes=tuple(sorted(axes)))
        if keep:
            return result
        return self.reshape(result, [n for i, n in enumerate(shape) if i not in axes])

    def mean(self, operand: int, axes: Sequence[int], keep: bool = True) -> int:
        """A sum divided by a count."""
        count = float(np.prod([self.shape(operand)[a] for a in axes]))
        total = self.reduce("Sum", operand, axes)
        result = self.divide(total, self.scalar(count, total))
        if keep:
            return result
        return self.reshape(result, [n for i, n in enumerate(self.shape(operand)) if i not in axes])

    def fold(self, node: ir.Node, inputs: Sequence[int | None]) -> list[int] | None:
        """Evaluate a node whose operands are all constant; None where it is not such a node."""
        if node.op_type in ("Shape", "Size") and inputs and inputs[0] is not None:
            shape = np.asarray(self.shape(inputs[0]), np.int64)
            if node.op_type == "Size":
                return [self.constant(np.asarray(shape.prod(), np.int64))]
            start = node.attributes.get_int("start", 0)
            end = node.attributes.get_int("end", len(shape))
            return [self.constant(shape[start:end])]
        if any(i is not None and self.value(i) is None for i in inputs):
            return None
        if not any(i is not None for i in inputs) and node.op_type not in ("Constant", "Range"):
            return None
        message = ir.serde.serialize_node(node)
        feeds = {
            name: self.value(number)
            for name, number in zip(message.input, inputs, strict=True)
            if number is not None
        }
        graph = onnx.helper.make_graph(
            [message],
            "constant",
            [onnx.helper.make_empty_tensor_value_info(name) for name in feeds],
            [onnx.helper.make_empty_tensor_value_info(name) for name in message.output if name],
        )
        imports = [onnx.helper.make_opsetid("", self.opset)]
        model = onnx.helper.make_model(graph, opset_imports=imports)
        try:
            results = ReferenceEvaluator(model).run(None, feeds)
        except (NotImplementedError, RuntimeError, TypeError):
            # onnx's reference lacks the operator or this form of it: the report names the node as
            # unknown, and nothing is guessed.
            return None
        return [self.constant(np.asarray(result)) for result in results]

    def unknown(self, value: ir.Value, inputs: Sequence[int | None]) -> int:
        """An operation that the model of costs does not know; the report names it."""
        operands = [i for i in inputs if i is not None]
        shape: tuple[int, ...] = self.shape(operands[0]) if operands else ()
        if value.shape is not None and all(isinstance(d, int) for d in value.shape):
            shape = tuple(int(str(d)) for d in value.shape)
        return self.add("Unknown", operands, shape)
