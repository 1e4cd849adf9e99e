"""Opset-12 forms of the normalisations that came later, spelled out in plain arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from odp.backends.onnx.legalise_emitter import Emitter, Refusal, rank, rule

__all__: list[str] = []


def _widened(emit: Emitter, node: ir.Node, x: ir.Value) -> ir.Value:
    """Cast float16 to float32 for the statistics, as the attribute `stash_type` (default 1) asks.

    A double stays a double: the definition would round it to float32 first.
    """
    if emit.dtype(x) == ir.DataType.FLOAT16 and node.attributes.get_int("stash_type", 1) == 1:
        return emit.cast(x, ir.DataType.FLOAT)
    return x


def _statistics(
    emit: Emitter, x: ir.Value, axes: list[int], epsilon: float
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Emit mean, x - mean, and sqrt(variance + epsilon) over `axes`, all with kept dimensions."""
    mean = emit.op("ReduceMean", [x], {"axes": axes, "keepdims": 1})
    centred = emit.op("Sub", [x, mean])
    squared = emit.op("Mul", [centred, centred])
    variance = emit.op("ReduceMean", [squared], {"axes": axes, "keepdims": 1})
    deviation = emit.op("Sqrt", [emit.op("Add", [variance, emit.like(epsilon, x)])])
    return mean, centred, deviation


def _normalised_axes(node: ir.Node, x: ir.Value) -> list[int]:
    """Return the axes from `axis` on, counted from the end."""
    axis = node.attributes.get_int("axis", -1)
    if axis >= 0:
        axis -= rank(x, "a positive axis")
    return list(range(axis, 0))


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _scaled(emit: Emitter, y: ir.Value, scale: ir.Value | None, bias: ir.Value | None) -> ir.Value:
    if scale is not None:
        y = emit.op("Mul", [y, scale])
    if bias is not None:
        y = emit.op("Add", [y, bias])
    return y


