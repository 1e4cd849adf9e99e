"""The wire format: what is cut out and what is put back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from odp.backends.onnx.protobuf_wire import WireError, encode_varint, scan_model


def _model(sizes: list[int]) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.arange(n, dtype=np.int64), f"t{n}") for n in sizes]
    return helper.make_model(helper.make_graph([], "graph", [], [], tensors))


def test_skeleton_is_the_model_without_its_large_data() -> None:
    proto = _model([10, 1000, 2000])
    data = proto.SerializeToString()
    skeleton = scan_model(memoryview(data))
    assert sorted(skeleton.raw_data) == ["t1000", "t2000"]
    assert len(skeleton.proto) < 500
    rebuilt = onnx.ModelProto.FromString(skeleton.proto)
    for tensor in rebuilt.graph.initializer:
        if tensor.name in skeleton.raw_data:
            offset, length = skeleton.raw_data[tensor.name]
            tensor.raw_data = data[offset : offset + length]
    assert rebuilt == proto


@given(st.integers(0, 2**63 - 1))
def test_varint_is_the_one_of_protobuf(value: int) -> None:
    proto = onnx.ModelProto(ir_version=value)
    assert proto.SerializeToString() == b"\x08" + encode_varint(value)


@given(st.binary(max_size=200))
def test_any_bytes_scan_or_raise_wire_error(data: bytes) -> None:
    try:
        skeleton = scan_model(memoryview(data))
    except WireError:
        return
    assert len(skeleton.proto) <= len(data)


def test_truncation_is_told_from_nonsense() -> None:
    data = _model([1000]).SerializeToString()
    with pytest.raises(WireError) as caught:
        scan_model(memoryview(data[:500]))
    assert caught.value.truncated
    with pytest.raises(WireError) as caught:
        scan_model(memoryview(b"\x89PNG\r\n\x1a\n"))
    assert not caught.value.truncated
