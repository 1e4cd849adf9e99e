"""Read an ONNX file into `onnx_ir.Model` without holding its weights in memory."""

from __future__ import annotations

import difflib
import errno
import logging
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from odp.backends.onnx.errors import OnnxError
from odp.backends.onnx.garbage_collection import paused_collector
from odp.backends.onnx.protobuf_wire import Skeleton, WireError, scan_model

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["KNOWN_DOMAINS", "check_domains", "inline_functions", "load_model"]

KNOWN_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "com.microsoft",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
    }
)
"""Operator domains that ODP knows; model-local functions come on top of these."""

HISTORIC_CONTRIB_OPERATORS = frozenset({"SimplifiedLayerNormalization"})
"""What ONNX Runtime's optimizer writes into the default domain although no ONNX version has it."""

_PLACEHOLDERS = frozenset({"?", "-1", "None"})
_DATA_TYPES = frozenset(onnx.TensorProto.DataType.values())


def load_model(path: str | os.PathLike[str]) -> ir.Model:
    """Read an ONNX file; weights stay in the file and are mapped, not copied.

    The mapping belongs to the file that was opened: the model stays valid when the path is later
    overwritten by `save_model`, which replaces files and never writes into them.

    Args:
        path: an `.onnx` file (binary protobuf), with or without external data beside it.

    Returns:
        The model.  Initializers larger than 1 KiB are read-only views of the file.

    Raises:
        OnnxError: the file is missing, a directory, empty, truncated, not ONNX, has no graph, or
            its external data is missing or too short.  One line each.
    """
    path = Path(path)
    buffer = _map_file(path, "model file")
    try:
        skeleton = scan_model(buffer)
    except WireError as error:
        raise OnnxError(_unreadable(path, error)) from error
    if not skeleton.has_graph:
        raise OnnxError(f"{path}: not an ONNX model: it has no graph")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(skeleton.proto)
    except Exception as error:  # DecodeError lives in a private place of each protobuf backend
        raise OnnxError(f"{path}: not an ONNX model: the protobuf message is invalid") from error
    return _deserialise(path, proto, skeleton, buffer)


def _unreadable(path: Path, error: WireError) -> str:
    if error.truncated:
        return f"{path}: truncated ONNX file, or not ONNX: {error}; copy or export it again"
    return f"{path}: not an ONNX model: {error}"


def _map_file(path: Path, what: str) -> memoryview:
    """Map a file for reading; every failure is one OnnxError line."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise OnnxError(f"{path}: the {what} is empty")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise OnnxError(f"{path}: no such {what}") from error
    except IsADirectoryError as error:
        raise OnnxError(f"{path}: is a directory, not a {what}") from error
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise OnnxError(f"{path}: cannot read the {what}: {reason}") from error


def _deserialise(
    path: Path, proto: onnx.ModelProto, skeleton: Skeleton, buffer: memoryview
) -> ir.Model:
    if proto.graph.sparse_initializer:
        name = proto.graph.sparse_initializer[0].values.name
        raise OnnxError(f"{path}: sparse initializer {name!r} is not supported; make it dense")
    if not proto.graph.node and not proto.graph.output:
        raise OnnxError(f"{path}: not an ONNX model: its graph has no nodes and no outputs")
    if not any(entry.domain in ("", "ai.onnx") for entry in proto.opset_import):
        raise OnnxError(f"{path}: the model does not say which opset it uses (no opset_import)")
    for tensor in proto.graph.initializer:
        if tensor.data_type not in _DATA_TYPES:
            raise OnnxError(
                f"{path}: initializer {tensor.name!r} has the unknown type {tensor.data_type}"
            )
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its warnings are not addressed to our users
    try:
        with paused_collector():
            model = ir.from_proto(proto)
    except Exception as error:  # whatever a malformed message triggers inside onnx_ir
        raise OnnxError(f"{path}: invalid ONNX model: {root_reason(error)}") from error
    finally:
        logger.setLevel(level)
    _attach_weights(path, model, skeleton, buffer)
    _attach_external_data(path, model)
    _forget_placeholder_sizes(model)
    return model


def _forget_placeholder_sizes(model: ir.Model) -> None:
    """Read a size of -1, and a symbol called "?", as an unknown size: paddle2onnx writes both.

    As a symbol "?" would tie height and width together.
    """
    for graph in model.graphs():
        outputs = (output for node in graph for output in node.outputs)
        for value in (*graph.inputs, *outputs):
            if value.shape is not None and any(map(_is_placeholder, value.shape)):
                value.shape = ir.Shape([None if _is_placeholder(d) else d for d in value.shape])


def _is_placeholder(dim: int | ir.SymbolicDim) -> bool:
    return dim < 0 if isinstance(dim, int) else dim.value in _PLACEHOLDERS


def root_reason(error: BaseException) -> str:
    """Return the message at the bottom of a chain of wrapped exceptions, on one short line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]


def _attach_weights(path: Path, model: ir.Model, skeleton: Skeleton, buffer: memoryview) -> None:
    for name, (offset, length) in skeleton.raw_data.items():
        value = model.graph.initializers.get(name)
        if value is None or value.const_value is None:
            continue
        placeholder = value.const_value
        value.const_value = _view(path, placeholder, buffer[offset : offset + length])


