"""One function for each ONNX operator that the model of costs knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from odp.backends.ezkl.cost_lowering import Builder, Handler, Inputs, Outputs
from odp.backends.ezkl.cost_tensor_handlers import TENSOR_HANDLERS, first, given, integers, two

__all__ = ["HANDLERS"]

_UNARY = {
    "Abs": "Abs", "Acos": "Acos", "Acosh": "Acosh", "Asin": "Asin", "Asinh": "Asinh",
    "Atan": "Atan", "Atanh": "Atanh", "Cos": "Cos", "Cosh": "Cosh", "Erf": "Erf", "Exp": "Exp",
    "Floor": "Floor", "HardSwish": "HardSwish", "Log": "Ln", "Neg": "Neg", "Not": "Not",
    "Reciprocal": "Recip", "Sigmoid": "Sigmoid", "Sign": "Sign", "Sin": "Sin", "Sinh": "Sinh",
    "Sqrt": "Sqrt", "Tan": "Tan", "Tanh": "Tanh",
}  # fmt: skip
_BINARY = {"Add": "Add", "Sub": "Sub", "Mul": "Mul", "Pow": "Pow"}
_BOOLEAN = {
    "And": "And", "Or": "Or", "Xor": "Xor", "Equal": "Equal", "Less": "Less",
    "LessOrEqual": "LessEqual", "Greater": "Greater", "GreaterOrEqual": "GreaterEqual",
}  # fmt: skip
_FOLDED = {"Max": "Max", "Min": "Min", "Sum": "Add"}
_REDUCTIONS = {
    "ReduceSum": "Sum", "ReduceMax": "ReduceMax", "ReduceMin": "ReduceMin", "ReduceProd": "Prod",
}  # fmt: skip
# Names of batch axes, apart from those of the product itself.
_LETTERS = "abcdefghijlopqrstuvwxyz"


def _unary(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    return [builder.unary(_UNARY[node.op_type], first(inputs))]


def _binary(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    return [builder.binary(_BINARY[node.op_type], *two(inputs))]


def _boolean(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    return [builder.binary(_BOOLEAN[node.op_type], *two(inputs), category="bool")]


def _folded(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    result = first(inputs)
    for operand in inputs[1:]:
        assert operand is not None
        result = builder.binary(_FOLDED[node.op_type], result, operand)
    return [result]


def _div(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    left, right = two(inputs)
    if builder.network[left].category != "float":
        return None
    return [builder.divide(left, right)]


def _identity(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    return [first(inputs)]


def _cast(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    target = ir.DataType(node.attributes.get_int("to", 1))
    category = "bool" if target == ir.DataType.BOOL else "float"
    if target.is_integer():
        category = "integer"
    operand = first(inputs)
    return [builder.add("Cast", [operand], builder.shape(operand), category)]  # type: ignore[arg-type]


def _clip(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    result = first(inputs)
    for kind, name, index in (("Max", "min", 1), ("Min", "max", 2)):
        bound = given(inputs, index)
        if bound is None and name in node.attributes:
            bound = builder.scalar(node.attributes.get_float(name), result)
        if bound is not None:
            result = builder.binary(kind, result, bound)
    return [result]


def _relu(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand = first(inputs)
    return [builder.binary("Max", operand, builder.scalar(0.0, operand))]


def _leaky_relu(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    slope = node.attributes.get_float("alpha", 0.01)
    return [builder.unary("LeakyRelu", first(inputs), slope=slope)]


def _softplus(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    x = first(inputs)
    return [
        builder.unary("Ln", builder.binary("Add", builder.unary("Exp", x), builder.scalar(1.0, x)))
    ]


def _softsign(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    x = first(inputs)
    denominator = builder.binary("Add", builder.unary("Abs", x), builder.scalar(1.0, x))
    return [builder.divide(x, denominator)]


def _elu(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    x = first(inputs)
    alpha = builder.scalar(node.attributes.get_float("alpha", 1.0), x)
    below = builder.binary("Sub", builder.unary("Exp", x), builder.scalar(1.0, x))
    below = builder.binary("Mul", alpha, below)
    above = builder.binary("Less", builder.scalar(0.0, x), x, category="bool")
    return [builder.add("Iff", [above, x, below], builder.shape(x), "float")]


def _hard_sigmoid(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    x = first(inputs)
    alpha = builder.scalar(node.attributes.get_float("alpha", 0.2), x)
    beta = builder.scalar(node.attributes.get_float("beta", 0.5), x)
    y = builder.binary("Add", beta, builder.binary("Mul", alpha, x))
    y = builder.binary("Min", builder.scalar(1.0, x), y)
    return [builder.binary("Max", builder.scalar(0.0, x), y)]


def _where(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    assert inputs[0] is not None and inputs[1] is not None and inputs[2] is not None
    aligned = builder.align([inputs[0], inputs[1], inputs[2]])
    shape = np.broadcast_shapes(*(builder.shape(i) for i in aligned))
    return [builder.add("Iff", aligned, shape, builder.network[inputs[1]].category)]


def _matmul(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    left, right = two(inputs)
    a, b = builder.shape(left), builder.shape(right)
    rank = max(len(a), len(b))
    batch = _LETTERS[: max(rank - 2, 0)]
    left_axes = "k" if len(a) == 1 else batch[rank - len(a) :] + "mk"
    right_axes = "k" if len(b) == 1 else batch[rank - len(b) :] + "kn"
    output = batch + ("" if len(a) == 1 else "m") + ("" if len(b) == 1 else "n")
    sizes: dict[str, int] = {}
    for axes, shape in ((left_axes, a), (right_axes, b)):
        for axis, size in zip(axes, shape, strict=True):
            sizes[axis] = max(size, sizes.get(axis, 1))
    equation = f"{left_axes},{right_axes}->{output}"
    shape = tuple(sizes[axis] for axis in output)
    return [builder.add("EinSum", [left, right], shape, equation=equation)]


def _gemm(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    left, right = two(inputs)
    left_axes = "km" if node.attributes.get_int("transA", 0) else "mk"
    right_axes = "nk" if node.attributes.get_int("transB", 0) else "kn"
    shape = (
        builder.shape(left)[left_axes.index("m")],
        builder.shape(right)[right_axes.index("n")],
    )
    equation = f"{left_axes},{right_axes}->mn"
    result = builder.add("EinSum", [left, right], shape, equation=equation)
    alpha = node.attributes.get_float("alpha", 1.0)
    beta = node.attributes.get_float("beta", 1.0)
    if alpha != 1:
        result = builder.binary("Mul", builder.scalar(alpha, result), result)
    addend = given(inputs, 2)
    if addend is not None and beta != 0:
        value = builder.value(addend)
        if value is not None and beta != 1:
            addend = builder.constant((np.float32(beta) * value).astype(np.float32))
        elif beta != 1:
            addend = builder.binary("Mul", builder.scalar(beta, addend), addend)
        result = builder.binary("Add", result, addend)
    return [result]


def _einsum(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    if "..." in equation or "->" not in equation or any(i is None for i in inputs):
        return None
    operands, output = equation.split("->")
    numbers = [i for i in inputs if i is not None]
    sizes: dict[str, int] = {}
    for axes, number in zip(operands.split(","), numbers, strict=True):
        sizes.update(zip(axes, builder.shape(number), strict=True))
    shape = tuple(sizes[axis] for axis in output)
    return [builder.add("EinSum", numbers, shape, equation=equation)]


def _axes(builder: Builder, node: ir.Node, inputs: Inputs, operand: int) -> list[int]:
    rank = len(builder.shape(operand))
    axes = integers(builder, node, inputs, "axes", 1)
    if not axes:
        return [] if node.attributes.get_int("noop_with_empty_axes", 0) else list(range(rank))
    return [axis % rank for axis in axes]


def _reduction(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand = first(inputs)
    axes = _axes(builder, node, inputs, operand)
    keep = bool(node.attributes.get_int("keepdims", 1))
    if not axes:
        return [operand]
    if node.op_type == "ReduceMean":
        return [builder.mean(operand, axes, keep)]
    if node.op_type in ("ReduceSumSquare", "ReduceL2", "ReduceL1"):
        inner = "Abs" if node.op_type == "ReduceL1" else "Square"
        result = builder.reduce("Sum", builder.unary(inner, operand), axes, keep)
        return [builder.unary("Sqrt", result) if node.op_type == "ReduceL2" else result]
    if node.op_type == "ReduceLogSumExp":
        result = builder.reduce("Sum", builder.unary("Exp", operand), axes, keep)
        return [builder.unary("Ln", result)]
    return [builder.reduce(_REDUCTIONS[node.op_type], operand, axes, keep)]


def _softmax(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    operand = first(inputs)
    rank = len(builder.shape(operand))
    axis = node.attributes.get_int("axis", -1 if builder.opset >= 13 else 1) % max(rank, 1)
    # Before opset 13 every axis from this one on is normalised.
    axes = (axis,) if builder.opset >= 13 else tuple(range(axis, rank))
    if len(axes) != 1:
        return None
    result = builder.unary("Softmax", operand, axis=axis)
    return [builder.unary("Ln", result) if node.op_type == "LogSoftmax" else result]


def _layer_norm(builder: Builder, node: ir.Node, inputs: Inputs) -> Outputs:
    if len(node.outputs) > 1:
        return None
    x, scale = two(inputs)
    rank = len(builder.shape(x))
    axes = list(range(node.attributes.get_int("axis", -1) % rank, rank))
    centred = builder.binary("Sub", x, builder.mean(x, axes))
    variance = builder.mean(builder.unary("Square", centred), axes)
    epsilon = builder.scalar(node.attributes.get_float("epsilon", 1e-5), variance)
    inverse = builder.unary("Rsqrt", builder.binary("Add", variance, epsilon))
    result = builder.binary("Mul", builder.binary("Mul", centred, inverse), scale)
    bias = given(inputs, 2)
    return [result if bias is None else builder.binary("Add", result, bias)]


def _table(names: Sequence[str], handler: Handler) -> dict[str, Handler]:
    return dict.fromkeys(names, handler)


HANDLERS: dict[str, Handler] = {
    **_table(list(_UNARY), _unary),
    **_table(list(_BINARY), _binary),
    **_table(list(_BOOLEAN), _boolean),
    **_table(list(_FOLDED), _folded),
    **_table(
        [*_REDUCTIONS, "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"],
        _reduction,
    ),
    **_table(["Softmax", "LogSoftmax"], _softmax),
    **_table(["Identity", "Dropout"], _identity),
    "Cast": _cast,
    "Clip": _clip,
    "Div": _div,
    "Einsum": _einsum,
    "Elu": _elu,
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "Relu": _relu,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Where": _where,
    **TENSOR_HANDLERS,
}
