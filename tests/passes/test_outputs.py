"""Outputs of a model keep their names, their order and their values, whatever is replaced."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import odp

from .cases import build_model, run


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("s = Sigmoid(x) y = Identity(s)", ("y", "s")),
        ("s = Sigmoid(x) y = Identity(s)", ("s", "y")),
        ("s = Sigmoid(x) y = Identity(s) z = Identity(s)", ("z", "s", "y")),
        ("y = Identity(x) s = Sigmoid(x)", ("y", "s")),
        ("y = Sigmoid(x) s = Mul(x, y)", ("y", "s")),
        ("y = Sigmoid(x) s = Sigmoid(x)", ("s", "y")),
        ("e = Exp(x) y = Identity(e) t = ReduceSum(e) s = Div(e, t)", ("s", "y", "e")),
    ],
    ids=["copy", "copied", "copies", "input", "part", "twice", "inside"],
)
def test_outputs_stay(body: str, outputs: tuple[str, ...]) -> None:
    model = build_model(body, inputs={"x": (2, 3)}, outputs=outputs)
    data = np.random.default_rng(0).uniform(-2, 2, (4, 2, 3)).astype(np.float32)
    result = odp.rewrite(model, "all", calibration={"x": data})
    rewritten = ir.to_proto(result.model)
    onnx.checker.check_model(rewritten, full_check=True)
    assert [value.name for value in rewritten.graph.output] == list(outputs)
    assert result.report.model.transcendental_after == {}
    assert set(result.report.total) == set(outputs)
    feed = {"x": data[0]}
    for before, after in zip(run(model, feed), run(rewritten, feed), strict=True):
        # Functions of at most exp(2) < 8, each within 1e-5 relative or absolute.
        np.testing.assert_allclose(after, before, rtol=2e-5, atol=2e-5)
