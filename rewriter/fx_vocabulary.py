"""Reading an fx node in the neutral vocabulary.

Graphs come from torch.export after functionalisation, so in-place operators never appear; operators
that no row of `fx_rows` knows keep their ATen name and their tensor operands.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from odp.rewriter.fx_rows import ROWS, Arguments, Operand, Reading

__all__ = [
    "bound",
    "bound_arguments",
    "is_item",
    "native_type",
    "read",
]


def read(node: fx.Node) -> Reading:
    """The node in the neutral vocabulary.

    Args:
        node: a `call_function` node of an exported graph.

    Returns:
        Its reading; operators outside the vocabulary, and any on complex numbers, are called
        `aten::name`, or by the name of the Python function or higher-order operator, with every
        tensor as an operand.
    """
    if not isinstance(node.target, torch._ops.OpOverload):
        operands = tuple(Operand("args", i) for i, a in enumerate(node.args) if _is_node(a))
        return Reading(native_type(node), operands)
    arguments = bound_arguments(node)
    name = node.target._schema.name.partition("::")[2]
    if node.target.namespace == "aten" and not _meets_complex(node):
        row = ROWS.get(f"{name}.{node.target._overloadname}") or ROWS.get(name)
        reading = None if row is None else row(node, arguments)
        if reading is not None:
            return reading
    operands = tuple(
        Operand(key, index)
        for key, value in arguments.items()
        for index, item in _items(value)
        if _is_node(item)
    )
    return Reading(native_type(node), operands)


def bound_arguments(node: fx.Node) -> Arguments:
    """Arguments of an ATen node by the names of its schema, defaults included."""
    assert isinstance(node.target, torch._ops.OpOverload)
    return bound(node.target, node.args, node.kwargs)


def bound(
    target: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Arguments:
    """Arguments of a call of an operator by the names of its schema, defaults included."""
    found: Arguments = {}
    for index, argument in enumerate(target._schema.arguments):
        if index < len(args):
            found[argument.name] = args[index]
        elif argument.name in kwargs:
            found[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            found[argument.name] = argument.default_value
    return found


def native_type(node: fx.Node) -> str:
    """The operation as torch calls it: `aten::softmax`, or the name of a Python function."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name)
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order::{target._name}"
    if node.op == "call_module":
        return "module"
    module = getattr(target, "__module__", "")
    return f"{module}::{getattr(target, '__name__', target)}"


def _meets_complex(node: fx.Node) -> bool:
    values = (operand.meta.get("val") for operand in node.all_input_nodes)
    return any(isinstance(value, torch.Tensor) and value.is_complex() for value in values)


def _is_node(argument: Any) -> bool:
    return isinstance(argument, fx.Node)


def _items(argument: Any) -> list[tuple[int | None, Any]]:
    if isinstance(argument, list | tuple):
        return list(enumerate(argument))
    return [(None, argument)]


def is_item(node: fx.Node) -> bool:
    """Whether a node takes one result of a node that has several."""
    return node.op == "call_function" and node.target is operator.getitem
