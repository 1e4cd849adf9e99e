"""A transformer of any number of nodes, spelled out as exporters do, with random weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["SMALL", "SMOLLM2", "Sizes", "transformer_model"]

_OPSET = 17


@dataclass(frozen=True)
class Sizes:
    """Tokens, width of the hidden state, and attention heads."""

    tokens: int
    width: int
    heads: int


SMALL = Sizes(tokens=4, width=8, heads=2)
"""Weights that cost nothing: what is left is the cost of the nodes."""
SMOLLM2 = Sizes(tokens=64, width=576, heads=9)
"""As SmolLM2-135M: with its 3,334 nodes the model has about 650 MB."""


class _Writer:
    """Nodes, initializers and names of one graph."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        self.sizes = sizes
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)
        self.scope = ""
        self._names = 0

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        self._names += 1
        name = f"{self.scope}/{kind}_{self._names}"
        names = [f"{name}_output_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names[0]

    def constant(self, array: float | list[int]) -> str:
        """A Constant node: the TorchScript exporter writes one for every use."""
        dtype = np.float32 if isinstance(array, float) else np.int64
        tensor = numpy_helper.from_array(np.asarray(array, dtype))
        return self.op("Constant", value=tensor)

    def weight(self, *shape: int) -> str:
        array = self._random.standard_normal(shape) / math.sqrt(shape[0])
        return self.stored(array.astype(np.float32))

    def stored(self, array: NDArray[np.generic]) -> str:
        name = f"{self.scope}/weight_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name


def transformer_model(nodes: int, sizes: Sizes = SMALL, seed: int = 0) -> onnx.ModelProto:
    """Build a transformer of about `nodes` nodes (opset 17, static shapes).

    Blocks alternate between the two families that are met in practice: encoder blocks (LayerNorm
    spelled out with Sqrt and Div, fused Softmax, GELU spelled out with Erf) and Llama blocks
    (RMSNorm spelled out, rotary positions, softmax spelled out, SiLU as x*Sigmoid(x)).

    Args:
        nodes: wanted number of nodes; the model has at least as many, and at most one pair of
            blocks more.
        sizes: of the hidden state.
        seed: of the random weights.

    Returns:
        A model from `hidden`, float32 (1, tokens, width), to `result` of the same shape.
    """
    writer = _Writer(sizes, seed)
    cosine, sine = _rotary_tables(writer)
    x, layer = "hidden", 0
    while len(writer.nodes) < nodes:
        writer.scope = f"/layers.{layer}"
        x = _encoder_block(writer, x) if layer % 2 == 0 else _llama_block(writer, x, cosine, sine)
        layer += 1
    writer.nodes.append(helper.make_node("Identity", [x], ["result"], name="result"))
    shape = [1, sizes.tokens, sizes.width]
    graph = helper.make_graph(
        writer.nodes,
        f"transformer_{nodes}",
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, shape)],
        writer.initializers,
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _rotary_tables(w: _Writer) -> tuple[str, str]:
    """Cosine and sine of static positions, as nodes: the rope pass folds them."""
    w.scope = "/rotary"
    half = w.sizes.width // w.sizes.heads // 2
    positions = w.stored(np.arange(w.sizes.tokens, dtype=np.float32)[:, None])
    frequencies = w.stored((1e4 ** -(np.arange(half) / half)).astype(np.float32).reshape(1, half))
    angles = w.op("MatMul", positions, frequencies)
    both = w.op("Concat", angles, angles, axis=-1)
    return w.op("Cos", both), w.op("Sin", both)


def _linear(w: _Writer, x: str, rows: int, columns: int, bias: bool) -> str:
    product = w.op("MatMul", x, w.weight(rows, columns))
    return w.op("Add", product, w.weight(columns)) if bias else product


