"""Loading: weights are mapped, and every bad file is one clear line."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from odp.backends.onnx.errors import OnnxError
from odp.backends.onnx.load import check_domains, inline_functions, load_model


@pytest.fixture
def weights() -> np.ndarray:
    return np.arange(64 * 64, dtype=np.float32).reshape(64, 64)


@pytest.fixture
def proto(weights) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "int8", "int64", "bool", "uint16"]
)
def test_large_weights_are_read_only_views_with_the_same_values(proto, tmp_path, dtype) -> None:
    array = np.arange(4096) % 100
    if dtype == "bfloat16":
        tensor = helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [4096], array.astype(float))
    else:
        tensor = numpy_helper.from_array(array.astype(dtype), "w")
    proto.graph.initializer[0].CopyFrom(tensor)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    loaded = load_model(path).graph.initializers["w"].const_value
    np.testing.assert_array_equal(
        loaded.numpy().astype(float), numpy_helper.to_array(tensor).astype(float)
    )
    if tensor.raw_data:
        assert not loaded.numpy().flags.writeable
        assert not loaded.numpy().flags.owndata


def test_view_survives_the_replacement_of_its_file(proto, weights, tmp_path) -> None:
    path, other = tmp_path / "m.onnx", tmp_path / "other"
    onnx.save(proto, path)
    model = load_model(path)
    other.write_bytes(b"something else")
    other.replace(path)
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), weights)


def test_external_data_are_mapped(proto, weights, tmp_path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    tensor = load_model(path).graph.initializers["w"].const_value
    assert not isinstance(tensor, ir.ExternalTensor)
    np.testing.assert_array_equal(tensor.numpy(), weights)


def test_missing_and_short_external_data(proto, tmp_path) -> None:
    path, data = tmp_path / "m.onnx", tmp_path / "m.data"
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    data.write_bytes(data.read_bytes()[:100])
    _expect(path, "truncated external data: 'w'")
    data.unlink()
    _expect(path, "no such external data file of m.onnx")


def test_external_data_outside_the_folder_are_refused(proto, tmp_path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    raw = onnx.load(path, load_external_data=False)
    raw.graph.initializer[0].external_data[0].value = "../m.data"
    path.write_bytes(raw.SerializeToString())
    _expect(path, "outside the folder")


def _expect(path, reason: str) -> None:
    with pytest.raises(OnnxError) as caught:
        load_model(path)
    assert reason in str(caught.value)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX model"),
        (b"hello, this is not a model\n", "not an ONNX model"),
        (b'{"json": true}', "not"),
        (b"<html>", "not an ONNX model"),
        (bytes(1000), "not an ONNX model"),
        (helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString(), "no nodes"),
        (onnx.ModelProto(ir_version=8, producer_name="p").SerializeToString(), "no graph"),
    ],
    ids=["empty", "png", "text", "json", "html", "zeros", "empty graph", "no graph"],
)
def test_what_is_not_onnx(content, reason, tmp_path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    _expect(path, reason)


def test_missing_file_and_directory(tmp_path) -> None:
    _expect(tmp_path / "m.onnx", "no such model file")
    (tmp_path / "d.onnx").mkdir()
    _expect(tmp_path / "d.onnx", "is a directory")


def test_every_truncation_is_an_error(proto, tmp_path) -> None:
    # The last field is opset_import; a cut before it leaves a model that names no opset.
    content = proto.SerializeToString()
    path = tmp_path / "m.onnx"
    for length in [1, 2, 3, 10, 50, len(content) // 2, len(content) - 12, len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(OnnxError):
            load_model(path)


def test_wrong_size_of_a_weight(proto, tmp_path) -> None:
    proto.graph.initializer[0].raw_data += b"\0\0\0\0"
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    _expect(path, "needs 16384 bytes, but 16388 are stored")


def test_unknown_domain_names_node_and_domain(parse_model) -> None:
    model = ir.from_proto(
        parse_model("agraph (float[2] x) => (float[2] y) { y = acme.Frobnicate(x) }", 18, ["acme"])
    )
    with pytest.raises(OnnxError, match=r"'y' \(acme::Frobnicate\).*'acme'"):
        check_domains(model)


def test_unknown_operator_gets_a_suggestion(parse_model) -> None:
    model = ir.from_proto(
        parse_model("agraph (float[2] x) => (float[2] y) { y = Sigmoidd(x) }", 18)
    )
    with pytest.raises(OnnxError, match="did you mean Sigmoid"):
        check_domains(model)


def test_too_new_an_opset(parse_model) -> None:
    model = ir.from_proto(parse_model("agraph (float[2] x) => (float[2] y) { y = Relu(x) }", 999))
    with pytest.raises(OnnxError, match="opset 999"):
        check_domains(model)


def test_known_domains_and_local_functions_pass_and_inline(run_model) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18, "mine" : 1, "com.microsoft" : 1]>
        agraph (float[2] x) => (float[2] y) { z = mine.twice(x)  y = com.microsoft.FastGelu(z) }
        <domain: "mine", opset_import: ["" : 18]>
        twice (a) => (b) { b = Add(a, a) }"""
    )
    model = ir.from_proto(proto)
    check_domains(model)
    inline_functions(model)
    assert [node.op_type for node in model.graph] == ["Add", "FastGelu"]
    assert not model.functions


def test_placeholders_are_unknown_sizes(proto, tmp_path) -> None:
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value = -1
    dims.add(dim_param="?")
    onnx.save(proto, tmp_path / "m.onnx")
    shape = load_model(tmp_path / "m.onnx").graph.inputs[0].shape
    assert [d if isinstance(d, int) else d.value for d in shape] == [None, 64, None]
