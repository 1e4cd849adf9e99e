"""Is it a valid ONNX model, and does ONNX Runtime load it?"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from odp.backends.onnx.errors import OnnxError
from odp.backends.onnx.garbage_collection import paused_collector
from odp.backends.onnx.load import load_model, root_reason
from odp.backends.onnx.save import save_model
from odp.backends.onnx.skeleton import large_initializers, serialise_skeleton

__all__ = ["check_model"]

_LARGE = 2**26


@paused_collector()
def check_model(model: ir.Model | str | os.PathLike[str]) -> None:
    """Run the full ONNX checker, and load the model in ONNX Runtime on the CPU.

    Models over 2 GB work.  Of a model in memory nothing is written and no weight is copied: both
    see large weights as inputs of the graph, with the same types and shapes.  A temporary file
    instead took 5 of the 12 seconds in which SmolLM2 (652 MB) is rewritten, and ONNX Runtime copies
    every weight that it loads, also those it gets by pointer.

    Args:
        model: a model, or the path of one.

    Raises:
        OnnxError: names the node that fails and why.
    """
    if isinstance(model, ir.Model):
        message = _without_weights(model)
        _run_checker(message, "the model")
        _run_loader(message, "the model")
        return
    path = Path(model)
    loaded = load_model(path)  # its errors are clearer than those of the checker
    if _is_large(loaded):
        with tempfile.TemporaryDirectory(prefix="odp-check-") as folder:
            copy = Path(folder) / "model.onnx"
            save_model(loaded, copy, external_data=True)
            _run_checker(str(copy), str(path))
    else:
        _run_checker(str(path), str(path))
    _run_loader(str(path), str(path))


def _without_weights(model: ir.Model) -> bytes:
    """The model with its large weights declared as inputs: same nodes, same types."""
    proto = serialise_skeleton(model)
    listed = {info.name for info in proto.graph.input}
    for value in large_initializers(model):
        if value.name not in listed:
            proto.graph.input.append(ir.serde.serialize_value(value))
    return bytes(proto.SerializeToString())


def _is_large(model: ir.Model) -> bool:
    """Whether the checker should see the weights as external data.

    It holds a single file twice (1.3 GB for 645 MB), external data not at all.
    """
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None) > _LARGE


def _run_checker(model: str | bytes, what: str) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # ValidationError and InferenceError have no common base
        raise OnnxError(f"{what}: not a valid ONNX model: {_one_line(error)}") from error


def _run_loader(model: str | bytes, what: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Loading is the question, not speed; and optimising would rewrite what is being checked.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises one class per status code
        reason = _one_line(error)
        raise OnnxError(f"{what}: ONNX Runtime does not load it: {reason}") from error


def _one_line(error: BaseException) -> str:
    """Shorten the several lines of a checker message; the node stands in its context."""
    text = root_reason(error)
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    return text.replace("==> Context: ", "").replace("Bad node spec for node. ", "")
