"""The neutral view of torch.fx graphs: literals, replacement, dead nodes, clones, provenance."""

from __future__ import annotations

import math

import pytest
import torch

from odp.rewriter.fx_evaluation import Binding
from odp.rewriter.fx_graph import FxGraph
from odp.rewriter.fx_node import FxLiteral, FxNode, FxValue
from odp.rewriter.graph import Node

from .small_graphs import aten, call_of, run, traced

Tensor = torch.Tensor
X = torch.linspace(-2.0, 2.0, 12).reshape(3, 4)


class Norm(torch.nn.Module):
    """A linear layer, a norm whose three results torch computes, and a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.register_buffer("shift", torch.tensor([0.5]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.linear(x) + self.get_buffer("shift")
        normed, mean, _ = torch.native_layer_norm(y, (4,), None, None, 1e-5)
        return normed + mean, y.max(dim=-1)[0]


class Branches(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((4,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        def positive(v: Tensor) -> Tensor:
            return torch.sigmoid(v) * self.weight

        return torch.cond(x.sum() > 0, positive, torch.tanh, (x,))


def node(graph: FxGraph, op: str) -> FxNode:
    """The only node of an operation."""
    (found,) = [one for one in graph.nodes() if one.op == op]
    return found


def arguments(module: torch.nn.Module, x: Tensor = X) -> list[Tensor]:
    return [*module.parameters(), *module.buffers(), x]


# Values


def test_numbers_among_arguments_are_literals() -> None:
    add = call_of(aten.add.Tensor, X, 0.75)
    x, literal = add.inputs
    assert isinstance(literal, FxLiteral)
    assert isinstance(x, FxValue)
    assert (literal.scalar, literal.shape, literal.dtype) == (0.75, (), None)
    assert literal.constant.tolist() == 0.75
    assert literal.producer is None
    assert list(literal.consumers) == []
    assert not literal.is_output
    assert literal.is_floating
    assert x.constant is None and x.scalar is None


def test_equal_numbers_are_the_same_value() -> None:
    graph = call_of(aten.add.Tensor, X, 0.75).graph
    assert graph.literal(0.75) is graph.literal(0.75)
    assert graph.literal(0.75) is not graph.literal(0.5)
    assert math.copysign(1.0, graph.literal(0.0).number) == 1.0
    assert math.copysign(1.0, graph.literal(-0.0).number) == -1.0
    assert math.isnan(graph.literal(float("nan")).number)


@pytest.mark.parametrize("number", [0.0, -0.0, 3, True, float("inf"), float("-inf"), 1e308])
def test_any_number_can_be_a_literal(number: float) -> None:
    add = call_of(aten.mul.Tensor, X, number)
    literal = add.inputs[1]
    assert literal is not None
    assert literal.scalar == number


def test_a_number_that_an_operator_implies_is_an_operand() -> None:
    square = call_of(aten.square.default, X)
    assert square.op == "pow"
    exponent = square.inputs[1]
    assert exponent is not None and exponent.scalar == 2.0


def test_shapes_types_and_readers() -> None:
    graph = traced(Norm(), X)
    y = node(graph, "layer_norm").inputs[0]
    assert isinstance(y, FxValue)
    assert (y.shape, y.dtype, y.is_floating, y.rank) == ((3, 4), "float32", True, 2)
    assert {reader.op for reader in y.consumers} == {"layer_norm", "reduce_max"}
    assert y.producer is node_before(graph, "layer_norm")
    assert not y.is_output


def node_before(graph: FxGraph, op: str) -> Node:
    nodes = list(graph.nodes())
    return nodes[[one.op for one in nodes].index(op) - 1]


def test_a_dynamic_size_has_no_number() -> None:
    class Doubled(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2.0

    program = torch.export.export(
        Doubled(), (X,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}
    )
    graph = FxGraph(program.graph_module)
    value = node(graph, "mul").output
    assert value.shape == (None, 4)
    assert value.rank == 2


def test_views_are_the_same_objects_every_time() -> None:
    graph = traced(Norm(), X)
    assert list(graph.nodes()) == list(graph.nodes())
    first = next(graph.nodes())
    assert first.output is first.output
    assert first.output.producer is first


# Nodes with several results


def test_results_of_a_norm_and_of_a_maximum() -> None:
    graph = traced(Norm(), X)
    norm = node(graph, "layer_norm")
    assert [value.shape for value in norm.outputs[:2]] == [(3, 4), (3, 1)]
    assert len(norm.outputs) == 3
    maximum = node(graph, "reduce_max")
    assert maximum.attributes == {"axes": (1,), "keepdims": False, "identity_when_empty": False}
    assert maximum.output.is_output
    assert len(maximum.outputs) == 2
    # What takes one result of several is no node of its own.
    assert "_operator::getitem" not in graph.operations()


def test_one_result_of_several_is_replaced() -> None:
    module = Norm()
    graph = traced(module, X)
    norm = node(graph, "layer_norm")
    y = norm.inputs[0]
    assert y is not None
    graph.replace(norm.outputs[1], graph.builder(norm, {}).mul(y, 0.0))
    # The third one has no reader, and nothing to replace.
    graph.replace(norm.outputs[2], y)
    graph.recompile()
    with torch.no_grad():
        value = module.linear(X) + 0.5
        expected = torch.layer_norm(value, (4,)) + value * 0.0
        assert torch.equal(graph.module(*arguments(module))[0], expected)


# Replacement


def test_every_reader_reads_the_new_value() -> None:
    add = call_of(aten.add.Tensor, X, 0.75)
    graph, operand = add.graph, add.inputs[0]
    assert operand is not None
    new = graph.builder(add, {}).mul(operand, 3.0)
    graph.replace(add.output, new)
    graph.remove_dead_nodes()
    graph.recompile()
    assert not add.is_alive
    assert new.is_output
    assert torch.equal(run(graph, X), X * 3.0)


@pytest.mark.parametrize(("index", "number"), [(0, False), (1, False), (1, True)])
def test_one_operand_is_replaced(index: int, number: bool) -> None:
    add = call_of(aten.sub.Tensor, X, X * 2.0)
    graph = add.graph
    operands = [X, X * 2.0]
    new = graph.literal(4.0) if number else graph.builder(add, {}).op("neg", add.inputs[0])
    graph.replace_input(add, index, new)
    graph.remove_dead_nodes()
    graph.recompile()
    operands[index] = torch.full_like(X, 4.0) if number else -X
    assert torch.equal(run(graph, X, X * 2.0), operands[0] - operands[1])
    read = add.inputs[index]
    assert read is not None and read.name == new.name


def test_an_item_of_a_list_is_replaced() -> None:
    cat = call_of(aten.cat.default, [X, X + 1.0, X + 2.0], 0)
    graph = cat.graph
    first = cat.inputs[0]
    assert first is not None
    graph.replace_input(cat, 1, graph.builder(cat, {}).mul(first, -1.0))
    graph.recompile()
    assert torch.equal(run(graph, X, X + 1.0, X + 2.0), torch.cat([X, -X, X + 2.0]))


def test_a_keyword_argument_is_replaced() -> None:
    gather = call_of(aten.embedding.default, weight=X, indices=torch.tensor([0, 2]))
    graph = gather.graph
    graph.replace_input(gather, 0, graph.builder(gather, {}).mul(gather.inputs[0], 2.0))
    graph.recompile()
    assert torch.equal(run(graph, X, torch.tensor([0, 2])), 2.0 * X[[0, 2]])


# Dead nodes


def test_what_nobody_reads_is_removed_and_the_rest_stays() -> None:
    add = call_of(aten.add.Tensor, X, 0.75)
    graph, operand = add.graph, add.inputs[0]
    build = graph.builder(add, {})
    # A pass may emit and then refuse.
    build.op("exp", build.mul(operand, 2.0))
    assert graph.operations() == {"aten::add": 1, "aten::exp": 1, "aten::mul": 1}
    graph.remove_dead_nodes()
    assert graph.operations() == {"aten::add": 1}
    assert len(graph.module.graph.find_nodes(op="placeholder")) == 1


def test_a_dead_body_of_a_condition_stays_where_the_condition_is() -> None:
    graph = traced(Branches(), X)
    graph.remove_dead_nodes()
    assert graph.transcendental() == {"aten::sigmoid": 1, "aten::tanh": 1}


# Clones


def test_a_clone_has_a_graph_of_its_own_and_the_same_parameters() -> None:
    module = Norm()
    graph = traced(module, X)
    before = graph.operations()
    clone = graph.clone()
    norm = node(clone, "layer_norm")
    assert norm is not node(graph, "layer_norm")
    clone.replace(norm.output, clone.builder(norm, {}).op("exp", norm.inputs[0]))
    clone.remove_dead_nodes()
    clone.recompile()
    assert graph.operations() == before
    assert clone.operations() != before
    assert clone.bindings == graph.bindings
    with torch.no_grad():
        y = module.linear(X) + 0.5
        # The mean of the norm is still read; its first result is another.
        expected = torch.exp(y) + y.mean(-1, keepdim=True)
        assert torch.allclose(clone.module(*arguments(module))[0], expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(graph.module(*arguments(module))[0], module(X)[0])


def test_a_clone_has_bodies_of_its_own() -> None:
    module = Branches()
    graph = traced(module, X)
    clone = graph.clone()
    inside = node(clone, "sigmoid")
    assert inside.graph_path == "true_graph_0"
    operand = inside.inputs[0]
    clone.replace(inside.output, clone.builder(inside, {"odp.pass": "p"}).op("relu", operand))
    clone.remove_dead_nodes()
    clone.recompile()
    assert clone.transcendental() == {"aten::tanh": 1}
    assert graph.transcendental() == {"aten::sigmoid": 1, "aten::tanh": 1}
    for x in (X + 1.0, X - 1.0):
        with torch.no_grad():
            expected = torch.relu(x) * module.weight if x.sum() > 0 else torch.tanh(x)
            assert torch.equal(clone.module(*arguments(module, x))[0], expected)
            assert torch.equal(graph.module(*arguments(module, x))[0], module(x))


def test_constants_of_a_clone_do_not_reach_the_original() -> None:
    graph = traced(Norm(), X)
    clone = graph.clone()
    norm = node(clone, "layer_norm")
    clone.builder(norm, {}).constant([[1.0], [2.0]], "float32")
    assert [name for name, _ in clone.module.named_buffers()] == ["odp_constant_0"]
    assert list(graph.module.named_buffers()) == []


# Provenance


def test_nodes_know_their_modules() -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.LayerNorm(4), torch.nn.GELU()])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return torch.sigmoid(x)

    graph = traced(Block(), X)
    assert {one.op: (one.module_path, one.module_type) for one in graph.nodes()} == {
        "layer_norm": ("layers.0", "LayerNorm"),
        "gelu": ("layers.1", "GELU"),
        "sigmoid": ("", "Block"),
    }


def test_nodes_know_their_bodies_and_native_types() -> None:
    graph = traced(Branches(), X)
    assert node(graph, "sigmoid").graph_path == "true_graph_0"
    assert node(graph, "tanh").graph_path == "false_graph_0"
    assert node(graph, "greater").graph_path == ""
    assert graph.operations()["higher_order::cond"] == 1
    assert node(graph, "tanh").native_type == "aten::tanh"


def test_a_python_function_is_an_operation_of_its_own() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    graph.output((graph.call_function(torch.nn.functional.silu, (x,)),))
    view = FxGraph(torch.fx.GraphModule(torch.nn.Module(), graph))
    (call,) = view.nodes()
    assert call.op == "torch.nn.functional::silu"
    assert [value.name for value in call.inputs if value is not None] == ["x"]
    assert call.output.shape is None and call.output.dtype is None


# Constants


def test_buffers_are_constants_and_parameters_are_not() -> None:
    module = Norm()
    graph = traced(module, X)
    values = [graph.value(n) for n in graph.module.graph.find_nodes(op="placeholder")]
    constants = {value.name: value.constant for value in values}
    assert [name for name, array in constants.items() if array is not None] == ["b_shift"]
    assert constants["b_shift"].tolist() == [0.5]  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_constants_keep_their_types(dtype: torch.dtype) -> None:
    stored = torch.tensor([1.5, -2.0]).to(dtype)
    add = call_of(aten.add.Tensor, X[0, :2], stored)
    native = add.native.all_input_nodes[1]
    graph = FxGraph(add.graph.module, {native.name: Binding(stored, fixed=True)})
    array = graph.value(native).constant
    assert array is not None
    assert array.dtype.name == str(dtype).removeprefix("torch.")
    assert array.astype("float64").tolist() == stored.tolist()
