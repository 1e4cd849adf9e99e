"""Operators without a rule of their own are replaced by the body that their schema declares."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from odp.backends.onnx.legalise_emitter import RULES
from odp.backends.onnx.load import inline_functions, root_reason
from odp.backends.onnx.opset_schemas import schema_of
from odp.rewriter.onnx_expansion import SCHEMA_DOMAIN, call_schema_body

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
    for _ in range(_MAX_DEPTH):
        nodes = [n for n in model.graph.all_nodes() if _has_body(n, source, target)]
        called = [_call_body(node, model, number) for number, node in enumerate(nodes)]
        if not any(called):
            break
        inline_functions(model)
        model.opset_imports.pop(SCHEMA_DOMAIN, None)
        changed = True
    return changed


def _has_body(node: ir.Node, source: int, target: int) -> bool:
    if node.domain != "" or node.op_type in RULES or NO_BODY in node.meta:
        return False
    if schema_of(node.op_type, target) is not None:
        return False
    schema: Any = schema_of(node.op_type, source)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def _call_body(node: ir.Node, model: ir.Model, number: int) -> bool:
    """Let `node` call the body of its schema; if it has none, say why in its meta."""
    try:
        called = call_schema_body(node, model, number)
        reason = "no body for these inputs"
    except Exception as error:  # C++ exceptions of many kinds; the operator is refused later
        called, reason = False, root_reason(error)
    if not called:
        node.meta[NO_BODY] = reason
    return called
