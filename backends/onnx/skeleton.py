"""A model as a protobuf message without its weights, for code that wants messages."""

from __future__ import annotations

import onnx
import onnx_ir as ir

__all__ = ["large_initializers", "serialise_skeleton"]

# Tensors up to this size stay in the message: shape inference reads the small ones, and a
# separate place for them costs more than they do.
_SMALL = 1024


def large_initializers(model: ir.Model) -> list[ir.Value]:
    """List the initializers of the main graph that a skeleton leaves out."""
    return [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and value.const_value.dtype != ir.DataType.STRING
        and value.const_value.nbytes > _SMALL
    ]


def serialise_skeleton(model: ir.Model) -> onnx.ModelProto:
    """Serialise everything but the large initializers.

    Args:
        model: the model; the same afterwards.

    Returns:
        A message in which the values of `large_initializers` are used but not defined.
    """
    initializers = model.graph.initializers
    order = list(initializers.values())
    for value in large_initializers(model):
        assert value.name is not None
        initializers.pop(value.name)
    try:
        return ir.to_proto(model)
    finally:
        initializers.clear()
        for value in order:
            initializers.add(value)
