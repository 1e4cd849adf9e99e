"""Opset-12 forms of operators whose axes or sizes became inputs, and of the softmax family."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from odp.backends.onnx.legalise_emitter import Emitter, Refusal, integers, rank, rule

__all__: list[str] = []

_REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)
# What a reduction over no axes at all still does to each element.
_ELEMENTWISE = {"ReduceL1": "Abs", "ReduceL2": "Abs", "ReduceLogSum": "Log"}


@rule(*_REDUCTIONS, first=18)
@rule("ReduceSum", first=13)
def reduce_axes(node: ir.Node, emit: Emitter) -> Sequence[ir.Value] | None:
    """Turn the input `axes` back into an attribute."""
    axes_input = node.inputs[1] if len(node.inputs) > 1 else None
    axes = integers(axes_input, "axes") if axes_input is not None else []
    no_operation = node.attributes.get_int("noop_with_empty_axes", 0)
    node.attributes.pop("noop_with_empty_axes", None)
    x = node.inputs[0]
    assert x is not None
    if not axes and no_operation:
        if node.op_type == "ReduceSumSquare":
            return [emit.op("Mul", [x, x])]
        return [emit.op(_ELEMENTWISE.get(node.op_type, "Identity"), [x])]
    node.resize_inputs(1)
    if axes:
        node.attributes["axes"] = ir.AttrInt64s("axes", axes)
    if x.dtype == ir.DataType.BOOL:
        # Compared with 0 and not cast: the maximum over an empty set of integers is negative.
        number = emit.op(node.op_type, [emit.cast(x, ir.DataType.INT32)])
        producer = number.producer()
        assert producer is not None
        producer.attributes.update(node.attributes)
        zero = emit.constant(0, ir.DataType.INT32)
        return [emit.op("Greater", [number, zero], dtype=ir.DataType.BOOL)]
    return None


@rule("Squeeze", "Unsqueeze", first=13)
def squeeze_axes(node: ir.Node, emit: Emitter) -> None:
    """Turn the input `axes` back into an attribute."""
    if len(node.inputs) > 1:
        if node.inputs[1] is not None:
            node.attributes["axes"] = ir.AttrInt64s("axes", integers(node.inputs[1], "axes"))
        node.resize_inputs(1)


@rule("Split", first=13)
def split_sizes(node: ir.Node, emit: Emitter) -> None:
    """Turn the input `split`, or the attribute `num_outputs`, into the attribute `split`."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = integers(node.inputs[1], "split sizes")
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
    elif "num_outputs" in node.attributes:
        x = node.inputs[0]
        axis = node.attributes.get_int("axis", 0)
        count = len(node.outputs)
        size = x.shape[axis] if x is not None and x.shape is not None else None
        if not isinstance(size, int):
            raise Refusal("the size that it splits is unknown; freeze the input shapes")
        chunk = -(-size // count)
        sizes = [chunk] * (count - 1) + [size - chunk * (count - 1)]
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
    node.attributes.pop("num_outputs", None)
    node.resize_inputs(1)


@rule("Softmax", "LogSoftmax", "Hardmax", first=13)
def softmax_axis(node: ir.Node, emit: Emitter) -> Sequence[ir.Value] | None:
    """Keep one-axis semantics: before opset 13 all axes from `axis` on were flattened into one.

    The last axis means the same in both; another one is transposed to the end and back.
    """
    axis = node.attributes.get_int("axis", -1)
    x = node.inputs[0]
    if axis == -1:
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        return None
    dimensions = rank(x, "a softmax that is not over the last axis")
    axis %= dimensions
    if axis == dimensions - 1:
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        return None
    swap = list(range(dimensions))
    swap[axis], swap[-1] = swap[-1], swap[axis]
    turned = emit.op("Transpose", [x], {"perm": swap})
    result = emit.op(node.op_type, [turned], {"axis": -1})
    return [emit.op("Transpose", [result], {"perm": swap})]
