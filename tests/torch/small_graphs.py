"""Graphs of a few nodes, made without tracing anything."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from odp.rewriter.fx_graph import FxGraph
from odp.rewriter.fx_node import FxNode, FxValue
from odp.rewriter.graph import Builder, Value

__all__ = ["aten", "call_of", "emitted", "run", "traced"]

aten = torch.ops.aten
TAGS = {"odp.pass": "test", "odp.site": "test/1"}


def call_of(target: Any, *args: Any, **kwargs: Any) -> FxNode:
    """The view of one call; tensors among its arguments become inputs of the graph."""
    graph = fx.Graph()
    mode = FakeTensorMode()

    def placeholder(tensor: torch.Tensor) -> fx.Node:
        node = graph.placeholder(f"x{len(graph.nodes)}")
        node.meta["val"] = mode.from_tensor(tensor)
        return node

    nodes = pytree.tree_map_only(torch.Tensor, placeholder, (args, kwargs))
    native = graph.call_function(target, *nodes)
    values = pytree.tree_map_only(fx.Node, lambda node: node.meta["val"], nodes)
    with mode:
        native.meta["val"] = target(*values[0], **values[1])
    result = native
    if isinstance(native.meta["val"], tuple):
        # Whoever has several results is read through getitem.
        result = graph.call_function(operator.getitem, (native, 0))
        result.meta["val"] = native.meta["val"][0]
    graph.output((result,))
    return FxGraph(fx.GraphModule(torch.nn.Module(), graph)).node(native)


def emitted(
    emit: Callable[..., Value], *tensors: torch.Tensor, dtype: torch.dtype | None = None
) -> tuple[FxGraph, FxValue]:
    """A graph whose only output is what `emit` makes with a builder and the inputs."""
    given = [x.to(dtype) if dtype is not None and x.is_floating_point() else x for x in tensors]
    anchor = call_of(aten.stack.default, [*given]) if len(given) > 1 else None
    anchor = anchor or call_of(aten.neg.default, *given)
    graph = anchor.graph
    native = anchor.native
    build: Builder = graph.builder(anchor, TAGS)
    result = emit(build, *(graph.value(operand) for operand in native.all_input_nodes))
    (output,) = native.graph.find_nodes(op="output")
    assert isinstance(result, FxValue)
    output.args = ((result.native,),)
    graph.suspect(native)
    graph.remove_dead_nodes()
    graph.recompile()
    return graph, result


def run(graph: FxGraph, *tensors: torch.Tensor) -> torch.Tensor:
    """The first result of a graph."""
    result: torch.Tensor = graph.module(*tensors)[0]
    return result


def traced(module: torch.nn.Module, *inputs: torch.Tensor) -> FxGraph:
    """The graph that torch.export makes of a module."""
    from odp.backends.torch.inputs import Inputs
    from odp.backends.torch.recipe import trace

    return trace(module, Inputs(inputs), None).graph
