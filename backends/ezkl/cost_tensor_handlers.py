"""Handlers of operators that move elements about, and compute nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from odp.backends.ezkl.cost_lowering import Builder, Handler, Inputs, Outputs

__all__ = ["TENSOR_HANDLERS", "first", "given", "integers", "two"]


def given(inputs: Inputs, index: int) -> int | None:
    """An operand that may be left out."""
    return inputs[index] if index < len(inputs) else None


def first(inputs: Inputs) -> int:
    """The first operand."""
    assert inputs[0] is not None
    return inputs[0]


def two(inputs: Inputs) -> tuple[int, int]:
    """Two operands."""
    assert inputs[0] is not None and inputs[1] is not None
    return inputs[0], inputs[1]


def integers(builder: Builder, node: ir.Node, inputs: Inputs, name: str, index: int) -> list[int]:
    """Integers that are an attribute in old opsets and an input in new ones."""
    value = builder.value(given(inputs, index))
    if value is not None:
        return [int(n) for n in np.atleast_1d(value)]
    return [int(n) for n in node.attributes.get_ints(name, [])]


def _reshape(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand = first(inputs)
    wanted = builder.value(given(inputs, 1))
    if wanted is None:
        return None
    shape = builder.shape(operand)
    target = [int(n) for n in wanted]
    if not node.attributes.get_int("allowzero", 0):
        target = [shape[i] if n == 0 else n for i, n in enumerate(target)]
    return [builder.reshape(operand, np.empty(shape, np.bool_).reshape(target).shape)]


def _transpose(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand = first(inputs)
    shape = builder.shape(operand)
    order = list(node.attributes.get_ints("perm", list(range(len(shape)))[::-1]))
    if order == list(range(len(shape))):
        return [operand]
    target = [shape[axis] for axis in order]
    return [builder.add("Axes", [operand], target, to=("transpose", tuple(order)))]


def _squeeze(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand = first(inputs)
    shape = builder.shape(operand)
    axes = [a % len(shape) for a in integers(builder, node, inputs, "axes", 1)]
    axes = axes or [i for i, n in enumerate(shape) if n == 1]
    return [builder.reshape(operand, [n for i, n in enumerate(shape) if i not in axes])]


def _unsqueeze(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand = first(inputs)
    shape = builder.shape(operand)
    axes = integers(builder, node, inputs, "axes", 1)
    rank = len(shape) + len(axes)
    new = {axis % rank for axis in axes}
    sizes = iter(shape)
    return [builder.reshape(operand, [1 if i in new else next(sizes) for i in range(rank)])]


def _flatten(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand = first(inputs)
    shape = builder.shape(operand)
    axis = node.attributes.get_int("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    rows = int(np.prod(shape[:axis]))
    return [builder.reshape(operand, (rows, builder.network[operand].elements // max(rows, 1)))]


def _cut(builder: Builder, operand: int, axis: int, start: int, end: int) -> int:
    shape = list(builder.shape(operand))
    shape[axis] = end - start
    return builder.add("Slice", [operand], shape, axis=axis, start=start, end=end)


def _slice(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand = first(inputs)
    rank = len(builder.shape(operand))
    starts = integers(builder, node, inputs, "starts", 1)
    ends = integers(builder, node, inputs, "ends", 2)
    axes = integers(builder, node, inputs, "axes", 3) or list(range(len(starts)))
    steps = integers(builder, node, inputs, "steps", 4) or [1] * len(starts)
    if any(step != 1 for step in steps) or not starts:
        return None
    for start, end, axis in zip(starts, ends, axes, strict=True):
        axis %= rank
        low, high, _ = slice(start, end).indices(builder.shape(operand)[axis])
        operand = _cut(builder, operand, axis, low, max(low, high))
    return [operand]


def _split(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand = first(inputs)
    axis = node.attributes.get_int("axis", 0) % len(builder.shape(operand))
    size = builder.shape(operand)[axis]
    sizes = integers(builder, node, inputs, "split", 1)
    if not sizes:
        each = -(-size // len(node.outputs))
        sizes = [min(each, size - start) for start in range(0, size, each)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [_cut(builder, operand, axis, s, s + n) for s, n in zip(starts, sizes, strict=True)]


def _concat(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operands = [i for i in inputs if i is not None]
    axis = node.attributes.get_int("axis", 0) % len(builder.shape(operands[0]))
    operands = [i for i in operands if builder.shape(i)[axis]]
    shape = list(builder.shape(operands[0]))
    shape[axis] = sum(builder.shape(i)[axis] for i in operands)
    return [builder.add("Concat", operands, shape, axis=axis)]


def _gather(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand, indices = two(inputs)
    value = builder.value(indices)
    if value is None:
        return None
    shape = builder.shape(operand)
    axis = node.attributes.get_int("axis", 0) % len(shape)
    target = [*shape[:axis], *value.shape, *shape[axis + 1 :]]
    if value.shape == (1,):
        index = int(value[0]) % shape[axis]
        return [_cut(builder, operand, axis, index, index + 1)]
    return [builder.add("Gather", [operand], target, axis=axis, indices=value.tobytes())]


def _expand(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand = first(inputs)
    wanted = builder.value(given(inputs, 1))
    if wanted is None:
        return None
    shape = np.broadcast_shapes(builder.shape(operand), tuple(int(n) for n in wanted))
    operand = builder.reshape(
        operand, (1,) * (len(shape) - len(builder.shape(operand))) + builder.shape(operand)
    )
    return [builder.add("Broadcast", [operand], shape)]


TENSOR_HANDLERS: dict[str, Handler] = {
    "Concat": _concat,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
