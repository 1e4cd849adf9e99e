"""An expression as an ONNX model of its own: one input ``x``, one output ``y`` of its shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from odp.approximations.expression import Expression
from odp.backends.onnx.check import check_model
from odp.rewriter.graph import Value
from odp.rewriter.onnx_graph import OnnxGraph

__all__ = ["expression_model"]

# IR version 7 is that of ONNX 1.7, whose opset 12 EZKL reads.
_OPSET, _IR_VERSION = 12, 7


def expression_model(
    expression: Expression,
    *,
    shape: Sequence[int | str] = ("n",),
    dtype: str = "float32",
    metadata: Mapping[str, str] | None = None,
) -> ir.Model:
    """A checked opset-12 model of Add, Sub, Mul and Div that computes an expression elementwise.

    Args:
        expression: in the variable ``x``, or constant.
        shape: of input and output; names are dynamic axes.
        dtype: of input, output and constants: ``float32`` or ``float64``.
        metadata: goes into the properties of the model.

    Raises:
        OnnxError: the model does not pass the checker, or ONNX Runtime does not load it.

    >>> from odp.approximations import variable
    >>> model = expression_model(variable("x") ** 3, shape=(1, 16))
    >>> [node.op_type for node in model.graph]
    ['Mul', 'Mul']
    """
    kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    x = ir.Value(name="x", shape=ir.Shape(shape), type=kind)
    placeholder = ir.node("Identity", [x], name="placeholder")
    old = placeholder.outputs[0]
    old.name, old.shape, old.type = "y", ir.Shape(shape), kind
    native = ir.Graph([x], [old], nodes=[placeholder], opset_imports={"": _OPSET}, name="odp")
    model = ir.Model(native, ir_version=_IR_VERSION, producer_name="odp")
    graph = OnnxGraph(model)
    build = graph.builder(graph.node(placeholder), {})
    argument = graph.value(x)
    result: Value
    if expression.variables:
        result = build.expression(expression, argument)
    else:
        # A constant has the shape of the input only if it is added to something that has.
        result = build.add(build.mul(argument, 0.0), float(expression.value))
    if result is not argument:
        graph.replace(graph.value(old), result)
        graph.remove_dead_nodes()
    model.metadata_props.update(metadata or {})
    check_model(model)
    return model