@rule("LayerNormalization")
def layer_normalization(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Emit (x - mean) / sqrt(variance + epsilon) * scale + bias over the last axes."""
    x = node.inputs[0]
    dtype = emit.dtype(x)
    assert x is not None
    axes = _normalised_axes(node, x)
    wide = _widened(emit, node, x)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    mean, centred, deviation = _statistics(emit, wide, axes, epsilon)
    normal = emit.cast(emit.op("Div", [centred, deviation]), dtype)
    outputs = [_scaled(emit, normal, _input(node, 1), _input(node, 2))]
    if len(node.outputs) > 1:
        outputs.append(mean)
    if len(node.outputs) > 2:
        outputs.append(emit.op("Reciprocal", [deviation]))
    return outputs


@rule("RMSNormalization")
def rms_normalization(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Emit x / sqrt(mean(x^2) + epsilon) * scale over the last axes."""
    x = node.inputs[0]
    dtype = emit.dtype(x)
    assert x is not None
    axes = _normalised_axes(node, x)
    wide = _widened(emit, node, x)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    squared = emit.op("Mul", [wide, wide])
    mean = emit.op("ReduceMean", [squared], {"axes": axes, "keepdims": 1})
    deviation = emit.op("Sqrt", [emit.op("Add", [mean, emit.like(epsilon, wide)])])
    normal = emit.cast(emit.op("Div", [wide, deviation]), dtype)
    return [_scaled(emit, normal, _input(node, 1), None)]


@rule("GroupNormalization")
def group_normalization(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Emit the normalisation over each group of channels.

    Scale and bias have one entry per group in opset 18 to 20, one per channel from 21 on.
    """
    x, scale, bias = node.inputs[:3]
    dtype = emit.dtype(x)
    assert x is not None and scale is not None and bias is not None
    dimensions = rank(x, "group normalisation")
    groups = node.attributes.get_int("num_groups", 0)
    per_channel = emit.source_opset >= 21
    if x.shape is not None and x.shape.is_static():
        shape = emit.constant([int(d) for d in x.shape.numpy()], ir.DataType.INT64)
    else:
        shape = emit.op("Shape", [x], dtype=ir.DataType.INT64)
    wide = _widened(emit, node, x)
    grouping = emit.constant([0, groups, -1], ir.DataType.INT64)
    grouped = emit.op("Reshape", [wide, grouping])
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    _, centred, deviation = _statistics(emit, grouped, [2], epsilon)
    normal = emit.cast(emit.op("Div", [centred, deviation]), dtype)
    broadcast = [1, -1] + [1] * (dimensions - 2) if per_channel else [1, -1, 1]
    target = emit.constant(broadcast, ir.DataType.INT64)
    scale = emit.op("Reshape", [scale, target])
    bias = emit.op("Reshape", [bias, target])
    if per_channel:
        return [_scaled(emit, emit.op("Reshape", [normal, shape]), scale, bias)]
    return [emit.op("Reshape", [_scaled(emit, normal, scale, bias), shape])]


@rule("BatchNormalization", last=8)
def batch_normalization_spatial(node: ir.Node, emit: Emitter) -> Sequence[ir.Value] | None:
    """Drop `spatial`; spatial=0 has statistics per activation instead of per channel."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise Refusal("it is a training form with running statistics as outputs")
    spatial = node.attributes.get_int("spatial", 1)
    node.attributes.pop("spatial", None)
    node.resize_outputs(1)
    if spatial:
        return None
    x, scale, bias, mean, variance = node.inputs[:5]
    assert x is not None and variance is not None
    epsilon = emit.like(node.attributes.get_float("epsilon", 1e-5), x)
    deviation = emit.op("Sqrt", [emit.op("Add", [variance, epsilon])])
    normal = emit.op("Div", [emit.op("Sub", [x, mean]), deviation])
    return [_scaled(emit, normal, scale, bias)]


@rule("BatchNormalization", first=14)
def batch_normalization_training(node: ir.Node, emit: Emitter) -> Sequence[ir.Value] | None:
    """Drop `training_mode` 0; spell out 1, with the running statistics as outputs 2 and 3."""
    x, scale, bias, mean, variance = node.inputs[:5]
    assert x is not None and mean is not None and variance is not None
    dtype = x.dtype
    if not node.attributes.get_int("training_mode", 0):
        node.attributes.pop("training_mode", None)
        node.resize_outputs(1)
        # From opset 15 on the statistics may have another precision than x; before they may not.
        for index, value in enumerate((scale, bias, mean, variance), 1):
            if value is not None and dtype is not None and value.dtype not in (None, dtype):
                node.replace_input_with(index, emit.cast(value, dtype))
        return None
    dimensions = rank(x, "batch normalisation in training mode")
    axes = [0, *range(2, dimensions)]
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    momentum = node.attributes.get_float("momentum", 0.9)
    batch_mean, centred, deviation = _statistics(emit, x, axes, epsilon)
    squared = emit.op("Mul", [centred, centred])
    batch_variance = emit.op("ReduceMean", [squared], {"axes": axes, "keepdims": 0})
    shape = emit.constant([1, -1] + [1] * (dimensions - 2), ir.DataType.INT64)
    scale = emit.op("Reshape", [scale, shape])
    bias = emit.op("Reshape", [bias, shape])
    outputs = [_scaled(emit, emit.op("Div", [centred, deviation]), scale, bias)]
    flat = emit.op("Reshape", [batch_mean, emit.constant([-1], ir.DataType.INT64)])
    for running, batch in ((mean, flat), (variance, batch_variance)):
        kept = emit.op("Mul", [running, emit.like(momentum, running)])
        batch = emit.cast(batch, emit.dtype(running))
        added = emit.op("Mul", [batch, emit.like(1 - momentum, running)])
        outputs.append(emit.op("Add", [kept, added]))
    return outputs[: len(node.outputs)]
