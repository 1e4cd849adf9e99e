"""Opset-12 forms of QuantizeLinear and DequantizeLinear, which knew one scale per tensor only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from odp.backends.onnx.legalise_emitter import Emitter, Refusal, rank, rule

__all__: list[str] = []

_ATTRIBUTES = ("axis", "block_size", "output_dtype", "precision", "saturate")


def _per_axis_shape(node: ir.Node) -> list[int] | None:
    """Return the shape that lines a vector of scales up with its axis; None for one scale."""
    if node.attributes.get_int("block_size", 0):
        raise Refusal("quantisation in blocks does not exist before opset 21")
    scale = node.inputs[1]
    if rank(scale, "a quantisation scale") == 0:
        return None
    assert scale is not None and scale.shape is not None
    dimensions = rank(node.inputs[0], "quantisation per axis")
    if scale.shape[0] == 1 and len(scale.shape) == 1:
        return [1] * max(dimensions, 1)
    if len(scale.shape) != 1:
        raise Refusal("quantisation in blocks does not exist before opset 21")
    axis = node.attributes.get_int("axis", 1) % dimensions
    return [-1 if i == axis else 1 for i in range(dimensions)]


def _clear(node: ir.Node) -> None:
    for name in _ATTRIBUTES:
        node.attributes.pop(name, None)


@rule("DequantizeLinear", first=13)
def dequantize(node: ir.Node, emit: Emitter) -> Sequence[ir.Value] | None:
    """Drop the attributes where there is one float32 scale, else emit (x - zero point) * scale."""
    shape = _per_axis_shape(node)
    output = node.attributes.get_int("output_dtype", 0)
    x, scale = node.inputs[:2]
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    wide = emit.dtype(scale)
    dtype = ir.DataType(output) if output else wide
    if shape is None and dtype == wide == ir.DataType.FLOAT:
        _clear(node)
        return None
    assert x is not None and scale is not None
    y = emit.cast(x, ir.DataType.INT32)
    if zero_point is not None:
        zero = emit.cast(zero_point, ir.DataType.INT32)
        y = emit.op("Sub", [y, _aligned(emit, zero, shape)])
    y = emit.op("Mul", [emit.cast(y, wide), _aligned(emit, scale, shape)])
    return [emit.cast(y, dtype)]


@rule("QuantizeLinear", first=13)
def quantize(node: ir.Node, emit: Emitter) -> Sequence[ir.Value] | None:
    """Drop the attributes for one float32 scale, else emit clip(round(x / scale) + zero point)."""
    shape = _per_axis_shape(node)
    x, scale = node.inputs[:2]
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    output = node.attributes.get_int("output_dtype", 0)
    if zero_point is not None:
        dtype = emit.dtype(zero_point)
    else:
        dtype = ir.DataType(output) if output else ir.DataType.UINT8
    if dtype not in (ir.DataType.INT8, ir.DataType.UINT8):
        raise Refusal(f"quantisation to {dtype} does not exist in opset 12")
    if node.attributes.get_int("precision", 0) not in (0, int(emit.dtype(scale))):
        raise Refusal("quantisation with another precision of the division")
    if shape is None and emit.dtype(scale) == emit.dtype(x) == ir.DataType.FLOAT:
        _clear(node)
        if zero_point is None and dtype != ir.DataType.UINT8:
            node.resize_inputs(3)
            node.replace_input_with(2, emit.constant(0, dtype))
        return None
    assert x is not None and scale is not None
    wide = emit.dtype(scale)
    y = emit.op("Div", [emit.cast(x, wide), _aligned(emit, scale, shape)])
    y = emit.cast(emit.op("Round", [y]), ir.DataType.FLOAT)
    if zero_point is not None:
        zero = emit.cast(zero_point, ir.DataType.FLOAT)
        y = emit.op("Add", [y, _aligned(emit, zero, shape)])
    limits = np.iinfo(dtype.numpy())
    bounds = [emit.like(limits.min, y), emit.like(limits.max, y)]
    return [emit.cast(emit.op("Clip", [y, *bounds]), dtype)]


def _aligned(emit: Emitter, value: ir.Value, shape: list[int] | None) -> ir.Value:
    if shape is None:
        return value
    return emit.op("Reshape", [value, emit.constant(shape, ir.DataType.INT64)])
