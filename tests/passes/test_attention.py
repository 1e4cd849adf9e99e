"""The Attention operator, from one node to opset 12 without a transcendental operation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import odp
from odp.rewriter.execution import Session
from odp.rewriter.onnx_graph import OnnxGraph

LENGTH, PAST, HEADS, GROUPS, SIZE = 5, 3, 4, 2, 8


def attention(
    *, past: bool = False, mask: str | None = None, **attributes: Any
) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """Grouped-query attention of opset 23, and inputs for it."""
    random = np.random.default_rng(3)
    shapes = {"q": (2, HEADS, LENGTH, SIZE), "k": (2, GROUPS, LENGTH, SIZE)}
    shapes["v"] = shapes["k"]
    if past:
        shapes["past_k"] = shapes["past_v"] = (2, GROUPS, PAST, SIZE)
    feed = {name: random.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    total = LENGTH + (PAST if past else 0)
    allowed = np.tril(np.ones((LENGTH, total), bool), total - LENGTH)
    if mask == "bool":
        feed["mask"] = allowed
    elif mask == "float":
        feed["mask"] = np.where(allowed, 0.0, -10000.0).astype(np.float32)
    names = ["q", "k", "v", "mask" if mask else "", *(("past_k", "past_v") if past else ())]
    while not names[-1]:
        names.pop()
    outputs = ["y", "present_k", "present_v"] if past else ["y"]
    node = onnx.helper.make_node("Attention", names, outputs, "attention", **attributes)
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in feed.items()}
    present = (2, GROUPS, total, SIZE)
    results = {"y": shapes["q"], "present_k": present, "present_v": present}
    graph = onnx.helper.make_graph(
        [node],
        "attention",
        [onnx.helper.make_tensor_value_info(n, kinds[n], feed[n].shape) for n in feed],
        [onnx.helper.make_tensor_value_info(n, 1, results[n]) for n in outputs],
    )
    opsets = [onnx.helper.make_opsetid("", 23)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), feed


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": 1},
        {"softcap": 2.0},
        {"scale": 0.3},
        {"mask": "bool"},
        {"mask": "float"},
        {"past": True},
        {"past": True, "is_causal": 1, "softcap": 5.0},
    ],
    ids=str,
)
def test_attention_becomes_rational(options: dict[str, Any]) -> None:
    model, feed = attention(**options)
    result = odp.rewrite(model, calibration=feed)
    graph = OnnxGraph(result.model)
    assert graph.transcendental() == {}
    assert graph.opset == 12
    assert "Attention" not in graph.operations()
    assert result.report.model.transcendental_before == {"Attention": 1}
    found = Session(result.model).run(feed)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, feed)
    # The weights sum to one, so the output is off by at most twice the largest error of a weight
    # times the largest |v|; every weight is off by at most 2n times the 1e-5 of the exponential,
    # and the softcap adds its own 1e-5 to each score, at a slope of at most its cap.
    scores = LENGTH + PAST
    bound = (
        (2 * scores * 1e-5 + 2 * 1e-5 * options.get("softcap", 0.0)) * 2 * np.abs(feed["v"]).max()
    )
    assert np.abs(found["y"] - expected[0]).max() <= bound
    if options.get("past"):
        np.testing.assert_array_equal(found["present_k"], expected[1])
