"""Casts around operators that opset 12 has, but not for float16 or for small integers."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from odp.backends.onnx.legalise_emitter import Emitter
from odp.backends.onnx.opset_schemas import (
    formal_parameter,
    schema_of,
    type_name,
    violated_type_variables,
)

__all__ = ["widen_types"]

_WIDER = {
    "tensor(float16)": ir.DataType.FLOAT,
    "tensor(int8)": ir.DataType.INT32,
    "tensor(int16)": ir.DataType.INT32,
    "tensor(uint8)": ir.DataType.INT32,
    "tensor(uint16)": ir.DataType.INT32,
}
# Exact modulo 2^n, so that casting back gives what the narrow operator would have given.
_INTEGER_OPERATORS = frozenset(
    {
        "Abs",
        "Add",
        "Clip",
        "Div",
        "Equal",
        "MatMul",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Sub",
    }
)


def widen_types(node: ir.Node, emit: Emitter) -> ir.Node:
    """Replace a node by Cast, the same operator on a wider type, and Cast back, where that helps.

    Args:
        node: a node of ai.onnx whose operator exists in the target opset.
        emit: the emitter of the target opset.

    Returns:
        The node that now computes: a new one, or the given one where nothing was to do.
    """
    schema = schema_of(node.op_type, emit.opset)
    if schema is None or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        return node
    wider: dict[str, ir.DataType] = {}
    for variable, (actual, allowed) in violated_type_variables(schema, node).items():
        dtype = _wider(node.op_type, actual)
        if dtype is None or type_name(ir.Value(type=ir.TensorType(dtype))) not in allowed:
            return node
        wider[variable] = dtype
    return _cast_around(node, emit, wider) if wider else node


def _wider(op_type: str, actual: str) -> ir.DataType | None:
    dtype = _WIDER.get(actual)
    if dtype == ir.DataType.INT32 and op_type not in _INTEGER_OPERATORS:
        return None
    return dtype


def _cast_around(node: ir.Node, emit: Emitter, wider: Mapping[str, ir.DataType]) -> ir.Node:
    schema = schema_of(node.op_type, emit.opset)
    assert schema is not None
    emit.start(node)
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        dtype = wider.get(formal_parameter(schema.inputs, index).type_str)
        inputs.append(value if value is None or dtype is None else emit.cast(value, dtype))
    first = emit.op(node.op_type, inputs, outputs=len(node.outputs))
    inner = first.producer()
    assert inner is not None
    inner.attributes.update(node.attributes)
    outputs: list[ir.Value | None] = []
    for index, (value, old) in enumerate(zip(inner.outputs, node.outputs, strict=True)):
        dtype = wider.get(formal_parameter(schema.outputs, index).type_str)
        if not old.name:
            value.name = ""
            outputs.append(None)
            continue
        value.type = old.type if dtype is None else ir.TensorType(dtype)
        value.shape = old.shape
        outputs.append(value if dtype is None or old.dtype is None else emit.cast(value, old.dtype))
    emit.replace(node, outputs)
    return inner
