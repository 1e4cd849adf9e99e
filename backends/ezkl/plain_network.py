"""A float graph as EZKL takes it: no division, no contrib operators, finite masks.

EZKL then chooses scales, rescales and tables itself.  What is changed here is what its front end
refuses or does anyway, so that the file means the same in ONNX Runtime and in EZKL.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from odp.backends.ezkl.lint import CircuitRefused, Problem, advice_for
from odp.rewriter.module_paths import module_path_of

__all__ = ["plain_network"]

# EZKL stops at 3.4e38 ("significant bit truncation"); exp(-64) is 0 at any of its scales.
_MASKED, _HUGE = -64.0, -1e3
_CARRIERS = frozenset(
    {"Add", "Where", "Expand", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Transpose", "Tile"}
)
_REAL = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


def plain_network(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose divisions are products with reciprocals and whose masks are finite.

    Args:
        model: opset 12, static shapes; not changed.

    Raises:
        CircuitRefused: of all operators that are not of ONNX.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    foreign = [node for node in copy.graph.node if node.domain not in ("", "ai.onnx")]
    if foreign:
        raise CircuitRefused([Problem(_where(n), n.op_type, advice_for(n)) for n in foreign])
    _finite_masks(copy.graph)
    _without_division(copy)
    del copy.opset_import[:]
    copy.opset_import.extend(o for o in model.opset_import if o.domain in ("", "ai.onnx"))
    return copy


def _where(node: onnx.NodeProto) -> str:
    properties = {entry.key: entry.value for entry in node.metadata_props}
    module = module_path_of(node.name, properties)
    return f"node '{node.name or node.output[0]}'" + (f" in {module}" if module else "")


def _without_division(model: onnx.ModelProto) -> None:
    """Write quotients of real numbers as EZKL computes them: products with reciprocals."""
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    types = _types(model)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Div" or types.get(node.output[0]) not in _REAL:
            nodes.append(node)
            continue
        top, bottom = node.input
        inverse = f"{node.output[0]}_inverse"
        if bottom in constants:
            array = numpy_helper.to_array(constants[bottom])
            graph.initializer.append(
                numpy_helper.from_array(
                    (1.0 / array.astype(np.float64)).astype(array.dtype), inverse
                )
            )
        else:
            is_one = top in constants and _is_one(numpy_helper.to_array(constants[top]))
            result = node.output[0] if is_one else inverse
            made = helper.make_node("Reciprocal", [bottom], [result], name=f"{node.name}_inverse")
            made.metadata_props.extend(node.metadata_props)
            nodes.append(made)
            if is_one:
                continue
        product = helper.make_node("Mul", [top, inverse], node.output, name=node.name)
        product.metadata_props.extend(node.metadata_props)
        nodes.append(product)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _is_one(array: NDArray[np.float64]) -> bool:
    """Whether it is the number 1, which leaves the shape of the other operand as it is."""
    return array.size == 1 and array.ndim == 0 and float(array) == 1.0


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.output, *graph.input)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _finite_masks(graph: onnx.GraphProto) -> None:
    """Bring huge negative numbers that only a softmax sees to one that EZKL can hold."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    for tensor in graph.initializer:
        if tensor.data_type not in _REAL:
            continue
        array = numpy_helper.to_array(tensor)
        huge = array <= _HUGE
        if not huge.any() or (array >= -_HUGE).any():
            continue
        if _only_reaches_softmax(tensor.name, readers, outputs):
            finite = np.where(huge, array.dtype.type(_MASKED), array)
            tensor.CopyFrom(numpy_helper.from_array(finite, tensor.name))


def _only_reaches_softmax(
    name: str, readers: Mapping[str, Sequence[onnx.NodeProto]], outputs: Collection[str]
) -> bool:
    stack, seen = [name], {name}
    while stack:
        current = stack.pop()
        if current in outputs or current not in readers:
            return False
        for node in readers[current]:
            if node.op_type == "Softmax":
                continue
            if node.op_type not in _CARRIERS:
                return False
            if node.output[0] not in seen:
                seen.add(node.output[0])
                stack.append(node.output[0])
    return True