def _heads(w: _Writer, x: str) -> str:
    tokens, heads = w.sizes.tokens, w.sizes.heads
    split = w.op("Reshape", x, w.constant([1, tokens, heads, w.sizes.width // heads]))
    return w.op("Transpose", split, perm=[0, 2, 1, 3])


def _merge_heads(w: _Writer, x: str) -> str:
    merged = w.op("Transpose", x, perm=[0, 2, 1, 3])
    return w.op("Reshape", merged, w.constant([1, w.sizes.tokens, w.sizes.width]))


def _rotate(w: _Writer, x: str, cosine: str, sine: str) -> str:
    half = w.sizes.width // w.sizes.heads // 2
    axes, steps = w.constant([3]), w.constant([1])
    low = w.op("Slice", x, w.constant([0]), w.constant([half]), axes, steps)
    high = w.op("Slice", x, w.constant([half]), w.constant([2 * half]), axes, steps)
    turned = w.op("Concat", w.op("Neg", high), low, axis=-1)
    return w.op("Add", w.op("Mul", x, cosine), w.op("Mul", turned, sine))


def _layer_norm(w: _Writer, x: str) -> str:
    centred = w.op("Sub", x, w.op("ReduceMean", x, axes=[-1]))
    square = w.op("Pow", centred, w.constant(2.0))
    variance = w.op("Add", w.op("ReduceMean", square, axes=[-1]), w.constant(1e-5))
    normal = w.op("Div", centred, w.op("Sqrt", variance))
    return w.op("Add", w.op("Mul", normal, w.weight(w.sizes.width)), w.weight(w.sizes.width))


def _rms_norm(w: _Writer, x: str) -> str:
    square = w.op("Pow", x, w.constant(2.0))
    mean = w.op("Add", w.op("ReduceMean", square, axes=[-1]), w.constant(1e-5))
    inverse = w.op("Div", w.constant(1.0), w.op("Sqrt", mean))
    return w.op("Mul", w.weight(w.sizes.width), w.op("Mul", x, inverse))


def _softmax(w: _Writer, x: str) -> str:
    shifted = w.op("Sub", x, w.op("ReduceMax", x, axes=[-1]))
    weights = w.op("Exp", shifted)
    return w.op("Div", weights, w.op("ReduceSum", weights, w.constant([-1]), keepdims=1))


def _encoder_block(w: _Writer, x: str) -> str:
    width = w.sizes.width
    q, k, v = (_heads(w, _linear(w, x, width, width, True)) for _ in range(3))
    scores = w.op("MatMul", q, w.op("Transpose", k, perm=[0, 1, 3, 2]))
    scaled = w.op("Div", scores, w.constant(math.sqrt(w.sizes.width / w.sizes.heads)))
    attended = w.op("MatMul", w.op("Softmax", scaled, axis=-1), v)
    x = _layer_norm(w, w.op("Add", x, _linear(w, _merge_heads(w, attended), width, width, True)))
    inner = _linear(w, x, width, 2 * width, True)
    error_function = w.op("Erf", w.op("Div", inner, w.constant(math.sqrt(2.0))))
    gate = w.op("Add", error_function, w.constant(1.0))
    activated = w.op("Mul", w.op("Mul", inner, gate), w.constant(0.5))
    return _layer_norm(w, w.op("Add", x, _linear(w, activated, 2 * width, width, True)))


def _llama_block(w: _Writer, x: str, cosine: str, sine: str) -> str:
    width = w.sizes.width
    normal = _rms_norm(w, x)
    q, k, v = (_heads(w, _linear(w, normal, width, width, False)) for _ in range(3))
    q, k = _rotate(w, q, cosine, sine), _rotate(w, k, cosine, sine)
    scores = w.op("MatMul", q, w.op("Transpose", k, perm=[0, 1, 3, 2]))
    scaled = w.op("Mul", scores, w.constant(math.sqrt(w.sizes.heads / w.sizes.width)))
    attended = w.op("MatMul", _softmax(w, scaled), v)
    x = w.op("Add", x, _linear(w, _merge_heads(w, attended), width, width, False))
    normal = _rms_norm(w, x)
    gate = _linear(w, normal, width, 2 * width, False)
    activated = w.op("Mul", gate, w.op("Sigmoid", gate))
    gated = w.op("Mul", activated, _linear(w, normal, width, 2 * width, False))
    return w.op("Add", x, _linear(w, gated, 2 * width, width, False))
