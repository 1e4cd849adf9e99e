"""What of a graph is constant: nothing that a state_dict, training, inputs or chance can change."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from odp.rewriter.fx_graph import FxGraph

from .small_graphs import aten, traced

Tensor = torch.Tensor
X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)


class Stored(torch.nn.Module):
    """Every kind of thing that a module can hold."""

    def __init__(self, function: Callable[[Stored, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((4,), 0.5))
        self.register_buffer("saved", torch.full((4,), 2.0))
        self.register_buffer("derived", torch.arange(4.0), persistent=False)
        self.plain = torch.full((4,), 3.0)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return x + self.function(self, x)


def evaluated(function: Callable[[Stored, Tensor], Tensor]) -> Tensor | None:
    """What the graph knows of the value that is added to the input."""
    graph = traced(Stored(function), X)
    (add,) = [node for node in graph.nodes() if node.op == "add"]
    value = add.inputs[1]
    assert value is not None
    array = graph.evaluate(value)
    return None if array is None else torch.from_numpy(array)


CONSTANT: dict[str, Callable[[Stored, Tensor], Tensor]] = {
    "buffer_of_no_state_dict": lambda m, x: torch.cos(m.derived * 0.5),
    "tensor_that_is_no_buffer": lambda m, x: torch.sqrt(m.plain),
    "positions": lambda m, x: torch.arange(4).float() * 0.25,
    "number_in_the_code": lambda m, x: torch.tensor([1.0, 2.0, 3.0, 4.0]).exp(),
    "mask": lambda m, x: torch.full((2, 4), -torch.inf).triu(1).exp(),
    "size_of_the_input": lambda m, x: torch.ones(x.shape[-1]) * x.shape[0],
    "one_of_several_results": lambda m, x: m.derived.max(dim=0)[0],
    "half_precision": lambda m, x: (m.derived.bfloat16() * 0.1).float(),
}
CHANGING: dict[str, Callable[[Stored, Tensor], Tensor]] = {
    "parameter": lambda m, x: torch.exp(m.weight),
    "buffer_of_a_state_dict": lambda m, x: torch.exp(m.saved),
    "input": lambda m, x: torch.exp(x),
    "input_times_constant": lambda m, x: x * m.derived,
    "constant_times_parameter": lambda m, x: m.derived * m.weight,
    "random": lambda m, x: torch.rand(4),
    "random_of_a_constant": lambda m, x: torch.bernoulli(m.derived / 4.0),
    "zeros_like_of_the_input": lambda m, x: torch.zeros_like(x),
    "condition_on_the_input": lambda m, x: torch.cond(x.sum() > 0, torch.exp, torch.sin, (x,)),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_what_nothing_changes_is_a_constant(name: str) -> None:
    found = evaluated(CONSTANT[name])
    assert found is not None
    assert torch.equal(found, CONSTANT[name](Stored(CONSTANT[name]), X))


@pytest.mark.parametrize("name", CHANGING)
def test_what_may_change_is_not(name: str) -> None:
    assert evaluated(CHANGING[name]) is None


def test_a_literal_is_constant() -> None:
    graph = traced(Stored(lambda m, x: torch.exp(m.derived)), X)
    array = graph.evaluate(graph.literal(0.25))
    assert array is not None and array.tolist() == 0.25


def test_a_value_that_could_not_be_evaluated_stays_so() -> None:
    graph = traced(Stored(lambda m, x: torch.exp(m.derived * m.weight)), X)
    for _ in range(2):
        assert [graph.evaluate(node.output) for node in graph.nodes()] == [None, None, None]


def test_evaluation_of_a_long_chain_needs_no_recursion() -> None:
    graph = torch.fx.Graph()
    value = graph.get_attr("start")
    for _ in range(2 * sys.getrecursionlimit()):
        value = graph.call_function(aten.add.Tensor, (value, 1.0))
    graph.output((value,))
    root = torch.nn.Module()
    root.register_buffer("start", torch.arange(4.0))
    view = FxGraph(torch.fx.GraphModule(root, graph))
    array = view.evaluate(view.value(value))
    assert array is not None
    assert array.tolist() == [n + 2.0 * sys.getrecursionlimit() for n in range(4)]


def test_folded_constants_are_in_the_rewritten_module_and_in_no_state_dict() -> None:
    import odp

    module = Stored(lambda m, x: torch.cos(m.derived * 0.5) + torch.exp(m.weight))
    result = odp.rewrite(module, "rope,exp", example_inputs=X, measure=False, error=1e-3)
    (rope,) = [record for record in result.report.passes if record.name == "rope"]
    assert (rope.folded, rope.sites) == (1, 0)
    assert result.report.model.transcendental_after == {}
    assert set(result.model.state_dict()) == {"weight", "saved"}
    # The weights of another checkpoint must reach the exponential, which is no constant.
    with torch.no_grad():
        before = result.model(X)
        result.model.load_state_dict({"weight": torch.full((4,), 0.4), "saved": torch.ones(4)})
        after = result.model(X)
        change = torch.exp(torch.tensor(0.4)) - torch.exp(torch.tensor(0.5))
        (exp,) = result.report.approximants
        # Both are off by at most the declared error, and by the roundings of numbers below 8.
        bound = 2.0 * exp.absolute_error + 8.0 * 8.0 * torch.finfo(torch.float32).eps
        assert (after - before - change).abs().max() <= bound


def test_placeholders_without_a_binding_are_inputs() -> None:
    graph = traced(Stored(lambda m, x: torch.exp(m.derived)), X)
    alone = FxGraph(graph.module)
    for node in alone.nodes():
        assert alone.evaluate(node.output) is None
