"""Operators without a rule of their own are replaced by the body that their schema declares."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir

from odp.backends.onnx.legalise_emitter import RULES
from odp.backends.onnx.load import inline_functions, root_reason
from odp.backends.onnx.opset_schemas import schema_of

__all__ = ["NO_BODY", "expand_schema_functions"]

NO_BODY = "odp.legalise.no_body"
"""Key in `node.meta`: why the body of an operator could not be built."""

# A body may call another function: SequenceMap of an Attention needs two rounds.
_MAX_DEPTH = 8


def expand_schema_functions(model: ir.Model, target: int) -> bool:
    """Replace, in place, operators unknown to the target opset by the bodies of their schemas.

    The bodies are in the opset of the model, and general: `simplify` removes their shape
    arithmetic.  Provenance of the replaced node goes to every node of the body.

    Args:
        model: the model, with types and shapes inferred.
        target: the opset that has to know the operators.

    Returns:
        Whether anything was replaced.
    """
    source = model.opset_imports[""]
    changed = False
    for depth in range(_MAX_DEPTH):
        nodes = [n for n in model.graph.all_nodes() if _has_body(n, source, target)]
        for index, node in enumerate(nodes):
            function = _body(node, source, f"odp.body.{depth}.{index}")
            if function is not None:
                node.domain = function.domain
                model.functions[function.identifier()] = function
        if not model.functions:
            break
        inline_functions(model)
        changed = True
    return changed


def _has_body(node: ir.Node, source: int, target: int) -> bool:
    if node.domain != "" or node.op_type in RULES or NO_BODY in node.meta:
        return False
    if schema_of(node.op_type, target) is not None:
        return False
    schema: Any = schema_of(node.op_type, source)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def _body(node: ir.Node, source: int, domain: str) -> ir.Function | None:
    """Build the body of one node as a function; None, with the reason in its meta, if impossible.

    onnx.inliner does the same, but fails on absent optional inputs and drops the defaults of
    attributes (HannWindow loses a type), both in onnx 1.23.
    """
    schema = schema_of(node.op_type, source)
    assert schema is not None
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.type:
            node.attributes[name] = ir.serde.deserialize_attribute(attribute.default_value)
    try:
        data = _serialised_body(schema, node, source)
        proto = onnx.FunctionProto.FromString(data)
        _complete(proto, node, domain)
        function = ir.serde.deserialize_function(proto)
    except Exception as error:  # C++ exceptions of many kinds; the operator is refused later
        node.meta[NO_BODY] = root_reason(error) or "no body for these inputs"
        return None
    function.opset_imports.clear()
    function.opset_imports[""] = source
    for inner in function.all_nodes():
        inner.metadata_props.update(node.metadata_props)
    return function


def _serialised_body(schema: Any, node: ir.Node, source: int) -> bytes:
    """Ask onnx for the body; `schema` is an OpSchema, whose stubs lack these methods."""
    if schema.has_function:
        return bytes(schema.get_function_with_opset_version(source))
    node_bytes = ir.serde.serialize_node(node).SerializeToString()
    types = _input_types(node)
    return bytes(
        schema.get_context_dependent_function_with_opset_version(source, node_bytes, types)
    )


def _complete(proto: onnx.FunctionProto, node: ir.Node, domain: str) -> None:
    """Make the body of a schema a function that onnx_ir can read and inline for this node."""
    proto.domain = domain
    del proto.output[len(node.outputs) :]
    produced = {name for inner in proto.node for name in inner.output} | set(proto.input)
    for name in proto.output:
        # Bodies that depend on the context leave out what this node does not ask for.
        if name not in produced:
            proto.node.append(onnx.helper.make_node("Constant", [], [name], value_float=0.0))
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.GRAPH and name in proto.attribute:
            # The body of SequenceMap contains its graph already.
            proto.attribute.remove(name)
            node.attributes.pop(name)


def _input_types(node: ir.Node) -> list[bytes]:
    """Serialise the input types; an absent input has an empty one.

    Raises:
        ValueError: the type of an input is unknown.
    """
    types = []
    for value in node.inputs:
        proto = onnx.TypeProto()
        if value is not None:
            if value.type is None:
                raise ValueError(f"the type of its input {value.name!r} is unknown")
            ir.serde.serialize_type_into(proto, value.type)
            if value.shape is not None:
                ir.serde.serialize_shape_into(proto, value.shape)
        types.append(proto.SerializeToString())
    return types
