"""The way of a torch model to ONNX, and what is in the file at its end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from odp.backends.torch.export import silenced

from .configurations import Feed

__all__ = ["OnnxModule", "export_to_onnx", "run_onnx", "transcendental_operators"]

# Whatever is no arithmetic, comparison or movement of data, by the name that ONNX gives it; a list
# of its own, so that the product's idea of what is transcendental is not what it is tested with.
_TRANSCENDENTAL = frozenset(
    {
        *("Exp", "Log", "Sqrt", "Erf", "Sin", "Cos", "Tan", "Sinh", "Cosh", "Tanh", "Asin", "Acos"),
        *("Atan", "Asinh", "Acosh", "Atanh", "Sigmoid", "Softmax", "LogSoftmax", "Softplus"),
        *("Gelu", "Swish", "Mish", "Elu", "Selu", "Celu", "LSTM", "GRU", "RNN", "Attention"),
        *("LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization"),
        *("MeanVarianceNormalization", "LpNormalization", "BatchNormalization", "ReduceL2"),
        *("RotaryEmbedding", "ReduceLogSum", "ReduceLogSumExp", "SoftmaxCrossEntropyLoss"),
        *("NegativeLogLikelihoodLoss", "LpPool", "GlobalLpPool", "DFT", "STFT", "HannWindow"),
    }
)


def export_to_onnx(model: torch.nn.Module, feed: Feed, path: Path) -> None:
    """Write what `torch.onnx.export(dynamo=True)` makes of a model.

    Raises:
        Exception: whatever the exporter raises where it cannot.
    """
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with silenced(), torch.no_grad():
            torch.onnx.export(
                model, (), str(path), kwargs=dict(feed), dynamo=True, external_data=False
            )
    finally:
        logging.disable(previous)


def run_onnx(path: Path, feed: Feed) -> NDArray[np.float32]:
    """The first output of a model in ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    arrays = {value.name: feed[value.name].numpy() for value in session.get_inputs()}
    first: NDArray[np.float32] = session.run([session.get_outputs()[0].name], arrays)[0]
    return first


class OnnxModule:
    """A file in ONNX Runtime, called like the model it came from; only its first output counts."""

    def __init__(self, path: Path, output: str) -> None:
        self._path = path
        self._output = output

    def __call__(self, **feed: torch.Tensor) -> Any:
        return SimpleNamespace(**{self._output: torch.from_numpy(run_onnx(self._path, feed))})


def transcendental_operators(path: Path) -> dict[str, int]:
    """Operators of a file, subgraphs and functions included, that are transcendental or a root.

    A power counts unless its exponent is a stored whole number, an operator of another domain
    always: nobody can say what is in it.
    """
    model = onnx.load(path)
    own = {(function.domain, function.name) for function in model.functions}
    found: Counter[str] = Counter()
    for nodes, constants in _node_lists(model):
        for node in nodes:
            if (node.domain, node.op_type) in own:
                continue
            if node.domain not in ("", "ai.onnx"):
                found[f"{node.domain}::{node.op_type}"] += 1
            elif node.op_type in _TRANSCENDENTAL or (
                node.op_type == "Pow" and not _is_whole(constants.get(node.input[1]))
            ):
                found[node.op_type] += 1
    return dict(found)


def _node_lists(
    model: onnx.ModelProto,
) -> Iterator[tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]]:
    """The nodes of every graph and function, with the constants that are known there."""
    pending = [(list(model.graph.node), list(model.graph.initializer))]
    pending += [(list(function.node), []) for function in model.functions]
    while pending:
        nodes, initializers = pending.pop()
        constants = {value.name: onnx.numpy_helper.to_array(value) for value in initializers}
        for node in nodes:
            for attribute in node.attribute:
                graphs = [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
                pending += [(list(graph.node), list(graph.initializer)) for graph in graphs]
                if node.op_type == "Constant" and attribute.HasField("t"):
                    constants[node.output[0]] = onnx.numpy_helper.to_array(attribute.t)
        yield nodes, constants


def _is_whole(exponent: NDArray[Any] | None) -> bool:
    return exponent is not None and bool(np.all(exponent == np.round(exponent)))
