"""Lp pools, lp norms and local response norms against ONNX Runtime's own."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import odp
from odp.rewriter.execution import Session
from odp.rewriter.onnx_graph import OnnxGraph

SHAPE = (2, 6, 5, 4)


@pytest.mark.parametrize(
    "node",
    [
        "GlobalLpPool<p = 2>",
        "GlobalLpPool<p = 3>",
        "LpPool<p = 2, kernel_shape = [3, 2]>",
        "LpPool<p = 3, kernel_shape = [2, 2], strides = [1, 2], pads = [1, 0, 1, 0]>",
        'LpPool<p = 2, kernel_shape = [2, 2], auto_pad = "SAME_UPPER">',
        "LRN<size = 3, alpha = 0.5, beta = 0.5, bias = 2.0>",
        "LRN<size = 5>",
        "LpNormalization<axis = 1>",
    ],
)
def test_roots_of_sums(node: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 12]>
    g (float[2, 6, 5, 4] x) => (float[a, b, c, d] y) {{ y = {node}(x) }}"""
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    result = odp.rewrite(model, calibration={"x": x}, error=1e-5)
    assert OnnxGraph(result.model).transcendental() == {}
    expected = Session(ir.from_proto(model)).run({"x": x})["y"]
    found = Session(result.model).run({"x": x})["y"]
    # Roots and powers are chosen by relative error; a few roundings of float32 come on top.
    np.testing.assert_allclose(found, expected, rtol=1e-5 + 16 * 2.0**-24, atol=1e-7)


def test_a_vector_of_zeros_stays_zero() -> None:
    text = """<ir_version: 10, opset_import: ["" : 22]>
    g (float[3, 4] x) => (float[3, 4] y) { y = LpNormalization(x) }"""
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    x[1] = 0.0
    result = odp.rewrite(onnx.parser.parse_model(text), calibration={"x": x})
    assert not Session(result.model).run({"x": x})["y"][1].any()


def test_rounding_up_is_refused_with_a_reason() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[1, 2, 5, 5] x) => (float[1, 2, 3, 3] y)
    { y = LpPool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x) }"""
    x = np.ones((1, 2, 5, 5), np.float32)
    result = odp.rewrite(onnx.parser.parse_model(text), calibration={"x": x}, opset=None)
    (record,) = [record for record in result.report.passes if record.name == "lp_pool"]
    assert "ceil_mode" in record.skipped[0].reason
