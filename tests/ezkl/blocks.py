"""Blocks of transformers, in float at EZKL's defaults and in integers at scale 0."""

from __future__ import annotations

import math

import numpy as np
import onnx

from .graphs import GraphBuilder, normal

__all__ = ["attention", "encoder_block", "gated_mlp", "gated_mlp_integers"]


def gated_mlp(sequence: int = 3, hidden: int = 16, intermediate: int = 24) -> onnx.ModelProto:
    """down(silu(gate(h)) * up(h)) with h = x / sqrt(mean(x * x) + eps) * weight."""
    g = GraphBuilder({"x": (1, sequence, hidden)})
    mean = g("ReduceMean", g("Pow", "x", 2.0), axes=[-1], keepdims=1)
    inverse = g("Div", 1.0, g("Sqrt", g("Add", mean, 1e-5)))
    h = g("Mul", g("Mul", "x", inverse), normal(hidden, seed=5))
    gate = g("MatMul", h, normal(hidden, intermediate, seed=1) / math.sqrt(hidden))
    up = g("MatMul", h, normal(hidden, intermediate, seed=2) / math.sqrt(hidden))
    silu = g("Mul", gate, g("Sigmoid", gate))
    product = g("Mul", silu, up)
    down = g("MatMul", product, normal(intermediate, hidden, seed=3) / math.sqrt(intermediate))
    g("Add", "x", down)
    return g.model()


def gated_mlp_integers(
    sequence: int = 3, hidden: int = 16, intermediate: int = 24
) -> onnx.ModelProto:
    """The same in integers that are chosen by us: factors 2 ** -k say where to rescale.

    The bits after the point are 8 for x, 8 for weights, 12 in Newton's iteration.
    """
    g = GraphBuilder({"x": (1, sequence, hidden)})
    size = int(math.log2(hidden))

    def rescaled(value: str, bits: int) -> str:
        return g("Mul", value, 2.0**-bits)

    v = g("ReduceSum", g("Mul", "x", "x"), np.asarray([-1]), keepdims=1)
    v_bits = 16 + size
    y = g("Sub", 1.5 * 2**12, rescaled(v, v_bits - 12 + 1))
    for _ in range(2):
        square = g("Mul", rescaled(y, 12), y)
        w = g("Mul", rescaled(v, v_bits), square)
        y = g("Mul", rescaled(y, 13), g("Sub", 3.0 * 2**12, w))
    h = g("Mul", rescaled("x", 12), y)
    weights = [
        np.round(normal(a, b, seed=seed) / math.sqrt(a) * 256)
        for a, b, seed in ((hidden, intermediate, 1), (hidden, intermediate, 2))
    ]
    gate, up = (g("MatMul", h, weight) for weight in weights)
    gate_squared = g("Mul", gate, gate)
    even = g("Mul", gate_squared, float(round(0.2 * 2**8)))
    even = g("Add", even, float(round(0.05 * 2**8)) * 2.0**32)
    silu = g("Add", even, g("Mul", gate, 2.0**23))
    product = g("Mul", silu, up)
    last = np.round(normal(intermediate, hidden, seed=3) / math.sqrt(intermediate) * 256)
    down = g("MatMul", product, last)
    for bits in (24, 24):
        down = g("Neg", rescaled(down, bits))
    total = g("Add", down, "x")
    g("Mul", total, 2.0**-8)
    return g.model()


def attention(
    sequence: int = 4, hidden: int = 12, heads: int = 3, causal: bool = True
) -> onnx.ModelProto:
    """Projections, rotated queries and keys, softmax, product, projection, residual."""
    g = GraphBuilder({"x": (1, sequence, hidden)})
    size = hidden // heads

    def project(seed: int) -> str:
        flat = g("MatMul", "x", normal(hidden, hidden, seed=seed) / math.sqrt(hidden))
        split = g("Reshape", flat, np.asarray([1, sequence, heads, size]))
        return g("Transpose", split, perm=[0, 2, 1, 3])

    angles = np.arange(sequence)[:, None] * 10.0 ** -np.arange(0, 1, 2 / size)[None]
    cosines = g.constant(np.cos(np.concatenate([angles, angles], -1))[None, None])
    sines = g.constant(np.sin(np.concatenate([angles, angles], -1))[None, None])

    def rotate(value: str) -> str:
        last = np.asarray([-1])
        a = g("Slice", value, np.asarray([0]), np.asarray([size // 2]), last)
        b = g("Slice", value, np.asarray([size // 2]), np.asarray([size]), last)
        turned = g("Concat", g("Neg", b), a, axis=-1)
        return g("Add", g("Mul", value, cosines), g("Mul", turned, sines))

    q, k, v = rotate(project(1)), rotate(project(2)), project(3)
    scores = g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2]))
    scores = g("Div", scores, math.sqrt(size))
    if causal:
        mask = np.triu(np.full((sequence, sequence), -64.0), 1)[None, None]
        scores = g("Add", scores, mask)
    mixed = g("MatMul", g("Softmax", scores, axis=-1), v)
    joined = g(
        "Reshape", g("Transpose", mixed, perm=[0, 2, 1, 3]), np.asarray([1, sequence, hidden])
    )
    g("Add", "x", g("MatMul", joined, normal(hidden, hidden, seed=4) / math.sqrt(hidden)))
    return g.model()


def encoder_block(sequence: int = 3, hidden: int = 12) -> onnx.ModelProto:
    """LayerNorm written out, a product with bias, GELU by erf, a product with bias."""
    g = GraphBuilder({"x": (1, sequence, hidden)})
    centred = g("Sub", "x", g("ReduceMean", "x", axes=[-1], keepdims=1))
    variance = g("ReduceMean", g("Pow", centred, 2.0), axes=[-1], keepdims=1)
    normed = g("Div", centred, g("Sqrt", g("Add", variance, 1e-5)))
    h = g("Add", g("Mul", normed, normal(hidden, seed=1)), normal(hidden, seed=2))
    wide = g("MatMul", h, normal(hidden, 4 * hidden, seed=3) / math.sqrt(hidden))
    wide = g("Add", wide, normal(4 * hidden, seed=4))
    erf = g("Erf", g("Div", wide, math.sqrt(2.0)))
    gelu = g("Mul", g("Mul", wide, g("Add", erf, 1.0)), 0.5)
    out = g("MatMul", gelu, normal(4 * hidden, hidden, seed=5) / math.sqrt(4 * hidden))
    g("Add", g("Add", out, normal(hidden, seed=6)), "x")
    return g.model()
