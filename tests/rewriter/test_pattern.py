"""The matcher: what fits, what does not, and what it says about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from odp.rewriter.graph import Node
from odp.rewriter.onnx_graph import OnnxGraph
from odp.rewriter.pattern import Attempt, Match, Pattern, constant, match, number, op, variable

Graphs = Callable[..., OnnxGraph]
X = variable("x")


def node_named(graph: OnnxGraph, name: str) -> Node:
    return next(node for node in graph.nodes() if node.name == name)


@pytest.fixture
def matched(graph_of: Graphs) -> Callable[..., tuple[Match | None, Attempt]]:
    """Match a pattern at the producer of `y` of a model given by its body."""

    def run(pattern: Pattern, body: str, **options: Any) -> tuple[Match | None, Attempt]:
        inputs = options.pop("inputs", "float[2,3] x, float[2,3] z")
        graph = graph_of(f"({inputs}) => (float[2,3] y) {{ {body} }}", **options)
        attempt = Attempt()
        root = next(node for node in graph.nodes() if node.output.name == "y")
        return match(pattern, root, attempt), attempt

    return run


@pytest.mark.parametrize("kind", ["Add", "Mul", "Max", "Min"])
@pytest.mark.parametrize("operands", ["e, z", "z, e"])
def test_commutative_operations_match_in_both_orders(
    kind: str, operands: str, matched: Any
) -> None:
    found, _ = matched(
        op(kind.lower(), op("exp", X), variable("z")), f"e = Exp(x) y = {kind}({operands})"
    )
    assert found is not None
    assert (found["x"].name, found["z"].name) == ("x", "z")


@pytest.mark.parametrize("kind", ["Sub", "Div"])
def test_other_operations_match_in_one_order(kind: str, matched: Any) -> None:
    pattern = op(kind.lower(), op("exp", X), variable("z"))
    assert matched(pattern, f"e = Exp(x) y = {kind}(e, z)")[0] is not None
    assert matched(pattern, f"e = Exp(x) y = {kind}(z, e)")[0] is None


def test_commutativity_is_tried_at_every_depth(matched: Any) -> None:
    pattern = op("mul", op("add", op("exp", X), op("sigmoid", X)), op("tanh", X))
    body = "e = Exp(x) s = Sigmoid(x) t = Tanh(x)"
    for inner in ("e, s", "s, e"):
        for outer in ("a, t", "t, a"):
            assert matched(pattern, f"{body} a = Add({inner}) y = Mul({outer})")[0] is not None


def test_alternatives_are_tried_in_turn(matched: Any) -> None:
    pattern = op("exp", X) | op("tanh", X) | op("sigmoid", X)
    assert pattern.roots() == {"exp", "tanh", "sigmoid"}
    for kind in ("Exp", "Tanh", "Sigmoid"):
        assert matched(pattern, f"y = {kind}(x)")[0] is not None
    assert matched(pattern, "y = Erf(x)")[0] is None


def test_a_later_alternative_is_reached_when_an_earlier_one_fails_deep_inside(matched: Any) -> None:
    square = op("mul", X, X) | op("pow", X, number(2.0))
    pattern = op("add", square, op("exp", X))
    body = "q = Pow(x, two) e = Exp(x) y = Add(e, q)"
    found, _ = matched(pattern, body, initializers={"two": np.float32(2.0)})
    assert found is not None and found["x"].name == "x"


def test_a_variable_that_occurs_twice_is_one_value(matched: Any) -> None:
    pattern = op("mul", X, op("sigmoid", X))
    assert matched(pattern, "s = Sigmoid(x) y = Mul(x, s)")[0] is not None
    found, attempt = matched(pattern, "s = Sigmoid(z) y = Mul(x, s)")
    assert found is None
    assert "is not the same value as" in attempt.reason


def test_equal_stored_numbers_are_the_same_value(matched: Any) -> None:
    pattern = op("add", op("mul", X, variable("c")), variable("c"))
    body = "m = Mul(x, one) y = Add(m, two)"
    numbers = {"one": np.float32(3.0), "two": np.array([3.0], np.float32)}
    assert matched(pattern, body, initializers=numbers)[0] is not None
    numbers["two"] = np.array([4.0], np.float32)
    assert matched(pattern, body, initializers=numbers)[0] is None


@pytest.mark.parametrize(
    ("wanted", "stored", "fits"),
    [
        (0.5, np.float32(0.5), True),
        (0.5, np.float32(0.5001), False),  # half precision holds 0.5: no exporter rounds it
        (2**0.5, np.float32(2**0.5), True),
        (2**0.5, np.float32(np.float16(2**0.5)), True),
        (2**0.5, np.float32(1.42), False),
        (-0.5, np.float32(0.5), False),
        (1.0, np.ones((1, 1), np.float32), True),
        (1.0, np.ones(3, np.float32), False),
        (1.0, np.int64(1), True),
    ],
)
def test_numbers_match_up_to_the_rounding_of_exporters(
    wanted: float, stored: Any, fits: bool, graph_of: Graphs
) -> None:
    graph = graph_of(
        "(float[2,3] x) => (float[2,3] y) { y = Pow(x, c) }", initializers={"c": stored}
    )
    found = match(op("pow", X, number(wanted)), next(graph.nodes()))
    assert (found is not None) == fits


def test_a_number_may_be_anything_or_fulfil_a_predicate(matched: Any) -> None:
    numbers = {"initializers": {"c": np.float32(3.0)}}
    found, _ = matched(op("mul", X, number(name="factor")), "y = Mul(x, c)", **numbers)
    assert found is not None and found.number("factor") == 3.0
    positive, negative = number(lambda c: c > 0), number(lambda c: c < 0)
    assert matched(op("mul", X, positive), "y = Mul(x, c)", **numbers)[0] is not None
    found, attempt = matched(op("mul", X, negative), "y = Mul(x, c)", **numbers)
    assert found is None and "'c' is not a constant of the required value" in attempt.reason
    assert matched(op("sub", X, number()), "y = Sub(x, z)")[0] is None


def test_a_name_that_is_no_number_is_a_key_error(matched: Any) -> None:
    found, _ = matched(op("exp", X), "y = Exp(x)")
    with pytest.raises(KeyError):
        found.number("x")


def test_constants_of_any_shape(matched: Any) -> None:
    pattern = op("mul", X, constant("scale"))
    scale = {"initializers": {"c": np.arange(3, dtype=np.float32)}}
    found, _ = matched(pattern, "y = Mul(x, c)", **scale)
    assert found is not None and found["scale"].constant.tolist() == [0.0, 1.0, 2.0]
    assert "scale" in found and "shift" not in found
    assert matched(pattern, "y = Mul(x, z)")[0] is None


def test_identities_and_floating_casts_are_looked_through(matched: Any) -> None:
    pattern = op("mul", X, op("sigmoid", X))
    body = "i = Identity(x) s = Sigmoid(i) h = Cast<to=10>(s) f = Cast<to=1>(h) y = Mul(x, f)"
    found, _ = matched(pattern, body)
    assert found is not None
    assert [node.op for node in found.covered] == ["mul", "sigmoid"]


def test_casts_to_integers_are_not_looked_through(matched: Any) -> None:
    body = "e = Exp(x) i = Cast<to=7>(e) y = Cast<to=1>(i)"
    assert matched(op("exp", X), body)[0] is None


def test_attributes_by_value_and_by_predicate(matched: Any) -> None:
    body = "y = Softmax<axis=-1>(x)"
    assert matched(op("softmax", X, axes=(1,)), body)[0] is not None
    found, attempt = matched(op("softmax", X, axes=(0,)), body)
    assert found is None and attempt.reason == "softmax has axes = (1,)"
    assert matched(op("softmax", X, axes=lambda axes: len(axes) == 1), body)[0] is not None


def test_a_second_output_is_not_the_first(graph_of: Graphs) -> None:
    graph = graph_of(
        "(float[4] x) => (float[2] y) { a, b = Split<axis=0>(x) [root] y = Exp(b) }", opset=12
    )
    attempt = Attempt()
    assert match(op("exp", op("split", X)), node_named(graph, "root"), attempt) is None
    assert attempt.reason == "'b' is not the first result of split"


def test_an_operand_that_is_absent(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x, float m) => (float[2] y) { [root] y = Clip(x, , m) }")
    attempt = Attempt()
    pattern = op("clip", X, variable("low"), variable("high"))
    assert match(pattern, node_named(graph, "root"), attempt) is None
    assert attempt.reason == "input 1 is absent"
    graph = graph_of("(float[2] x) => (float[2] y) { [root] y = Clip(x) }")
    assert match(pattern, node_named(graph, "root"), attempt) is None


def test_captured_operations(matched: Any) -> None:
    pattern = op("div", op("exp", X, capture="numerator"), variable("total"))
    found, _ = matched(pattern, "[weights] e = Exp(x) y = Div(e, z)")
    assert found is not None and found.nodes["numerator"].name == "weights"


@pytest.mark.parametrize(
    ("body", "reason", "node"),
    [
        ("[a] e = Exp(x) y = Div(e, z)", "expected reduce_sum, 'z' is an input of the graph", None),
        ("e = Exp(x) [b] s = Tanh(e) y = Div(e, s)", "expected reduce_sum, found tanh", "b"),
        ("e = Exp(x) y = Div(e, c)", "expected reduce_sum, 'c' is a constant", None),
        (
            "e = Exp(x) [g] f = Exp(z) s = ReduceSum(f) y = Div(e, s)",
            "'z' is not the same value as 'x' (x)",
            None,
        ),
    ],
)
def test_the_reason_is_that_of_the_attempt_that_got_furthest(
    body: str, reason: str, node: str | None, matched: Any
) -> None:
    weights = op("exp", X)
    pattern = op("div", weights, op("reduce_sum", weights))
    stored = {"c": np.ones(3, np.float32)} if "c)" in body else {}
    found, attempt = matched(pattern, body, initializers=stored)
    assert found is None
    assert attempt.reason == reason
    assert (attempt.node.name if attempt.node else None) == node


def test_nodes_of_a_builder_are_not_matched(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { [root] y = Exp(x) }")
    root = node_named(graph, "root")
    emitted = graph.builder(root, {}).op("exp", root.inputs[0])
    assert emitted.producer is not None
    attempt = Attempt()
    assert match(op("exp", X), emitted.producer, attempt) is None
    assert "put there by a pass" in attempt.reason


def test_an_operation_outside_the_vocabulary_is_a_mistake_of_the_pass() -> None:
    with pytest.raises(ValueError, match="'expp' is not in the vocabulary"):
        op("expp", X)


def test_visited_nodes_are_those_that_were_looked_at(matched: Any) -> None:
    _, attempt = matched(
        op("div", op("exp", X), op("tanh", X)), "e = Exp(x) s = Sigmoid(x) y = Div(e, s)"
    )

    def kinds(nodes: Iterable[Node]) -> set[str]:
        return {node.op for node in nodes}

    assert kinds(attempt.visited) == {"div", "exp", "sigmoid"}
