"""Attention masks: the huge negative numbers that a softmax turns into zeros.

Exporters write a mask as -1e4, as the smallest float32 (-3.4e38) or as -inf, stored in the model
and added to the scores or selected by Where.  No polynomial has such a number in its domain and no
fixed-point format can hold it.  Any number that is smaller than every score by more than about 32
does the same (exp(-32) = 1.3e-14), and the calibrated scores say which one that is.
"""

from __future__ import annotations

import numpy as np

from odp.rewriter.graph import Node, Value
from odp.rewriter.site import SiteBuilder

__all__ = ["finite_mask"]

# Operations that hand a mask on; for each, the operands that may hold it.
_CARRIERS: dict[str, tuple[int, ...]] = {
    "add": (0, 1),
    "where": (1, 2),
    "mul": (0, 1),
    **dict.fromkeys(("expand", "cast", "reshape", "squeeze", "unsqueeze", "slice"), (0,)),
    **dict.fromkeys(("transpose", "tile", "identity", "gather"), (0,)),
    "ai.onnx::Trilu": (0,),
}


def finite_mask(x: Value, build: SiteBuilder) -> Value:
    """Make the stored masks that reach `x` finite; `x` itself stays the same value.

    A mask shared by several softmaxes is changed once.  Only constants that reach nothing but
    softmaxes through additions, selections and moves of data are touched.
    """
    value = build.mask_value
    if value is None:
        return x
    replaced = _replace_upwards(x, value, build)
    if replaced:
        masks = "mask" if replaced == 1 else "masks"
        build.note(f"{replaced} stored attention {masks} became {value:g}")
    return x


def _replace_upwards(x: Value, value: float, build: SiteBuilder) -> int:
    replaced = 0
    stack = [x]
    seen: set[Value] = set()
    while stack:
        node = stack.pop().producer
        if node is None or node.op not in _CARRIERS or node.emitted:
            continue
        for index in _CARRIERS[node.op]:
            operand = node.inputs[index] if index < len(node.inputs) else None
            if operand is None or operand in seen or not operand.is_floating:
                continue
            seen.add(operand)
            finite = _finite(operand, value)
            if finite is not None:
                new = build.constant(finite, operand.dtype or "float32")
                build.graph.replace_input(node, index, new)
                replaced += 1
            elif _only_reaches_softmax(operand):
                stack.append(operand)
    return replaced


def _finite(operand: Value, value: float) -> np.ndarray | None:
    """The array of a stored mask with its huge entries replaced; None if it is no mask."""
    array = operand.constant
    if array is None or array.dtype.kind not in "fV" or array.size == 0:
        return None
    # -1e4 is the smallest mask in use; scores and biases stay far above it.
    huge = array.astype(np.float64) <= -1e3
    if not huge.any() or (array.astype(np.float64) > 1e3).any():
        return None
    return np.where(huge, value, array.astype(np.float64))


def _only_reaches_softmax(value: Value) -> bool:
    return all(_carries(node) for node in value.consumers)


def _carries(node: Node) -> bool:
    # A rewritten softmax reads its scores through emitted nodes.
    return node.op in _CARRIERS or node.op == "softmax" or node.emitted
