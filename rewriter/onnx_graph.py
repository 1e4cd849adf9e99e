"""The ONNX adapter of the neutral graph view, over onnx_ir."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from odp.rewriter.graph import Graph, Node, Value
from odp.rewriter.module_paths import module_path_of
from odp.rewriter.onnx_builder import OnnxBuilder
from odp.rewriter.onnx_evaluation import ConstantEvaluator
from odp.rewriter.onnx_vocabulary import (
    is_transcendental,
    neutral_attributes,
    neutral_op,
    qualified_type,
)

__all__ = ["OnnxGraph", "OnnxNode", "OnnxValue"]


class OnnxValue(Value):
    """An `onnx_ir.Value` seen through the neutral view."""

    __slots__ = ("graph", "native")

    def __init__(self, graph: OnnxGraph, native: ir.Value) -> None:
        self.graph = graph
        self.native = native

    def __repr__(self) -> str:
        return f"OnnxValue({self.name!r})"

    @property
    def name(self) -> str:
        return self.native.name or ""

    @property
    def producer(self) -> OnnxNode | None:
        node = self.native.producer()
        return None if node is None else self.graph.node(node)

    @property
    def consumers(self) -> Sequence[OnnxNode]:
        return [self.graph.node(node) for node in self.native.consumers()]

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        shape: Iterable[object] | None = self.native.shape
        if shape is None and self.native.const_value is not None:
            shape = self.native.const_value.shape
        if shape is None:
            return None
        return tuple(extent if isinstance(extent, int) else None for extent in shape)

    @property
    def dtype(self) -> str | None:
        dtype = self.native.dtype
        if dtype is None and self.native.const_value is not None:
            dtype = self.native.const_value.dtype
        return None if dtype in (None, ir.DataType.UNDEFINED) else numpy_name(dtype)

    @property
    def constant(self) -> NDArray[Any] | None:
        tensor = self.native.const_value
        return None if tensor is None else tensor.numpy()

    @property
    def is_output(self) -> bool:
        return self.native.is_graph_output()


class OnnxNode(Node):
    """An `onnx_ir.Node` seen through the neutral view."""

    __slots__ = ("_attributes", "_op", "emitted", "graph", "native")

    def __init__(self, graph: OnnxGraph, native: ir.Node) -> None:
        self.graph = graph
        self.native = native
        self._op = neutral_op(native)
        self.emitted = False
        self._attributes: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"OnnxNode({self.name!r}, {self.op})"

    @property
    def op(self) -> str:
        return self._op

    @property
    def name(self) -> str:
        return self.native.name or (self.native.outputs[0].name or "")

    @property
    def inputs(self) -> tuple[OnnxValue | None, ...]:
        wrap = self.graph.value
        return tuple(None if value is None else wrap(value) for value in self.native.inputs)

    @property
    def outputs(self) -> tuple[OnnxValue, ...]:
        return tuple(self.graph.value(value) for value in self.native.outputs)

    @property
    def attributes(self) -> Mapping[str, Any]:
        if self._attributes is None:
            first = self.inputs[0] if self.native.inputs else None
            rank = None if first is None else first.rank
            self._attributes = neutral_attributes(self.native, self.graph.opset, rank)
        return self._attributes

    @property
    def native_type(self) -> str:
        return qualified_type(self.native)

    @property
    def is_alive(self) -> bool:
        return self.native.graph is not None

    @property
    def module_path(self) -> str:
        return module_path(self.native)

    @property
    def graph_path(self) -> str:
        return self.graph.path_of(self.native)


class OnnxGraph(Graph):
    """A neutral view of an `onnx_ir.Model`, which it changes in place.

    Model-local functions must have been inlined (`odp.backends.onnx.load`).
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.opset = model.graph.opset_imports.get("", 1)
        self._nodes: dict[ir.Node, OnnxNode] = {}
        self._values: dict[ir.Value, OnnxValue] = {}
        self._paths: dict[ir.Graph, str] = {model.graph: ""}
        self._evaluator = ConstantEvaluator(model)
        self._names: set[str] | None = None
        self._counter = 0
        self._suspects: list[ir.Node] = []

    def node(self, native: ir.Node) -> OnnxNode:
        """The view of one node; the same object every time."""
        view = self._nodes.get(native)
        if view is None:
            view = self._nodes[native] = OnnxNode(self, native)
        return view

    def value(self, native: ir.Value) -> OnnxValue:
        """The view of one value; the same object every time."""
        view = self._values.get(native)
        if view is None:
            view = self._values[native] = OnnxValue(self, native)
        return view

    def nodes(self) -> Iterator[OnnxNode]:
        for native in self._walk(self.model.graph, ""):
            yield self.node(native)

    def _walk(self, graph: ir.Graph, path: str) -> Iterator[ir.Node]:
        self._paths[graph] = path
        for native in graph:
            yield native
            for attribute in native.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    inner = f"{path}{native.name}/{attribute.name}"
                    yield from self._walk(attribute.as_graph(), f"{inner}/")

    def path_of(self, native: ir.Node) -> str:
        """Path of the body that holds `native`, such as `If_3/then_branch`."""
        graph = native.graph
        return self._paths.get(graph, "").rstrip("/") if isinstance(graph, ir.Graph) else ""

    def clone(self) -> OnnxGraph:
        return OnnxGraph(self.model.clone())

    def builder(self, before: Node, tags: Mapping[str, str]) -> OnnxBuilder:
        assert isinstance(before, OnnxNode)
        return OnnxBuilder(self, before.native, tags)

    def replace(self, old: Value, new: Value) -> None:
        assert isinstance(old, OnnxValue) and isinstance(new, OnnxValue)
        self.suspect(old.native.producer())
        owner = old.native.graph
        if old.is_output and isinstance(owner, ir.Graph):
            replacement = self._own_output(old.native, new.native)
            for index, output in enumerate(owner.outputs):
                if output is old.native:
                    owner.outputs[index] = replacement
            name, old.native.name = old.native.name, self.fresh_name(f"{old.native.name}_replaced")
            replacement.name = name
            replacement.type = old.native.type
            replacement.shape = old.native.shape
            new = self.value(replacement)
        ir.convenience.replace_all_uses_with(old.native, new.native)

    def _own_output(self, old: ir.Value, new: ir.Value) -> ir.Value:
        """A value that may take the name of a graph output: computed in that graph, not one yet."""
        producer = new.producer()
        here = old.producer()
        assert here is not None and here.graph is not None
        if producer is not None and producer.graph is here.graph and not new.is_graph_output():
            return new
        copy = ir.Node("", "Identity", [new], name=self.fresh_name(f"{old.name}/copy"))
        here.graph.insert_after(here, copy)
        return copy.outputs[0]

    def replace_input(self, node: Node, index: int, new: Value) -> None:
        assert isinstance(node, OnnxNode) and isinstance(new, OnnxValue)
        operand = node.native.inputs[index]
        self.suspect(None if operand is None else operand.producer())
        node.native.replace_input_with(index, new.native)

    def suspect(self, native: ir.Node | None) -> None:
        """Let `remove_dead_nodes` look at a node that is new or has lost a reader."""
        if native is not None:
            self._suspects.append(native)

    def remove_dead_nodes(self) -> None:
        # Only what has lost its readers, and what that read: RemoveUnusedNodesPass walks through
        # the whole model, which after every pass was a third of the time of a rewrite.
        pending, self._suspects = self._suspects, []
        while pending:
            native = pending.pop()
            owner = native.graph
            if owner is None or any(v.uses() or v.is_graph_output() for v in native.outputs):
                continue
            operands = [value for value in native.inputs if value is not None]
            owner.remove(native, safe=True)
            for value in operands:
                producer = value.producer()
                if producer is not None:
                    pending.append(producer)
                elif not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                    _forget_initializer(value)

    def evaluate(self, value: Value) -> NDArray[np.generic] | None:
        assert isinstance(value, OnnxValue)
        return self._evaluator.evaluate(value.native)

    def transcendental(self) -> dict[str, int]:
        natives = (node.native for node in self.nodes())
        kinds = collections.Counter(qualified_type(n) for n in natives if is_transcendental(n))
        return dict(sorted(kinds.items()))

    def operations(self) -> dict[str, int]:
        """Native operation type to count, bodies included."""
        kinds = collections.Counter(node.native_type for node in self.nodes())
        return dict(sorted(kinds.items()))

    def fresh_name(self, wanted: str) -> str:
        """A value or node name that the model does not use yet."""
        if self._names is None:
            # Names of an outer graph and of its bodies share one scope.
            self._names = set()
            for graph in self.model.graphs():
                self._names.update(graph.initializers, (value.name or "" for value in graph.inputs))
                for native in graph:
                    self._names.update(value.name or "" for value in native.outputs)
                    self._names.add(native.name or "")
        name = wanted
        while name in self._names:
            self._counter += 1
            name = f"{wanted}_{self._counter}"
        self._names.add(name)
        return name


def _forget_initializer(value: ir.Value) -> None:
    if value.is_initializer() and value.graph is not None and value.name is not None:
        del value.graph.initializers[value.name]


def numpy_name(dtype: ir.DataType) -> str:
    """`float32`, `bfloat16`, `int64`, ...; what numpy calls an ONNX element type."""
    return np.dtype(dtype.numpy()).name


def data_type(name: str) -> ir.DataType:
    """The ONNX element type of a numpy name, `bfloat16` included."""
    return ir.DataType.from_numpy(np.dtype(getattr(ml_dtypes, name, name)))


def module_path(native: ir.Node) -> str:
    """Where in the torch module a node came from, as far as the exporter wrote it down."""
    return module_path_of(native.name or "", native.metadata_props)
