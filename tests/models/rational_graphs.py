"""What a rewritten model must look like, checked on the file and not on ODP's own report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

__all__ = ["assert_rational", "inputs_of", "operator_counts", "relative_l2", "run"]

TRANSCENDENTAL = {
    *("Exp", "Log", "Sqrt", "Erf", "Sin", "Cos", "Tan", "Sinh", "Cosh", "Tanh", "Sigmoid"),
    *("Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh", "Softmax", "LogSoftmax", "Softplus"),
    *("Mish", "Elu", "Selu", "Celu", "Gelu", "Swish", "LSTM", "GRU", "RNN", "LpNormalization"),
    *("LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization"),
    *("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "MeanVarianceNormalization", "LRN"),
}


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                yield from nodes_of(body)


def operator_counts(path: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in nodes_of(onnx.load(path, load_external_data=False).graph):
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def assert_rational(path: Path) -> None:
    """Plain opset 12, checked in full, without functions, contrib or transcendental operators."""
    model = onnx.load(path)
    onnx.checker.check_model(str(path), full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 12)]
    assert not model.functions
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in nodes_of(model.graph):
        assert node.domain == "", node.name
        assert node.op_type not in TRANSCENDENTAL, f"{node.name}: {node.op_type}"
        if node.op_type == "Pow":
            exponent = onnx.numpy_helper.to_array(stored[node.input[1]])
            assert (exponent == exponent.round()).all(), node.name


def inputs_of(path: Path) -> list[str]:
    return [value.name for value in onnx.load(path, load_external_data=False).graph.input]


def run(path: Path, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """All outputs in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


def relative_l2(before: NDArray[Any], after: NDArray[Any]) -> float:
    difference = after.astype(np.float64) - before
    return float(np.linalg.norm(difference) / np.linalg.norm(before))
