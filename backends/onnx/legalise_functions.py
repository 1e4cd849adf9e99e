"""Operators without a rule of their own are replaced by the body that their schema declares."""

from __future__ import annotations

import onnx
import onnx.inliner
import onnx_ir as ir
from odp.backends.onnx.legalise_emitter import RULES
from odp.backends.onnx.load import root_reason
from odp.backends.onnx.opset_schemas import schema_of

__all__ = ["expand_schema_functions"]

# A body may call another function: Attention needs two rounds.
_MAX_DEPTH = 8


def _has_body(node: ir.Node, source: int, target: int) -> bool:
    if node.domain != "" or node.op_type in RULES or schema_of(node.op_type, target) is not None:
        return False
    schema = schema_of(node.op_type, source)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


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
    counter = 0
    for _ in range(_MAX_DEPTH):
        nodes = [n for n in model.graph.all_nodes() if _has_body(n, source, target)]
        expanded = 0
        for node in nodes:
            counter += 1
            expanded += _expand(node, model, f"{node.op_type}_{counter}")
        if not expanded:
            break
        changed = True
    return changed


def _expand(node: ir.Node, model: ir.Model, prefix: str) -> bool:
    """Splice the body of one node into its graph; False where onnx cannot build the body."""
    present = {v.name: v for v in node.inputs if v is not None}
    if any(v.type is None for v in present.values()) or node.graph is None:
        return False
    outputs = [o for o in node.outputs if o.name]
    inputs = [ir.serde.serialize_value(v) for v in present.values()]
    graph = onnx.helper.make_graph(
        [ir.serde.serialize_node(node)],
        "body",
        inputs,
        [ir.serde.serialize_value(o) for o in outputs],
    )
    opsets = [onnx.helper.make_opsetid("", model.opset_imports[""])]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    try:
        proto = onnx.inliner.inline_selected_functions(
            proto, [("", node.op_type)], inline_schema_functions=True
        )
        body = ir.from_proto(proto).graph
    except Exception as error:  # C++ exceptions of many kinds; the operator is refused later
        node.meta["legalise"] = root_reason(error)
        return False
    nodes = list(body)
    if len(nodes) == 1 and nodes[0].op_identifier() == node.op_identifier():
        return False
    _splice(node, body, nodes, present, prefix)
    return True


def _splice(
    node: ir.Node,
    body: ir.Graph,
    nodes: list[ir.Node],
    present: dict[str | None, ir.Value],
    prefix: str,
) -> None:
    replacement = {o.name: o for o in body.outputs}
    for value in list(body.inputs):
        value.replace_all_uses_with(present[value.name], replace_graph_outputs=True)
    body_graph_outputs = set(body.outputs)
    body.outputs.clear()
    for inner in list(body.all_nodes()):
        inner.metadata_props.update(node.metadata_props)
        inner.name = f"{prefix}/{inner.name or inner.op_type}"
        for output in inner.outputs:
            if output.name and output not in body_graph_outputs:
                output.name = f"{prefix}/{output.name}"
    body.remove(nodes)
    graph = node.graph
    assert graph is not None
    graph.insert_before(node, nodes)
    for old in node.outputs:
        if not old.name:
            continue
        new = replacement[old.name]
        name, old.name = old.name, None
        new.name = name
        new.type = new.type or old.type
        new.shape = new.shape or old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
