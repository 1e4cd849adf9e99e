"""The check names the node that is wrong."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from odp.backends.onnx.check import check_model
from odp.backends.onnx.errors import OnnxError


def test_a_valid_model_passes_in_memory_and_by_path(parse_model, tmp_path) -> None:
    proto = parse_model("agraph (float[2] x) => (float[2] y) { y = Relu(x) }", 12)
    check_model(ir.from_proto(proto))
    onnx.save(proto, tmp_path / "m.onnx")
    check_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("agraph (float[2] x) => (float[2] y) { [bad_node] y = Relu(x, x) }", "bad_node"),
        ("agraph (float[2] x) => (float[2] y) { [bad_node] y = Gelu(x) }", "bad_node"),
        ("agraph (float[2] x, float[3] z) => (float[2] y) { [bad_node] y = Add(x, z) }", "Add"),
        ("agraph (float[2] x) => (float[2] y) { [bad_node] y = Relu(missing) }", "bad_node"),
    ],
    ids=["arity", "operator", "shape", "undefined input"],
)
def test_the_node_that_fails_is_named(parse_model, text, reason) -> None:
    with pytest.raises(OnnxError, match=reason) as caught:
        check_model(ir.from_proto(parse_model(text, 12)))
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path) -> None:
    with pytest.raises(OnnxError, match="no such model file"):
        check_model(tmp_path / "m.onnx")