def _view(path: Path, tensor: ir.TensorProtocol, data: memoryview) -> ir.TensorProtocol:
    """Return a tensor with the name, type and shape of `tensor` on the bytes `data`."""
    shape = tuple(int(d) for d in tensor.shape.numpy())
    expected = -(-int(np.prod(shape, dtype=np.int64)) * tensor.dtype.bitwidth // 8)
    if expected != len(data):
        raise OnnxError(
            f"{path}: initializer {tensor.name!r} of shape {list(shape)} and type "
            f"{tensor.dtype} needs {expected} bytes, but {len(data)} are stored"
        )
    raw: npt.NDArray[np.uint8] = np.frombuffer(data, dtype=np.uint8)
    if tensor.dtype.bitwidth < 8:
        return ir.PackedTensor(raw, tensor.dtype, shape=shape, name=tensor.name)
    array = raw.view(tensor.dtype.numpy()).reshape(shape)
    return ir.Tensor(array, dtype=tensor.dtype, shape=ir.Shape(shape), name=tensor.name)


def _attach_external_data(path: Path, model: ir.Model) -> None:
    folder = path.parent.resolve()
    maps: dict[Path, memoryview] = {}
    for value, attribute, tensor in _external_tensors(model):
        location = Path(os.fspath(tensor.location))
        data_path = (folder / location).resolve()
        if location.is_absolute() or not data_path.is_relative_to(folder):
            raise OnnxError(
                f"{path}: external data {str(location)!r} of {tensor.name!r} lies outside the "
                "folder of the model"
            )
        if data_path not in maps:
            maps[data_path] = _map_file(data_path, f"external data file of {path.name}")
        data = maps[data_path]
        start = tensor.offset or 0
        stop = start + tensor.length if tensor.length else len(data)
        if stop > len(data):
            raise OnnxError(
                f"{data_path}: truncated external data: {tensor.name!r} needs bytes up to {stop}, "
                f"the file has {len(data)}"
            )
        view = _view(path, tensor, data[start:stop])
        if value is not None:
            value.const_value = view
        if attribute is not None:
            node, name = attribute
            node.attributes[name] = ir.AttrTensor(name, view)


def _external_tensors(
    model: ir.Model,
) -> Iterator[tuple[ir.Value | None, tuple[ir.Node, str] | None, ir.ExternalTensor]]:
    for graph in model.graphs():
        for value in list(graph.initializers.values()):
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value, None, value.const_value
    for node in list(_all_nodes(model)):
        for attribute in list(node.attributes.values()):
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                tensor = attribute.as_tensor()
                if isinstance(tensor, ir.ExternalTensor):
                    yield None, (node, attribute.name), tensor


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def check_domains(model: ir.Model) -> None:
    """Check that every node uses an operator domain that ODP knows.

    Args:
        model: the model; bodies of If, Loop, Scan and of functions are searched too.

    Raises:
        OnnxError: a node has a domain that is neither in `KNOWN_DOMAINS` nor defined by a
            function of the model, an operator that does not exist in its standard domain, or
            the model has an opset that is newer than the installed onnx.
    """
    newest = onnx.defs.onnx_opset_version()
    version = model.opset_imports.get("", newest)
    if version > newest:
        raise OnnxError(
            f"the model has opset {version}, but the installed onnx {onnx.__version__} knows "
            f"opsets up to {newest}; install a newer onnx or export at opset {newest}"
        )
    local = set(model.functions)
    for node in _all_nodes(model):
        if node.op_identifier() in local:
            continue
        if node.domain not in KNOWN_DOMAINS:
            known = "ai.onnx, ai.onnx.ml, com.microsoft and functions of the model"
            raise OnnxError(
                f"node {describe_node(node)} has the unknown operator domain {node.domain!r}; "
                f"known are {known}"
            )
        historic = node.op_type in HISTORIC_CONTRIB_OPERATORS
        if node.domain == "" and not historic and not onnx.defs.has(node.op_type):
            names = {s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}
            close = difflib.get_close_matches(node.op_type, sorted(names), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise OnnxError(
                f"node {describe_node(node)}: ai.onnx has no operator {node.op_type!r}{hint}"
            )


def describe_node(node: ir.Node) -> str:
    """Name a node for a message: its own name (or its first output) and its operator.

    Example:
        >>> describe_node(ir.Node("com.microsoft", "FastGelu", [], name="gelu_3"))
        "'gelu_3' (com.microsoft::FastGelu)"
    """
    name = node.name or next((o.name for o in node.outputs if o.name), "?")
    operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"{name!r} ({operator})"


def inline_functions(model: ir.Model) -> ir.Model:
    """Replace, in place, every call of a model-local function by the nodes of its body.

    Args:
        model: the model; afterwards it has no functions.

    Returns:
        The same model.

    Raises:
        OnnxError: a function calls itself, or uses another opset than the model.
    """
    if not model.functions:
        return model
    try:
        common.InlinePass()(model)
        common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    except Exception as error:  # PassError wraps a ValueError with the reason
        reason = root_reason(error)
        raise OnnxError(f"cannot inline the functions of the model: {reason}") from error
    return model
