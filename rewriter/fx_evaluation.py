"""Exact evaluation of the parts of an fx graph that no input and no parameter reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

__all__ = ["Binding", "ConstantEvaluator", "attribute_of"]


@dataclass(frozen=True)
class Binding:
    """A tensor of the module that a placeholder of a lifted graph stands for.

    Attributes:
        tensor: the parameter or buffer.
        fixed: whether neither training nor a state_dict changes it.  Parameters and persistent
            buffers belong to whoever loads a state_dict; what was folded from them would stay
            behind.
    """

    tensor: torch.Tensor
    fixed: bool


def attribute_of(native: fx.Node) -> Any:
    """What a `get_attr` node stands for: a tensor, a graph module or another object."""
    found: Any = native.graph.owning_module
    for name in str(native.target).split("."):
        found = getattr(found, name, None)
    return found


class ConstantEvaluator:
    """Evaluates nodes on real tensors and remembers which ones it cannot."""

    def __init__(self, bindings: Mapping[str, Binding]) -> None:
        """Evaluate what depends on nothing but the fixed ones of `bindings`."""
        self._bindings = bindings
        self._dynamic: set[fx.Node] = set()
        self._known: dict[fx.Node, torch.Tensor] = {}

    def evaluate(self, native: fx.Node) -> torch.Tensor | None:
        """The tensor `native` always is, or None if an input, a parameter or chance decides it."""
        if native in self._known:
            return self._known[native]
        order = self._ancestors(native)
        if order is None:
            return None
        values: dict[fx.Node, Any] = {}
        with torch.no_grad():
            for node in order:
                values[node] = self._value(node, values)
        result = values[native]
        if not isinstance(result, torch.Tensor):
            return None
        self._known[native] = result
        return result

    def _value(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        if node in self._known:
            return self._known[node]
        if node.op == "placeholder":
            return self._bindings[node.name].tensor
        if node.op == "get_attr":
            return attribute_of(node)
        arguments = fx.map_arg(node.args, values.__getitem__)
        keywords = fx.map_arg(node.kwargs, values.__getitem__)
        return node.target(*arguments, **keywords)  # type: ignore[operator]

    def _ancestors(self, native: fx.Node) -> list[fx.Node] | None:
        """Nodes that compute `native`, in order; None if they depend on what can change."""
        order: list[fx.Node] = []
        done: set[fx.Node] = set()
        stack: list[tuple[fx.Node, bool]] = [(native, False)]
        while stack:
            node, expanded = stack.pop()
            if node in done:
                continue
            if node in self._dynamic or not self._is_pure(node):
                # Everything that waits on the stack for its operands depends on `node`.
                self._dynamic.update(waiting for waiting, open_ in stack if open_)
                self._dynamic.add(node)
                return None
            if expanded or node in self._known:
                done.add(node)
                order.append(node)
                continue
            stack.append((node, True))
            stack.extend((operand, False) for operand in node.all_input_nodes)
        return order

    def _is_pure(self, node: fx.Node) -> bool:
        if node.op == "placeholder":
            binding = self._bindings.get(node.name)
            return binding is not None and binding.fixed
        if node.op == "get_attr":
            return isinstance(attribute_of(node), torch.Tensor)
        if node.op != "call_function" or node.is_impure():
            return False
        target = node.target
        if isinstance(target, torch._ops.OpOverload):
            return torch.Tag.nondeterministic_seeded not in target.tags
        return not isinstance(target, torch._ops.HigherOrderOperator)
