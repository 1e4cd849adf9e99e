"""Text in, operators out: the structure that the central passes leave behind.

A function that is replaced is emitted as `Neg`, so that the structure shows and not the expression.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from odp.passes import registry
from odp.rewriter.graph import Builder, Value
from odp.rewriter.manager import rewrite_graph, schedule
from odp.rewriter.onnx_graph import OnnxGraph
from odp.rewriter.pass_options import parse_passes
from odp.rewriter.site import Site


class Placeholder:
    """Emits one Neg for every function and remembers which function it was."""

    mask_value: float | None = None

    def __init__(self) -> None:
        self.functions: list[str] = []

    def function(self, site: Site, x: Value, builder: Builder) -> Value:
        self.functions.append(site.function)
        return builder.op("neg", x)


def rewritten(text: str, passes: str) -> tuple[OnnxGraph, Placeholder]:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    graph = OnnxGraph(ir.from_proto(onnx.shape_inference.infer_shapes(model)))
    placeholder = Placeholder()
    rewrite_graph(graph, schedule(parse_passes(passes, registry()), registry()), placeholder)
    return graph, placeholder


def counted(**operators: int) -> Mapping[str, int]:
    return operators


@pytest.mark.parametrize(
    ("text", "passes", "functions", "operators"),
    [
        (
            "softmax (float[2, 4] x) => (float[2, 4] y) { y = Softmax(x) }",
            "softmax",
            ["exp"],
            counted(ReduceMax=1, Sub=1, Neg=1, ReduceSum=1, Div=1),
        ),
        (
            "log_softmax (float[2, 4] x) => (float[2, 4] y) { s = Softmax(x) y = Log(s) }",
            "log_softmax",
            ["exp", "log"],
            counted(ReduceMax=2, Sub=3, Neg=2, ReduceSum=1),
        ),
        (
            "exp_only (float[2, 4] x) => (float[2, 4] y) { y = LogSoftmax(x) }",
            "exp",
            ["exp"],
            counted(ReduceMax=2, Sub=3, Neg=1, ReduceSum=1, Log=1),
        ),
        (
            "layer_norm (float[2, 4] x, float[4] w, float[4] b) => (float[2, 4] y)"
            " { y = LayerNormalization(x, w, b) }",
            "layer_norm",
            ["rsqrt"],
            counted(ReduceMean=2, Sub=1, Mul=3, Add=2, Neg=1),
        ),
        (
            "spelled_out (float[2, 4] x) => (float[2, 4] y) <float eps = {1e-5}, float two = {2}> {"
            " m = ReduceMean<axes = [-1]>(x) c = Sub(x, m) s = Pow(c, two)"
            " v = ReduceMean<axes = [-1]>(s) r = Add(v, eps) d = Sqrt(r) y = Div(c, d) }",
            "layer_norm",
            ["rsqrt"],
            counted(ReduceMean=2, Sub=1, Pow=1, Add=1, Neg=1, Mul=1),
        ),
        (
            "rms_norm (float[2, 4] x, float[4] w) => (float[2, 4] y) <float eps = {1e-5}> {"
            " s = Mul(x, x) v = ReduceMean<axes = [-1]>(s) r = Add(v, eps) d = Sqrt(r)"
            " i = Reciprocal(d) n = Mul(x, i) y = Mul(w, n) }",
            "rsqrt",
            ["rsqrt"],
            counted(Mul=3, ReduceMean=1, Add=1, Neg=1),
        ),
        (
            "gelu (float[2, 4] x) => (float[2, 4] y)"
            " <float root = {1.4142135}, float one = {1}, float half = {0.5}> {"
            " a = Div(x, root) f = Erf(a) g = Add(f, one) h = Mul(x, half) y = Mul(h, g) }",
            "gelu",
            ["normal_cdf"],
            counted(Neg=1, Mul=1),
        ),
        (
            "gelu_by_erf (float[2, 4] x) => (float[2, 4] y)"
            " <float root = {1.4142135}, float one = {1}, float half = {0.5}> {"
            " a = Div(x, root) f = Erf(a) g = Add(f, one) h = Mul(x, half) y = Mul(h, g) }",
            "erf",
            ["normal_cdf"],
            counted(Neg=1, Mul=1),
        ),
        (
            "silu (float[2, 4] x) => (float[2, 4] y) { s = Sigmoid(x) y = Mul(s, x) }",
            "silu",
            ["sigmoid"],
            counted(Neg=1, Mul=1),
        ),
        (
            "shared_gate (float[2, 4] x) => (float[2, 4] y, float[2, 4] s)"
            " { s = Sigmoid(x) y = Mul(s, x) }",
            "silu",
            ["sigmoid"],
            counted(Neg=1, Mul=1, Sigmoid=1),
        ),
        (
            "softplus (float[2, 4] x) => (float[2, 4] y) { y = Softplus(x) }",
            "softplus",
            ["softplus_tail"],
            counted(Abs=1, Neg=1, Relu=1, Add=1),
        ),
        (
            "mish (float[2, 4] x) => (float[2, 4] y) { l = Softplus(x) t = Tanh(l) y = Mul(x, t) }",
            "mish,softplus,tanh",
            ["mish_gate"],
            counted(Neg=1, Mul=1),
        ),
        (
            "elu (float[2, 4] x) => (float[2, 4] y) { y = Elu<alpha = 0.5>(x) }",
            "elu",
            ["exp"],
            counted(Clip=1, Neg=1, Sub=1, Mul=1, Relu=1, Add=1),
        ),
        (
            "l2 (float[2, 4] x) => (float[2, 1] y) { y = ReduceL2<axes = [-1]>(x) }",
            "sqrt",
            ["sqrt"],
            counted(Mul=1, ReduceSum=1, Neg=1),
        ),
        (
            "power (float[2, 4] x, float[4] p) => (float[2, 4] y) { y = Pow(x, p) }",
            "pow",
            ["log", "exp"],
            counted(Neg=2, Mul=1),
        ),
        (
            "square (float[2, 4] x) => (float[2, 4] y) <float two = {2}> { y = Pow(x, two) }",
            "all",
            [],
            counted(Pow=1),
        ),
        (
            "rope (float[4, 2] x) => (float[4, 2] y)"
            " <float[4, 1] t = {0, 1, 2, 3}, float[1, 2] f = {1, 0.1}> {"
            " a = Mul(t, f) s = Sin(a) o = Cos(a) p = Mul(x, s) q = Mul(x, o) y = Add(p, q) }",
            "rope",
            [],
            counted(Mul=2, Add=1),
        ),
        (
            "positions (float[4, 1] t) => (float[4, 2] y) <float[1, 2] f = {1, 0.1}> {"
            " a = Mul(t, f) y = Sin(a) }",
            "rope",
            ["sin"],
            counted(Mul=1, Neg=1),
        ),
        (
            "plain_sine (float[4, 1] t) => (float[4, 1] y) { y = Sin(t) }",
            "rope",
            [],
            counted(Sin=1),
        ),
    ],
    ids=lambda value: value.split(" ")[0] if isinstance(value, str) and "=>" in value else "",
)
def test_structure(
    text: str, passes: str, functions: list[str], operators: Mapping[str, int]
) -> None:
    graph, placeholder = rewritten(text, passes)
    assert placeholder.functions == functions
    assert graph.operations() == dict(operators)


def test_two_softmaxes_of_one_input_are_two_sites() -> None:
    text = (
        "pair (float[2, 4] x) => (float[2, 4] y)"
        " { a = Softmax(x) b = Softmax<axis = 0>(x) y = Add(a, b) }"
    )
    graph, placeholder = rewritten(text, "softmax")
    assert placeholder.functions == ["exp", "exp"]
    sites = {node.native.metadata_props.get("odp.site") for node in graph.nodes()} - {None}
    assert {"softmax/softmax/1/exp", "softmax/softmax/2/exp"} <= sites


def test_rope_table_is_exact() -> None:
    text = (
        "rope (float[4, 2] x) => (float[4, 2] y)"
        " <float[4, 1] t = {0, 1, 2, 3}, float[1, 2] f = {1, 0.1}> {"
        " a = Mul(t, f) s = Sin(a) y = Mul(x, s) }"
    )
    graph, _ = rewritten(text, "rope")
    (product,) = list(graph.nodes())
    (table,) = [v.constant for v in product.inputs if v is not None and v.constant is not None]
    angles = np.arange(4, dtype=np.float32)[:, None] * np.array([[1, 0.1]], np.float32)
    np.testing.assert_array_equal(table, np.sin(angles))
