"""Operators in place as functions and copies, so that passes see the functions."""

from __future__ import annotations

import torch
from torch import fx

from odp.rewriter.fx_transcendental import is_transcendental

__all__ = ["make_functional", "operator_name"]


def operator_name(node: fx.Node) -> str:
    """Name of the ATen operator of a node, or an empty string."""
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target._schema.name).partition("::")[2]
    return ""


def make_functional(node: fx.Node) -> None:
    """Split an operator in place, such as `silu_`, into the function and a copy to its operand.

    Only what hides a transcendental function is split.
    """
    name = operator_name(node)
    if not name.endswith("_") or not is_transcendental(node):
        return
    assert isinstance(node.target, torch._ops.OpOverload)
    packet = getattr(torch.ops.aten, name.removesuffix("_"))
    with node.graph.inserting_before(node):
        function = node.graph.call_function(
            getattr(packet, node.target._overloadname), node.args, node.kwargs
        )
        copy = node.graph.call_function(torch.ops.aten.copy_.default, (node.args[0], function))
    function.meta.update(node.meta)
    copy.meta.update(node.meta)
    node.replace_all_uses_with(copy)
    node.graph.erase_node(node)
