"""Exact evaluation of the parts of an ONNX graph that no input reaches."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["ConstantEvaluator"]

# What is not a function of its operands, and so never a constant.
_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"}
)


class ConstantEvaluator:
    """Evaluates values with ONNX's reference implementation and remembers which ones it cannot."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._dynamic: set[ir.Value] = set()
        self._known: dict[ir.Value, NDArray[Any]] = {}

    def evaluate(self, value: ir.Value) -> NDArray[Any] | None:
        """The array `value` always has, or None if an input, a body or chance decides it."""
        if value.const_value is not None:
            return np.asarray(value.const_value.numpy())
        if value in self._known:
            return self._known[value]
        needed = self._ancestors(value)
        if needed is None:
            return None
        self._known[value] = self._run(needed, value)
        return self._known[value]

    def _ancestors(self, value: ir.Value) -> list[ir.Node] | None:
        """Nodes that compute `value`, in order; None if they depend on anything that can change."""
        order: list[ir.Node] = []
        done: set[ir.Node] = set()
        stack: list[tuple[ir.Value, bool]] = [(value, False)]
        while stack:
            current, expanded = stack.pop()
            node = current.producer()
            if current.const_value is not None or (node is not None and node in done):
                continue
            if node is None or current in self._dynamic or not _is_pure(node):
                # Everything that waits on the stack for its operands depends on `current`.
                self._dynamic.update(waiting for waiting, open_ in stack if open_)
                self._dynamic.add(current)
                return None
            if expanded:
                done.add(node)
                order.append(node)
                continue
            stack.append((current, True))
            stack.extend((operand, False) for operand in node.inputs if operand is not None)
        return order

    def _run(self, nodes: list[ir.Node], wanted: ir.Value) -> NDArray[Any]:
        import onnx
        from onnx.reference import ReferenceEvaluator

        stored = {
            value
            for node in nodes
            for value in node.inputs
            if value is not None and value.const_value is not None
        }
        graph = onnx.GraphProto(
            name="constant",
            node=[ir.serde.serialize_node(node) for node in nodes],
            initializer=[_tensor(value) for value in stored],
            output=[onnx.ValueInfoProto(name=wanted.name)],
        )
        opsets = [
            onnx.helper.make_opsetid(domain, version)
            for domain, version in self._model.graph.opset_imports.items()
        ]
        proto = onnx.helper.make_model(graph, opset_imports=opsets)
        results: Any = ReferenceEvaluator(proto).run(None, {})
        return np.asarray(results[0])


def _is_pure(node: ir.Node) -> bool:
    has_body = any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for attribute in node.attributes.values()
    )
    return node.domain in ("", "ai.onnx") and node.op_type not in _RANDOM and not has_body


def _tensor(value: ir.Value) -> Any:
    import onnx

    assert value.const_value is not None
    return onnx.numpy_helper.from_array(np.asarray(value.const_value.numpy()), value.name)
