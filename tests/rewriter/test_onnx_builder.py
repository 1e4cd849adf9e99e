"""Everything a builder can emit, at every opset where a signature changed, run in ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from odp.approximations import approximate
from odp.rewriter.graph import Builder, Value
from odp.rewriter.onnx_builder import OnnxBuilder
from odp.rewriter.onnx_graph import OnnxGraph

Graphs = Callable[..., OnnxGraph]
Array = NDArray[Any]
NEWEST = 24  # of the installed ONNX Runtime's stable kernels; onnx itself may know more
OPSETS = (7, 9, 11, 12, 13, 18, NEWEST)

X = (np.arange(1, 13, dtype=np.float32) / 16).reshape(2, 6)

UNARY: dict[str, tuple[int, Callable[[Array], Array]]] = {
    "neg": (7, np.negative),
    "abs": (7, np.abs),
    "relu": (7, lambda x: np.maximum(x, 0)),
    "exp": (7, np.exp),
    "log": (7, np.log),
    "sqrt": (7, np.sqrt),
    "reciprocal": (7, np.reciprocal),
    "erf": (9, np.vectorize(math.erf)),
    "sin": (7, np.sin),
    "cos": (7, np.cos),
    "tan": (7, np.tan),
    "sinh": (9, np.sinh),
    "cosh": (9, np.cosh),
    "asin": (7, np.arcsin),
    "acos": (7, np.arccos),
    "atan": (7, np.arctan),
    "asinh": (9, np.arcsinh),
    "acosh": (9, np.arccosh),
    "atanh": (9, np.arctanh),
    "tanh": (7, np.tanh),
    "sigmoid": (7, lambda x: 1 / (1 + np.exp(-x))),
    "softplus": (7, lambda x: np.log1p(np.exp(x))),
    "identity": (7, lambda x: x),
}
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "max": np.maximum,
    "min": np.minimum,
}


def _conv(build: Builder, x: Value) -> tuple[Value, Array]:
    kernel = np.ones((1, 1, 3), np.float32)
    signal = build.op("reshape", x, shape=(2, 1, 6))
    result = build.op("conv", signal, build.constant(kernel, "float32"))
    return result, np.stack([np.convolve(row, [1, 1, 1], "valid")[None] for row in X])


def _where(build: Builder, x: Value) -> tuple[Value, Array]:
    large = build.op("greater", x, build.number(0.4, x))
    return build.op("where", large, x, build.op("neg", x)), np.where(X > 0.4, X, -X)


def _computed_axes(build: Builder, x: Value) -> tuple[Value, Array]:
    return build.reduce("sum", x, build.constant([1], "int64")), X.sum(1, keepdims=True)


def _expand(build: Builder, x: Value) -> tuple[Value, Array]:
    shape = build.constant([3, 2, 6], "int64")
    return build.op("expand", x, shape), np.broadcast_to(X, (3, 2, 6))


def _second_piece(build: Builder, x: Value) -> tuple[Value, Array]:
    return build.op_with_outputs("split", 2, x, axis=1, sizes=(2, 4))[1], X[:, 2:]


Case = tuple[int, Callable[[Builder, Value], tuple[Value, Array]]]

CASES: dict[str, Case] = {
    "clip_both": (7, lambda b, x: (b.op("clip", x, low=0.2, high=0.5), X.clip(0.2, 0.5))),
    "clip_low": (7, lambda b, x: (b.op("clip", x, low=0.2), X.clip(min=0.2))),
    "clip_high": (7, lambda b, x: (b.op("clip", x, high=0.5), X.clip(max=0.5))),
    "cast": (7, lambda b, x: (b.op("cast", x, dtype="float64"), X.astype(np.float64))),
    "reshape": (7, lambda b, x: (b.op("reshape", x, shape=(3, 4)), X.reshape(3, 4))),
    "reshape_inferred": (7, lambda b, x: (b.op("reshape", x, shape=(-1,)), X.reshape(-1))),
    "transpose": (7, lambda b, x: (b.op("transpose", x, perm=[1, 0]), X.T)),
    "expand": (8, _expand),
    "slice": (7, lambda b, x: (b.op("slice", x, start=1, stop=4, axis=1), X[:, 1:4])),
    "concat": (7, lambda b, x: (b.op("concat", x, x, axis=1), np.concatenate([X, X], 1))),
    "gather": (
        7,
        lambda b, x: (b.op("gather", x, b.constant([5, 0], "int64"), axis=1), X[:, [5, 0]]),
    ),
    "unsqueeze": (7, lambda b, x: (b.op("unsqueeze", x, axes=(1,)), X[:, None])),
    "squeeze": (
        7,
        lambda b, x: (b.op("squeeze", b.op("reshape", x, shape=(2, 1, 6)), axes=(1,)), X),
    ),
    "split": (7, _second_piece),
    "matmul": (7, lambda b, x: (b.op("matmul", x, b.op("transpose", x, perm=[1, 0])), X @ X.T)),
    "where": (9, _where),
    "conv": (7, _conv),
    "reduce_by_computed_axes": (13, _computed_axes),
    "number_on_the_left": (7, lambda b, x: (b.rsub(1.0, x), 1 - X)),
    "numbers_on_the_right": (
        7,
        lambda b, x: (b.div(b.mul(b.sub(b.add(x, 3.0), 1.0), 2.0), 4.0), (X + 2) / 2),
    ),
}


def emitted(
    emit: Callable[[Builder, Value], Value], opset: int, graph_of: Graphs, dtype: str = "float"
) -> tuple[OnnxGraph, Value]:
    """A model whose only output is what `emit` makes of its input `x`."""
    graph = graph_of(f"({dtype}[2,6] x) => ({dtype}[2,6] y) {{ y = Neg(x) }}", opset=opset)
    anchor = next(graph.nodes())
    assert anchor.inputs[0] is not None
    result = emit(
        graph.builder(anchor, {"odp.pass": "test", "odp.site": "test/1"}), anchor.inputs[0]
    )
    graph.model.graph.outputs[0] = result.native  # type: ignore[attr-defined]
    graph.model.graph.remove(anchor.native, safe=True)
    return graph, result


def run(graph: OnnxGraph, x: Array = X) -> Array:
    # Fills in the shape of the output where the builder does not know it.
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(graph.model), strict_mode=True)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    # What was emitted is the question, not what ONNX Runtime makes of it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return np.asarray(session.run(None, {"x": x})[0])


def opsets(since: int) -> Iterator[int]:
    return (opset for opset in OPSETS if opset >= since)


def check_types(value: Value, result: Array) -> None:
    """What the builder says of its result is true."""
    assert value.dtype == result.dtype.name
    assert value.shape in (None, result.shape)


@pytest.mark.parametrize(
    ("name", "opset"),
    [(name, opset) for name, (since, _) in UNARY.items() for opset in opsets(since)],
)
def test_functions_of_one_operand(name: str, opset: int, graph_of: Graphs) -> None:
    shift = 1.0 if name == "acosh" else 0.0
    graph, value = emitted(lambda build, x: build.op(name, build.add(x, shift)), opset, graph_of)
    result = run(graph)
    check_types(value, result)
    # ONNX Runtime's own functions are good to a few units in the last place.
    assert np.allclose(result, UNARY[name][1](X + shift), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "opset"),
    # Max and Min have broadcast since opset 8.
    [(name, opset) for name in BINARY for opset in opsets(8 if name in ("max", "min") else 7)],
)
def test_functions_of_two_operands(name: str, opset: int, graph_of: Graphs) -> None:
    graph, value = emitted(
        lambda build, x: build.op(name, x, build.number(0.3, x)), opset, graph_of
    )
    result = run(graph)
    check_types(value, result)
    assert np.allclose(result, BINARY[name](X, np.float32(0.3)), rtol=1e-6)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("kind", ["mean", "sum", "max"])
@pytest.mark.parametrize("axes", [(1,), (-1,), (0,), (0, 1)])
@pytest.mark.parametrize("keepdims", [True, False])
def test_reductions(
    kind: str, axes: tuple[int, ...], keepdims: bool, opset: int, graph_of: Graphs
) -> None:
    graph, value = emitted(lambda b, x: b.reduce(kind, x, axes, keepdims), opset, graph_of)
    result = run(graph)
    expected = getattr(np, kind)(X, axis=axes, keepdims=keepdims)
    check_types(value, result)
    assert value.shape == expected.shape
    assert np.allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "opset"),
    [(name, opset) for name, (since, _) in CASES.items() for opset in opsets(since)],
)
def test_everything_else(name: str, opset: int, graph_of: Graphs) -> None:
    expected: list[Array] = []

    def emit(build: Builder, x: Value) -> Value:
        value, array = CASES[name][1](build, x)
        expected.append(array)
        return value

    graph, value = emitted(emit, opset, graph_of)
    result = run(graph)
    check_types(value, result)
    assert result.shape == expected[0].shape
    assert np.allclose(result, expected[0], rtol=1e-6)


def test_every_emitter_is_tried() -> None:
    """A new `_emit_` method of the builder needs a case above."""
    emitters = {
        name.removeprefix("_emit_") for name in dir(OnnxBuilder) if name.startswith("_emit_")
    }
    tried = {name.split("_")[0] for name in CASES} | {"reduction", "greater", "identity"}
    assert emitters <= tried


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("dtype", ["float", "double", "float16"])
@pytest.mark.parametrize(
    ("function", "domain"), [("exp", (0.0, 1.0)), ("rsqrt", (0.03, 1.0)), ("sigmoid", (-1.0, 1.0))]
)
def test_expressions(
    function: str, domain: tuple[float, float], dtype: str, opset: int, graph_of: Graphs
) -> None:
    approximant = approximate(function, domain, error=1e-4)
    graph, value = emitted(
        lambda build, x: build.expression(approximant.expression, x), opset, graph_of, dtype
    )
    x = X.astype({"float": np.float32, "double": np.float64, "float16": np.float16}[dtype])
    result = run(graph, x)
    check_types(value, result)
    assert value.shape == (2, 6)
    inner = x.astype(np.float32) if dtype == "float16" else x
    # The same operations in the same order: equal to the last bit.
    assert np.array_equal(result, np.asarray(approximant(inner)).astype(x.dtype))


def test_an_expression_of_bfloat16_is_widened(graph_of: Graphs) -> None:
    expression = approximate("exp", (0.0, 1.0), error=1e-4).expression

    def emit(build: Builder, x: Value) -> Value:
        narrow = build.op("cast", x, dtype="bfloat16")
        return build.op("cast", build.expression(expression, narrow), dtype="float32")

    graph, _ = emitted(emit, 13, graph_of)
    rounded = X.astype(ml_dtypes.bfloat16).astype(np.float32)
    expected = np.exp(rounded)
    # One rounding to bfloat16 (8 bits) of a result that is right to 1e-4.
    assert np.abs(run(graph) - expected).max() <= 1e-4 + 2.0**-8 * expected.max()


def test_equal_constants_are_stored_once(graph_of: Graphs) -> None:
    graph, _ = emitted(lambda build, x: build.add(build.mul(x, 0.5), 0.5), 17, graph_of)
    assert list(graph.model.graph.initializers) == ["odp/constant/float32/0.5"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros(2, np.float32), np.zeros((2, 1), np.float32)),
        (np.array([1.0, 2.0], np.float32), np.array([1.0, 3.0], np.float32)),
        (np.float32(0.0), np.float32(-0.0)),
        (np.float32(1.0), np.ones(1, np.float32)),
    ],
)
def test_constants_that_differ_are_kept_apart(first: Any, second: Any, graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { y = Neg(x) }")
    build = graph.builder(next(graph.nodes()), {})
    one, two = build.constant(first, "float32"), build.constant(second, "float32")
    assert one is not two
    for value, array in ((one, first), (two, second)):
        assert value.constant is not None
        assert value.constant.tobytes() == np.asarray(array).tobytes()
        assert value.shape == np.shape(array)


def test_a_constant_of_each_type_has_its_own_entry(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { y = Neg(x) }")
    build = graph.builder(next(graph.nodes()), {})
    dtypes = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "bool"]
    assert [build.constant(1, dtype).dtype for dtype in dtypes] == dtypes


def test_every_node_carries_the_tags_and_is_marked(graph_of: Graphs) -> None:
    graph, _ = emitted(lambda build, x: build.op("clip", build.mul(x, 2.0), low=0.0), 17, graph_of)
    for node in graph.nodes():
        assert node.emitted
        assert node.native.metadata_props == {"odp.pass": "test", "odp.site": "test/1"}
        assert node.name.startswith("odp/test/1/")


def test_torch_scopes_are_inherited(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { y = Neg(x) }")
    anchor = next(graph.nodes())
    anchor.native.metadata_props.update({"pkg.torch.onnx.name_scopes": "['', 'a']", "other": "1"})
    assert anchor.inputs[0] is not None
    value = graph.builder(anchor, {"odp.pass": "p"}).op("exp", anchor.inputs[0])
    props = value.native.producer().metadata_props
    assert props == {"pkg.torch.onnx.name_scopes": "['', 'a']", "odp.pass": "p"}


def test_nodes_go_into_the_body_of_the_node_they_stand_before(graph_of: Graphs) -> None:
    graph = graph_of(
        "(bool c, float[2] x) => (float[2] y) { y = If (c) < "
        "then_branch = t () => (float[2] a) { [inside] a = Exp(x) }, "
        "else_branch = e () => (float[2] b) { b = Tanh(x) } > }"
    )
    inside = next(node for node in graph.nodes() if node.name == "inside")
    value = graph.builder(inside, {}).mul(inside.inputs[0], 2.0)
    assert value.producer is not None
    assert value.producer.graph_path.endswith("then_branch")
