"""The neutral view of ONNX: normal forms, replacement, clones, constants, provenance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from odp.rewriter.graph import VOCABULARY, Node
from odp.rewriter.onnx_graph import OnnxGraph, module_path

Graphs = Callable[..., OnnxGraph]


def first(graph: OnnxGraph) -> Node:
    return next(graph.nodes())


def run(graph: OnnxGraph, **feed: Any) -> list[Any]:
    import onnxruntime

    proto = ir.to_proto(graph.model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return list(session.run(None, feed))


IN = "(float[2,3,4] x) => (float[a,b,c] y)"


@pytest.mark.parametrize(
    ("body", "opset", "axes", "keepdims"),
    [
        ("y = ReduceMean<axes=[-1]>(x)", 11, (2,), True),
        ("y = ReduceMean<axes=[-1], keepdims=0>(x)", 17, (2,), False),
        ("y = ReduceMean<keepdims=1>(x, last)", 18, (2,), True),
        ("y = ReduceMean(x)", 18, (0, 1, 2), True),
        ("y = ReduceMean(x)", 11, (0, 1, 2), True),
        ("y = ReduceSum<axes=[2, 0]>(x)", 11, (0, 2), True),
        ("y = ReduceSum(x, last)", 13, (2,), True),
        ("y = ReduceMax<axes=[1]>(x)", 13, (1,), True),
        ("y = ReduceMax(x, last)", 18, (2,), True),
        ("y = ReduceL2<axes=[-2]>(x)", 13, (1,), True),
        ("y = ReduceL2(x, last)", 18, (2,), True),
        ("y = ReduceLogSumExp(x, last)", 18, (2,), True),
    ],
)
def test_axes_of_reductions(
    body: str, opset: int, axes: tuple[int, ...], keepdims: bool, graph_of: Graphs
) -> None:
    last = {"last": np.array([-1])} if "last" in body else {}
    attributes = first(graph_of(f"{IN} {{ {body} }}", opset=opset, initializers=last)).attributes
    assert attributes["axes"] == axes
    assert attributes["keepdims"] is keepdims


def test_axes_that_are_computed_are_unknown(graph_of: Graphs) -> None:
    text = "(float[2,3] x, int64[1] where) => (float[a,b] y) { y = ReduceSum(x, where) }"
    assert first(graph_of(text)).attributes["axes"] is None


def test_a_reduction_over_nothing_is_no_reduction(graph_of: Graphs) -> None:
    text = f"{IN} {{ y = ReduceSum<noop_with_empty_axes=1>(x) }}"
    attributes = first(graph_of(text)).attributes
    assert attributes["identity_when_empty"] is True
    assert attributes["axes"] is None


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(
    ("attribute", "opset", "axes"),
    [
        ("", 13, (2,)),
        ("", 12, (1, 2)),
        ("", 7, (1, 2)),
        ("<axis=-1>", 12, (2,)),
        ("<axis=0>", 12, (0, 1, 2)),
        ("<axis=1>", 13, (1,)),
        ("<axis=-2>", 17, (1,)),
    ],
)
def test_axes_of_softmax_before_and_after_opset_13(
    kind: str, attribute: str, opset: int, axes: tuple[int, ...], graph_of: Graphs
) -> None:
    graph = graph_of(f"{IN} {{ y = {kind}{attribute}(x) }}", opset=opset)
    assert first(graph).attributes["axes"] == axes


@pytest.mark.parametrize(
    ("body", "opset", "op", "attributes"),
    [
        ("y = LayerNormalization(x, s)", 17, "layer_norm", {"axes": (2,), "epsilon": 1e-5}),
        (
            "y = LayerNormalization<axis=1, epsilon=0.5>(x, s)",
            17,
            "layer_norm",
            {"axes": (1, 2), "epsilon": 0.5},
        ),
        ("y = Gelu(x)", 20, "gelu", {"approximate": "none"}),
        ('y = Gelu<approximate="tanh">(x)', 20, "gelu", {"approximate": "tanh"}),
        ("y = Elu(x)", 17, "elu", {"alpha": 1.0}),
        ("y = Elu<alpha=0.5>(x)", 17, "elu", {"alpha": 0.5}),
        ("y = com.microsoft.FastGelu(x)", 17, "gelu", {"approximate": "tanh"}),
        ("y = com.microsoft.Gelu(x)", 17, "gelu", {"approximate": "none"}),
        ("y = com.microsoft.QuickGelu<alpha=2.0>(x)", 17, "silu", {"alpha": 2.0}),
        ("y = LpNormalization(x)", 17, "lp_norm", {"axes": (2,), "p": 2}),
        ("y = Cast<to=10>(x)", 17, "cast", {"to": 10}),
    ],
)
def test_operators_in_normal_form(
    body: str, opset: int, op: str, attributes: dict[str, Any], graph_of: Graphs
) -> None:
    scale = {"s": np.ones(4, np.float32)} if ", s)" in body else {}
    graph = graph_of(
        f"{IN} {{ {body} }}", opset=opset, initializers=scale, domains={"com.microsoft": 1}
    )
    node = first(graph)
    assert node.op == op and op in VOCABULARY
    for key, value in attributes.items():
        expected = pytest.approx(value) if isinstance(value, float) else value
        assert node.attributes[key] == expected


def test_operators_outside_the_vocabulary_keep_their_name(graph_of: Graphs) -> None:
    graph = graph_of(f"{IN} {{ y = NonZero(x) }}")
    assert (first(graph).op, first(graph).native_type) == ("ai.onnx::NonZero", "NonZero")


def test_values(graph_of: Graphs) -> None:
    graph = graph_of(
        "(float[batch,3] x) => (float[batch,3] y) { [root] y = Mul(x, c) }",
        initializers={"c": np.array([[2.5]], np.float32)},
    )
    node = first(graph)
    x, c = node.inputs
    assert x is not None and c is not None
    assert (x.shape, x.rank, x.dtype, x.producer, x.constant) == (
        (None, 3),
        2,
        "float32",
        None,
        None,
    )
    assert (c.shape, c.scalar, x.scalar) == ((1, 1), 2.5, None)
    assert node.output.is_output and not x.is_output
    assert list(x.consumers) == [node] and node.output.producer is node
    assert graph.value(x.native) is x  # type: ignore[attr-defined]


def test_a_clone_is_independent_and_shares_its_tensors(graph_of: Graphs) -> None:
    weights = np.ones((64, 64), np.float32)
    graph = graph_of(
        "(float[2,64] x) => (float[2,64] y) { m = MatMul(x, w) y = Exp(m) }",
        initializers={"w": weights},
    )
    clone = graph.clone()
    original, copy = (g.model.graph.initializers["w"].const_value for g in (graph, clone))
    assert original is not None and original is copy
    before = graph.operations()
    exp = list(clone.nodes())[-1]
    clone.replace(exp.output, clone.builder(exp, {}).op("tanh", exp.inputs[0]))
    clone.remove_dead_nodes()
    assert graph.operations() == before
    assert clone.operations() == {"MatMul": 1, "Tanh": 1}


def test_replacing_an_output_keeps_its_name_and_type(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { [e] y = Exp(x) }")
    node = first(graph)
    graph.replace(node.output, graph.builder(node, {}).op("tanh", node.inputs[0]))
    graph.remove_dead_nodes()
    assert [output.name for output in graph.model.graph.outputs] == ["y"]
    x = np.array([0.5, -1.0], np.float32)
    assert np.allclose(run(graph, x=x)[0], np.tanh(x))


def test_an_output_that_is_read_inside_too(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y, float[2] z) { y = Exp(x) z = Neg(y) }")
    node = first(graph)
    graph.replace(node.output, graph.builder(node, {}).op("tanh", node.inputs[0]))
    graph.remove_dead_nodes()
    x = np.array([0.5, -1.0], np.float32)
    y, z = run(graph, x=x)
    assert np.allclose(y, np.tanh(x)) and np.allclose(z, -np.tanh(x))


@pytest.mark.parametrize("source", ["input", "initializer", "other_output"])
def test_an_output_replaced_by_something_that_has_a_name_of_its_own(
    source: str, graph_of: Graphs
) -> None:
    graph = graph_of(
        "(float[2] x) => (float[2] y, float[2] z) { z = Neg(x) [e] y = Exp(x) }",
    )
    node = list(graph.nodes())[-1]
    builder = graph.builder(node, {})
    x = np.array([0.5, -1.0], np.float32)
    values = {
        "input": (node.inputs[0], x),
        "initializer": (builder.constant(np.float32([7, 8]), "float32"), np.float32([7, 8])),
        "other_output": (graph.value(graph.model.graph.outputs[1]), -x),
    }
    new, expected = values[source]
    assert new is not None
    graph.replace(node.output, new)
    graph.remove_dead_nodes()
    assert [output.name for output in graph.model.graph.outputs] == ["y", "z"]
    y, z = run(graph, x=x)
    assert np.array_equal(y, expected) and np.array_equal(z, -x)


def test_one_operand_of_one_node(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { a = Neg(x) y = Mul(x, a) }")
    product = list(graph.nodes())[-1]
    graph.replace_input(product, 0, product.inputs[1])
    x = np.array([3.0, -1.0], np.float32)
    assert np.allclose(run(graph, x=x)[0], x * x)


IF = """(bool c, float[2] x) => (float[2] y) {
    [choice] y = If (c) <
        then_branch = t () => (float[2] a) { [inside] a = Exp(x) },
        else_branch = e () => (float[2] b) { [other] b = Tanh(x) } >
}"""


def test_bodies_are_walked_and_their_paths_are_known(graph_of: Graphs) -> None:
    graph = graph_of(IF)
    paths = {node.name: node.graph_path for node in graph.nodes()}
    assert paths == {
        "choice": "",
        "inside": "choice/then_branch",
        "other": "choice/else_branch",
    }


def test_replacement_inside_a_body(graph_of: Graphs) -> None:
    graph = graph_of(IF)
    node = next(node for node in graph.nodes() if node.name == "inside")
    graph.replace(node.output, graph.builder(node, {}).op("sigmoid", node.inputs[0]))
    graph.remove_dead_nodes()
    x = np.array([0.0, 1.0], np.float32)
    taken = run(graph, x=x, c=np.array(True))[0]
    assert np.allclose(taken, 1 / (1 + np.exp(-x)))
    assert np.allclose(run(graph, x=x, c=np.array(False))[0], np.tanh(x))


def test_a_body_output_replaced_by_an_outer_value(graph_of: Graphs) -> None:
    graph = graph_of(IF)
    node = next(node for node in graph.nodes() if node.name == "inside")
    graph.replace(node.output, node.inputs[0])
    graph.remove_dead_nodes()
    x = np.array([0.0, 1.0], np.float32)
    assert np.array_equal(run(graph, x=x, c=np.array(True))[0], x)


def test_fresh_names_are_unused_even_inside_bodies(graph_of: Graphs) -> None:
    graph = graph_of(IF)
    taken = {"a", "b", "inside", "x", "y"}
    for wanted in taken:
        assert graph.fresh_name(wanted) not in taken | {""}
    assert graph.fresh_name("new") == "new"
    assert graph.fresh_name("new") != "new"


@pytest.mark.parametrize(
    ("name", "metadata", "path"),
    [
        ("/encoder/layer.0/attention/Softmax", {}, "encoder.layer.0.attention"),
        ("/Softmax", {}, ""),
        ("Softmax_12", {}, ""),
        ("", {}, ""),
        (
            "node_softmax",
            {"pkg.torch.onnx.name_scopes": "['', 'encoder', 'encoder.layer.0', 'softmax']"},
            "encoder.layer.0",
        ),
        ("node_softmax", {"pkg.torch.onnx.name_scopes": "['', 'softmax']"}, ""),
        ("node_softmax", {"pkg.torch.onnx.name_scopes": "not a list"}, ""),
        ("node_softmax", {"pkg.torch.onnx.name_scopes": "[]"}, ""),
        ("odp/softmax/1/Mul", {"odp.module": "encoder.layer.0"}, "encoder.layer.0"),
    ],
)
def test_module_paths_of_both_exporters(name: str, metadata: dict[str, str], path: str) -> None:
    assert module_path(ir.Node("", "Softmax", [], name=name, metadata_props=metadata)) == path


def test_what_replaces_a_node_says_where_that_was(graph_of: Graphs) -> None:
    graph = graph_of("(float[4] x) => (float[4] y) { y = Exp(x) }")
    (node,) = graph.nodes()
    node.native.name = "/encoder/layer.0/Exp"
    new = graph.builder(node, {}).op("tanh", node.inputs[0])
    assert new.producer is not None and new.producer.module_path == "encoder.layer.0"


def test_evaluation_of_what_no_input_reaches(graph_of: Graphs) -> None:
    graph = graph_of(
        "(float[4] x) => (float[4] y) { r = Range(start, stop, step) a = Mul(r, f) s = Sin(a) "
        "d = Mul(s, x) y = Exp(d) }",
        initializers={
            **{"start": np.float32(0), "stop": np.float32(4), "step": np.float32(1)},
            "f": np.float32(0.5),
        },
    )
    values = {node.output.name: node.output for node in graph.nodes()}
    assert np.allclose(graph.evaluate(values["s"]), np.sin(np.arange(4) * 0.5))
    assert graph.evaluate(values["d"]) is None
    assert graph.evaluate(values["y"]) is None
    assert graph.evaluate(graph.value(graph.model.graph.inputs[0])) is None
    assert graph.evaluate(graph.value(graph.model.graph.initializers["f"])) == np.float32(0.5)


@pytest.mark.parametrize(
    "body", ["r = RandomNormal<shape=[4]>() y = Exp(r)", "r = RandomUniformLike(x) y = Exp(r)"]
)
def test_chance_is_not_a_constant(body: str, graph_of: Graphs) -> None:
    graph = graph_of(f"(float[4] x) => (float[4] y) {{ {body} }}")
    assert graph.evaluate(list(graph.nodes())[-1].output) is None


def test_constants_of_a_body_that_depend_on_the_iteration(graph_of: Graphs) -> None:
    text = """(int64 n, float[2] x) => (float[2] y) {
        y = Loop (n, , x) < body = b (int64 i, bool go, float[2] v) => (bool on, float[2] w) {
            on = Identity(go) f = Cast<to=1>(i) e = Exp(f) w = Mul(v, e) } >
    }"""
    graph = graph_of(text)
    exp = next(node for node in graph.nodes() if node.op == "exp")
    assert graph.evaluate(exp.output) is None


@pytest.mark.parametrize(
    ("body", "exponent", "counted"),
    [
        ("y = Pow(x, p)", np.float32(2.0), {}),
        ("y = Pow(x, p)", np.float32(-1.0), {}),
        ("y = Pow(x, p)", np.int64(3), {}),
        ("y = Pow(x, p)", np.float32(0.5), {"Pow": 1}),
        ("y = Pow(x, p)", np.array([2.0, 2.5, 3.0, 1.0], np.float32), {"Pow": 1}),
        ("y = Pow(x, x)", None, {"Pow": 1}),
        ("e = Exp(x) f = Exp(e) y = Relu(f)", None, {"Exp": 2}),
        ("y = com.microsoft.FastGelu(x)", None, {"com.microsoft::FastGelu": 1}),
        ("y = LpNormalization<p=1>(x)", None, {}),
        ("y = LpNormalization<p=2>(x)", None, {"LpNormalization": 1}),
        ("y = Reciprocal(x)", None, {}),
        ("y = Div(x, x)", None, {}),
    ],
)
def test_transcendental_operations_are_counted(
    body: str, exponent: Any, counted: dict[str, int], graph_of: Graphs
) -> None:
    stored = {} if exponent is None else {"p": exponent}
    graph = graph_of(f"{IN} {{ {body} }}", initializers=stored, domains={"com.microsoft": 1})
    assert graph.transcendental() == counted


def test_bodies_are_counted(graph_of: Graphs) -> None:
    assert graph_of(IF).transcendental() == {"Exp": 1, "Tanh": 1}
    assert graph_of(IF).operations() == {"Exp": 1, "If": 1, "Tanh": 1}
