"""The torch.fx adapter of the neutral graph view, over graphs of ATen operators.

The graph is functional, as `torch.export` leaves it, and lifted: parameters and buffers of the
module come in through placeholders, each with a `Binding`.  Bodies of higher-order operators
(`torch.cond`) are graph modules of their own and are walked into.
"""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from odp.rewriter.fx_builder import FxBuilder
from odp.rewriter.fx_evaluation import Binding, ConstantEvaluator, attribute_of
from odp.rewriter.fx_node import FxLiteral, FxNode, FxValue, as_array
from odp.rewriter.fx_transcendental import is_transcendental
from odp.rewriter.fx_vocabulary import is_item
from odp.rewriter.graph import Graph, Node, Value

__all__ = ["FxGraph", "FxLiteral", "FxNode", "FxValue"]


class FxGraph(Graph):
    """A neutral view of a graph module, which it changes in place.

    Call `recompile` when all changes are made.
    """

    def __init__(
        self, module: fx.GraphModule, bindings: Mapping[str, Binding] | None = None
    ) -> None:
        """View a graph module.

        Args:
            module: its nodes carry the fake tensors of torch.export in `meta["val"]`.
            bindings: placeholder name to the tensor that it stands for; the others are inputs.
        """
        self.module = module
        self.bindings = bindings or {}
        self._nodes: dict[fx.Node, FxNode] = {}
        self._values: dict[fx.Node, FxValue] = {}
        self._literals: dict[str, FxLiteral] = {}
        self._paths: dict[fx.Graph, str] = {module.graph: ""}
        self._owners: dict[fx.Graph, fx.GraphModule] = {module.graph: module}
        self._evaluator = ConstantEvaluator(self.bindings)
        self._suspects: list[fx.Node] = []

    def node(self, native: fx.Node) -> FxNode:
        """The view of one node; the same object every time."""
        view = self._nodes.get(native)
        if view is None:
            view = self._nodes[native] = FxNode(self, native)
        return view

    def value(self, native: fx.Node) -> FxValue:
        """The view of the result of one node; the same object every time."""
        view = self._values.get(native)
        if view is None:
            view = self._values[native] = FxValue(self, native)
        return view

    def literal(self, number: float) -> FxLiteral:
        """The view of a number; the same object for the same number."""
        # Zero and minus zero are equal, and not the same number.
        key = number.hex()
        view = self._literals.get(key)
        if view is None:
            view = self._literals[key] = FxLiteral(number)
        return view

    def operand(self, argument: Any) -> Value | None:
        """The value that an argument of a node stands for."""
        if isinstance(argument, fx.Node):
            return self.value(argument)
        if isinstance(argument, int | float):
            return self.literal(float(argument))
        return None

    def nodes(self) -> Iterator[FxNode]:
        for native in self._walk(self.module, ""):
            yield self.node(native)

    def _walk(self, module: fx.GraphModule, path: str) -> Iterator[fx.Node]:
        self._paths[module.graph] = path
        self._owners[module.graph] = module
        for native in list(module.graph.nodes):
            if native.op == "call_function" and not is_item(native):
                yield native
            elif native.op == "get_attr":
                body = attribute_of(native)
                if isinstance(body, fx.GraphModule):
                    yield from self._walk(body, f"{path}{native.target}/")

    def owner(self, native: fx.Node) -> fx.GraphModule:
        """The graph module whose graph holds `native`."""
        return self._owners[native.graph]

    def path_of(self, native: fx.Node) -> str:
        """Path of the body that holds `native`, such as `true_graph_0`."""
        return self._paths.get(native.graph, "").rstrip("/")

    def clone(self) -> FxGraph:
        return FxGraph(_copied(self.module), self.bindings)

    def builder(self, before: Node, tags: Mapping[str, str]) -> FxBuilder:
        assert isinstance(before, FxNode)
        return FxBuilder(self, before.native, tags)

    def replace(self, old: Value, new: Value) -> None:
        assert isinstance(old, FxValue) and isinstance(new, FxValue)
        if isinstance(old.native.meta.get("val"), list | tuple):
            return  # this result of several is not read by anyone
        old.native.replace_all_uses_with(new.native)
        self._suspects.append(old.native)

    def replace_input(self, node: Node, index: int, new: Value) -> None:
        assert isinstance(node, FxNode)
        operand = node.inputs[index]
        node.set_input(index, new.native if isinstance(new, FxValue) else new.scalar)
        if isinstance(operand, FxValue):
            self._suspects.append(operand.native)

    def suspect(self, native: fx.Node) -> None:
        """Let `remove_dead_nodes` look at a node that is new or has lost a reader."""
        self._suspects.append(native)

    def remove_dead_nodes(self) -> None:
        pending, self._suspects = self._suspects, []
        while pending:
            native = pending.pop()
            if native._erased or native.users or native.op not in ("call_function", "get_attr"):
                continue
            if native.op == "call_function" and native.is_impure():
                continue
            pending.extend(native.all_input_nodes)
            native.graph.erase_node(native)

    def evaluate(self, value: Value) -> NDArray[np.generic] | None:
        if isinstance(value, FxLiteral):
            return value.constant
        assert isinstance(value, FxValue)
        tensor = self._evaluator.evaluate(value.native)
        return None if tensor is None else as_array(tensor)

    def transcendental(self) -> dict[str, int]:
        kinds = collections.Counter(
            node.native_type for node in self.nodes() if is_transcendental(node.native)
        )
        return dict(sorted(kinds.items()))

    def operations(self) -> dict[str, int]:
        """Native operation type to count, bodies included."""
        kinds = collections.Counter(node.native_type for node in self.nodes())
        return dict(sorted(kinds.items()))

    def recompile(self) -> None:
        """Turn the changed graphs back into code."""
        for graph, module in self._owners.items():
            graph.lint()
            module.recompile()


def _copied(module: fx.GraphModule) -> fx.GraphModule:
    """A graph module with a graph of its own that shares parameters, buffers and constants."""
    result = fx.GraphModule(module, copy.deepcopy(module.graph), type(module).__name__)
    for native in result.graph.nodes:
        if native.op == "get_attr":
            body = attribute_of(native)
            if isinstance(body, fx.GraphModule):
                parent, _, name = str(native.target).rpartition(".")
                setattr(result.get_submodule(parent), name, _copied(body))
    return result
