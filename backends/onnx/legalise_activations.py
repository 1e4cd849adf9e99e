"""Opset-12 forms of activations that became operators later."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from odp.backends.onnx.legalise_emitter import Emitter, rule

__all__: list[str] = []


def _x(node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    assert x is not None
    return x


@rule("Gelu")
def gelu(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Emit x/2 (1 + erf(x / sqrt 2)), or the tanh form 1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))."""
    x = _x(node)
    if node.attributes.get_string("approximate", "none") == "tanh":
        cube = emit.op("Mul", [emit.op("Mul", [x, x]), x])
        inner = emit.op("Add", [x, emit.op("Mul", [cube, emit.like(0.044715, x)])])
        inner = emit.op("Mul", [inner, emit.like(math.sqrt(2 / math.pi), x)])
        gate = emit.op("Tanh", [inner])
    else:
        gate = emit.op("Erf", [emit.op("Mul", [x, emit.like(math.sqrt(0.5), x)])])
    gate = emit.op("Add", [gate, emit.like(1.0, x)])
    return [emit.op("Mul", [emit.op("Mul", [x, emit.like(0.5, x)]), gate])]


@rule("Mish")
def mish(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Emit x tanh(softplus(x))."""
    x = _x(node)
    return [emit.op("Mul", [x, emit.op("Tanh", [emit.op("Softplus", [x])])])]


@rule("Swish")
def swish(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Emit x sigmoid(alpha x)."""
    x = _x(node)
    alpha = node.attributes.get_float("alpha", 1.0)
    inner = x if alpha == 1 else emit.op("Mul", [x, emit.like(alpha, x)])
    return [emit.op("Mul", [x, emit.op("Sigmoid", [inner])])]


@rule("HardSwish")
def hard_swish(node: ir.Node, emit: Emitter) -> Sequence[ir.Value]:
    """Emit x max(0, min(1, x/6 + 1/2))."""
    x = _x(node)
    gate = emit.op("HardSigmoid", [x], {"alpha": 1 / 6, "beta": 0.5})
    return [emit.op("Mul", [x, gate])]


@rule("Relu", first=14)
def relu_of_integers(node: ir.Node, emit: Emitter) -> Sequence[ir.Value] | None:
    """Emit max(x, 0) where x is an integer: Relu takes floats only before opset 14."""
    x = _x(node)
    if x.dtype is None or not np.issubdtype(x.dtype.numpy(), np.integer):
        return None
    return [emit.op("Max", [x, emit.like(0, x)])]
