"""Opset-12 forms of what opsets 7 to 11 wrote differently."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from odp.backends.onnx.legalise_emitter import Emitter, Refusal, rule

__all__: list[str] = []


def _append(node: ir.Node, *values: ir.Value | None) -> None:
    """Append inputs to a node that has one input."""
    node.resize_inputs(1 + len(values))
    for index, value in enumerate(values, 1):
        node.replace_input_with(index, value)


@rule("Clip", last=10)
def clip_bounds(node: ir.Node, emit: Emitter) -> None:
    """Turn the attributes `min` and `max` into inputs."""
    x = node.inputs[0]
    dtype = emit.dtype(x)
    bounds: list[ir.Value | None] = []
    for name in ("min", "max"):
        attribute = node.attributes.pop(name, None)
        bounds.append(None if attribute is None else emit.constant(attribute.as_float(), dtype))
    if bounds != [None, None]:
        _append(node, *(bounds if bounds[1] is not None else bounds[:1]))


@rule("Slice", last=9)
def slice_bounds(node: ir.Node, emit: Emitter) -> None:
    """Turn the attributes `starts`, `ends` and `axes` into inputs."""
    values: list[ir.Value | None] = []
    for name in ("starts", "ends", "axes"):
        attribute = node.attributes.pop(name, None)
        if attribute is not None:
            values.append(emit.constant(list(attribute.as_ints()), ir.DataType.INT64))
    _append(node, *values)


@rule("TopK", last=9)
def top_k(node: ir.Node, emit: Emitter) -> None:
    """Turn the attribute `k` into an input."""
    k = node.attributes.pop("k").as_int()
    _append(node, emit.constant([k], ir.DataType.INT64))


@rule("Pad", last=10)
def pad_attributes(node: ir.Node, emit: Emitter) -> None:
    """Turn the attributes `pads` and `value` into inputs."""
    x = node.inputs[0]
    value = node.attributes.get_float("value", 0.0)
    node.attributes.pop("value", None)
    pads = emit.constant(list(node.attributes.pop("pads").as_ints()), ir.DataType.INT64)
    if node.attributes.get_string("mode", "constant") == "constant":
        _append(node, pads, emit.constant(value, emit.dtype(x)))
    else:
        _append(node, pads)


@rule("Dropout", last=11)
def dropout_inference(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Emit Identity: before opset 12 a saved Dropout is an inference one, its mask all ones."""
    x = node.inputs[0]
    outputs = [emit.op("Identity", [x])]
    if len(node.outputs) > 1:
        dtype = ir.DataType.BOOL if emit.source_opset >= 10 else emit.dtype(x)
        shape = emit.op("Shape", [x], dtype=ir.DataType.INT64)
        one = emit.op("ConstantOfShape", [shape], dtype=dtype)
        producer = one.producer()
        assert producer is not None
        tensor = ir.tensor(np.ones(1, dtype=dtype.numpy()))
        producer.attributes["value"] = ir.AttrTensor("value", tensor)
        outputs.append(one)
    return outputs


@rule("OneHot", last=10)
def one_hot_negative(node: ir.Node, emit: Emitter) -> None:
    """Send negative indices out of range: before opset 11 they gave a row of off-values."""
    indices, depth = node.inputs[:2]
    dtype = emit.dtype(indices)
    assert indices is not None and depth is not None
    zero = emit.constant(0, dtype)
    negative = emit.op("Less", [indices, zero], dtype=ir.DataType.BOOL)
    outside = emit.cast(depth, dtype)
    node.replace_input_with(0, emit.op("Where", [negative, outside, indices], dtype=dtype))


@rule("Scatter", last=10)
def scatter_elements(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Emit ScatterElements, the later name of the same operator."""
    axis = node.attributes.get_int("axis", 0)
    return [emit.op("ScatterElements", list(node.inputs), {"axis": axis})]


@rule("Upsample", last=9)
@rule("Resize", first=10, last=10)
def upsample(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Emit the Resize of opset 11 with the coordinates of its predecessors.

    They are "asymmetric" and rounded down: the code of ONNX Runtime for Upsample 7, 9 and
    Resize 10, and adapter 10 to 11 of onnx.version_converter.
    """
    x = node.inputs[0]
    mode = node.attributes.get_string("mode", "nearest")
    if "scales" in node.attributes:
        scales: ir.Value | None = emit.constant(
            np.array(node.attributes["scales"].as_floats(), dtype=np.float32)
        )
    else:
        scales = node.inputs[1]
    attributes = {
        "mode": "linear" if mode == "bilinear" else mode or "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    empty = emit.constant([], ir.DataType.FLOAT)
    return [emit.op("Resize", [x, empty, scales], attributes)]


@rule("Scan", last=8)
def scan_batched(node: ir.Node, emit: Emitter) -> None:
    """Refuse: Scan had a batch axis before opset 9."""
    raise Refusal("Scan before opset 9 has a batch axis; export at opset 9 or later")
