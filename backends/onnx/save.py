"""Write a model so that either the whole of it is there afterwards or nothing has changed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from odp.backends.onnx.errors import OnnxError
from odp.backends.onnx.garbage_collection import paused_collector
from odp.backends.onnx.protobuf_wire import (
    GRAPH_INITIALIZER,
    MODEL_GRAPH,
    TENSOR_RAW_DATA,
    encode_tag,
    encode_varint,
)
from odp.backends.onnx.skeleton import large_initializers, serialise_skeleton

__all__ = ["EXTERNAL_DATA_THRESHOLD", "save_model"]

EXTERNAL_DATA_THRESHOLD = 2**31 - 2**26
"""Models with more bytes of weights than this get a data file: protobuf stops at 2 GiB."""

# Large tensors start at multiples of this, so that a loader can map them.
_ALIGNMENT = 4096
_CHUNK = 2**24


@paused_collector()
def save_model(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external_data: bool | None = None,
    overwrite: bool = True,
) -> None:
    """Write a model to a file, atomically.

    Everything is written under temporary names in the target folder and renamed at the end, the
    data file first.  On any error or interruption the temporary files are removed and what was
    there before is untouched.  Weights are streamed, never collected in memory.

    Args:
        model: the model; not changed.
        path: target, conventionally `*.onnx`.
        external_data: put weights into `<path>.data`; None decides by `EXTERNAL_DATA_THRESHOLD`.
        overwrite: whether an existing file may be replaced.

    Raises:
        OnnxError: the target is a directory or exists (with `overwrite=False`), its folder is
            missing or not writable, the disk is full.  One line each.
    """
    path = Path(path)
    if path.is_dir():
        raise OnnxError(f"{path}: is a directory; give the name of a file")
    if path.exists() and not overwrite:
        raise OnnxError(f"{path}: exists already")
    if external_data is None:
        external_data = _weight_bytes(model) > EXTERNAL_DATA_THRESHOLD
    data_path = path.with_name(path.name + ".data")
    if external_data and data_path.is_dir():
        raise OnnxError(f"{data_path}: is a directory; the weights need this name")
    try:
        with _temporary(path) as model_temporary, _temporary(data_path) as data_temporary:
            if external_data:
                _write_external(model, model_temporary, data_temporary, data_path.name)
                data_temporary.replace(data_path)
            else:
                _write_single(model, model_temporary)
            model_temporary.replace(path)
    except OSError as error:
        raise OnnxError(_explain(path, error)) from error


def _explain(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{path}: cannot write the model: the disk is full; nothing was changed"
    if error.errno == errno.ENOENT:
        return f"{path}: cannot write the model: the folder {path.parent} does not exist"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{path}: cannot write the model: {reason}; nothing was changed"


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Give an unused name beside the target, and remove the file if it is still there."""
    path = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _weight_bytes(model: ir.Model) -> int:
    tensors = (value.const_value for value in large_initializers(model))
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _header(value: ir.Value) -> onnx.TensorProto:
    tensor = value.const_value
    assert tensor is not None
    header = onnx.TensorProto(name=value.name, data_type=int(tensor.dtype))
    header.dims.extend(int(d) for d in tensor.shape.numpy())
    return header


def _stream(file: BinaryIO, tensor: ir.TensorProtocol) -> None:
    """Write the bytes of a tensor in pieces, without a copy where it lies in memory in order."""
    if tensor.dtype.bitwidth < 8:
        file.write(tensor.tobytes())
        return
    array = np.ascontiguousarray(tensor.numpy())
    data = array.reshape(-1).view(np.uint8)
    for start in range(0, data.size, _CHUNK):
        file.write(data[start : start + _CHUNK].data)


def _write_single(model: ir.Model, target: Path) -> None:
    """Write one file: the skeleton, then each weight as one more initializer of its graph."""
    proto = serialise_skeleton(model)
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    weights = []
    size = len(graph)
    for value in large_initializers(model):
        tensor = value.const_value
        assert tensor is not None
        raw = encode_tag(TENSOR_RAW_DATA) + encode_varint(tensor.nbytes)
        header = _header(value).SerializeToString() + raw
        length = len(header) + tensor.nbytes
        prefix = encode_tag(GRAPH_INITIALIZER) + encode_varint(length) + header
        weights.append((prefix, tensor))
        size += len(prefix) + tensor.nbytes
    with target.open("xb") as file:
        file.write(proto.SerializeToString())
        file.write(encode_tag(MODEL_GRAPH) + encode_varint(size))
        file.write(graph)
        for prefix, tensor in weights:
            file.write(prefix)
            _stream(file, tensor)
        _flush(file)


def _write_external(model: ir.Model, target: Path, data_target: Path, location: str) -> None:
    """Write the weights to a data file and the model that refers to it."""
    proto = serialise_skeleton(model)
    with data_target.open("xb") as file:
        for value in large_initializers(model):
            tensor = value.const_value
            assert tensor is not None
            if tensor.nbytes > _ALIGNMENT:
                file.write(bytes(-file.tell() % _ALIGNMENT))
            header = _header(value)
            header.data_location = onnx.TensorProto.EXTERNAL
            entries = {"location": location, "offset": file.tell(), "length": tensor.nbytes}
            for key, entry in entries.items():
                header.external_data.add(key=key, value=str(entry))
            proto.graph.initializer.append(header)
            _stream(file, tensor)
        _flush(file)
    with target.open("xb") as file:
        file.write(proto.SerializeToString())
        _flush(file)


def _flush(file: BinaryIO) -> None:
    """Force the bytes to the disk: a rename must not survive a crash that the data do not."""
    file.flush()
    os.fsync(file.fileno())
