"""Is the graph of a model put together in a way that it can be walked and written again?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import onnx
import onnx_ir as ir

from odp.backends.onnx.errors import OnnxError
from odp.backends.onnx.load import describe_node

__all__ = ["check_structure"]


def check_structure(model: ir.Model) -> None:
    """Check what a damaged or badly exported file can get wrong and protobuf does not notice.

    Every operand of a node is an input, a stored constant or the result of an earlier node, and
    there are as many as the operator needs; names are text; attributes have a type.

    Raises:
        OnnxError: names the first node that is wrong.
    """
    versions = model.graph.opset_imports
    _check_graph(model.graph, frozenset(), versions)
    for function in model.functions.values():
        _check_graph(function, frozenset(), versions | function.opset_imports)


def _check_graph(
    graph: ir.Graph | ir.Function, outer: Iterable[ir.Value], versions: Mapping[str, int]
) -> None:
    _check_text(graph.name or "", *(value.name or "" for value in (*graph.inputs, *graph.outputs)))
    _check_types(graph.inputs)
    known: set[ir.Value] = {*outer, *graph.inputs}
    if isinstance(graph, ir.Graph):
        _check_types(graph.initializers.values())
        known.update(graph.initializers.values())
    for node in graph:
        _check_text(node.op_type, node.domain, node.name or "", *node.attributes)
        needed = _required_inputs(node.op_type, versions.get(node.domain, 0), node.domain)
        if len(node.inputs) < needed:
            raise OnnxError(
                f"node {describe_node(node)} has {len(node.inputs)} inputs, its operator needs "
                f"{needed}; export the model again"
            )
        for value in node.inputs:
            if value is not None and value not in known:
                raise OnnxError(
                    f"node {describe_node(node)} reads {value.name!r}, which is no input, no "
                    "stored constant and no result of an earlier node; export the model again"
                )
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.UNDEFINED:
                raise OnnxError(
                    f"node {describe_node(node)}: attribute {attribute.name!r} has no type; "
                    "export the model again"
                )
            if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
                _check_graph(attribute.as_graph(), known, versions)
        _check_types(node.outputs)
        known.update(node.outputs)
    for output in graph.outputs:
        if output not in known:
            raise OnnxError(
                f"nothing computes the output {output.name!r} of graph {graph.name!r}; "
                "export the model again"
            )


def _check_types(values: Iterable[ir.Value]) -> None:
    for value in values:
        stored = None if value.const_value is None else value.const_value.dtype
        if ir.DataType.UNDEFINED in (value.dtype, stored):
            raise OnnxError(f"{value.name!r} has an undefined element type; export the model again")


@cache
def _required_inputs(kind: str, version: int, domain: str) -> int:
    """Inputs up to the last that is not optional; 0 for an operator that onnx does not know."""
    try:
        return int(onnx.defs.get_schema(kind, version, domain).min_input)
    except onnx.defs.SchemaError:
        return 0


def _check_text(*texts: str) -> None:
    for text in texts:
        try:
            valid = isinstance(text, str) and text.encode("utf-8") is not None
        except UnicodeEncodeError:
            valid = False
        if not valid:
            raise OnnxError(f"the model is damaged: {text!r} in it is not text; copy it again")
