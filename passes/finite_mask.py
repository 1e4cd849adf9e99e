"""Attention masks: the huge negative numbers that a softmax turns into zeros.

Exporters write a mask as -1e4, as the smallest float32 (-3.4e38) or as -inf, stored in the model
and added to the scores, subtracted with the opposite sign, or selected by Where.  No polynomial has
such a number in its domain and no fixed-point format can hold it.  Any number that is smaller than
every score by more than about 32 does the same (exp(-32) = 1.3e-14), and the calibrated scores say
which one that is.

A row that is masked altogether stays what it was where masks are selected.  Where -3.4e38 is added,
the sum forgets the scores and the row is uniform; with a small number the row is the softmax of its
scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.rewriter.graph import Node, Value
from odp.rewriter.site import SiteBuilder

__all__ = ["finite_mask", "stored_mask"]

# Operations that hand a mask on; for each, the operands that may hold it, and with which sign.
_CARRIERS: dict[str, dict[int, int]] = {
    "add": {0: 1, 1: 1},
    "sub": {0: 1, 1: -1},
    "where": {1: 1, 2: 1},
    "mul": {0: 1, 1: 1},
    **{move: {0: 1} for move in ("expand", "cast", "reshape", "squeeze", "unsqueeze", "slice")},
    **{move: {0: 1} for move in ("transpose", "tile", "identity", "gather", "ai.onnx::Trilu")},
}
# The way from scores to a mask is short; this keeps long residual paths from being searched.
_MAX_SEARCHED = 64
# -1e4 is the smallest mask in use; scores and biases stay far above it.
_HUGE = -1e3


def finite_mask(x: Value, build: SiteBuilder) -> bool:
    """Make the stored masks that reach `x` finite; `x` itself stays the same value.

    A mask shared by several softmaxes is changed once.  Only constants that reach nothing but
    softmaxes through additions, selections and moves of data are touched.

    Returns:
        Whether masks that reach `x` are finite now.
    """
    value = build.mask_value
    if value is None:
        return False
    finite = False
    stack = [(x, 1)]
    seen: set[Value] = set()
    while stack and len(seen) < _MAX_SEARCHED:
        current, sign = stack.pop()
        node = current.producer
        if node is None or node.op not in _CARRIERS or node.emitted:
            continue
        for index, factor in _CARRIERS[node.op].items():
            operand = node.inputs[index] if index < len(node.inputs) else None
            if operand is None or not operand.is_floating:
                continue
            array = operand.constant
            if array is None:
                if operand not in seen:
                    seen.add(operand)
                    stack.append((operand, sign * factor))
                continue
            new = _finite(array, value, sign * factor)
            finite |= new is None and bool((array == sign * factor * value).any())
            if new is not None and _only_reaches_softmax(node.output):
                constant = build.constant(new, operand.dtype or "float32")
                build.graph.replace_input(node, index, constant)
                build.note(f"stored attention masks became {value:g}")
                finite = True
    return finite


def stored_mask(x: Value) -> tuple[Value, NDArray[np.float64]] | None:
    """Scores and what keeps them, where `x` is scores plus a stored mask of 0 and huge numbers.

    Returns:
        The scores, and an array of ones and zeros (masked) that broadcasts to them; None where the
        mask is not stored, is not added last, or biases what it keeps.
    """
    node = x.producer
    if node is None or node.op != "add":
        return None
    for scores, mask in (node.inputs[:2], node.inputs[1::-1]):
        array = None if mask is None else mask.constant
        if scores is None or array is None or array.dtype.kind not in "fV":
            continue
        numbers = array.astype(np.float64)
        masked = numbers <= _HUGE
        if masked.any() and not numbers[~masked].any():
            return scores, np.where(masked, 0.0, 1.0)
    return None


def _finite(array: NDArray[Any], value: float, sign: int) -> NDArray[np.float64] | None:
    """A stored mask with its huge entries replaced; None if it is no mask."""
    if array.dtype.kind not in "fV" or array.size == 0:
        return None
    numbers = sign * array.astype(np.float64)
    huge = numbers <= _HUGE
    if not huge.any() or (numbers > -_HUGE).any():
        return None
    return sign * np.where(huge, value, numbers)


def _only_reaches_softmax(value: Value) -> bool:
    """Whether everything that is computed from `value` goes through the exp of a softmax."""
    stack, seen = [value], {value}
    while stack:
        current = stack.pop()
        if current.is_output:
            return False
        for node in current.consumers:
            if _ends_in_exp(node):
                continue
            if node.op not in _CARRIERS:
                return False
            if node.output not in seen:
                seen.add(node.output)
                stack.append(node.output)
    return True


def _ends_in_exp(node: Node) -> bool:
    if node.op in ("softmax", "exp"):
        return True
    if node.op in ("sub", "reduce_max"):
        # x - max(x) of a rewritten softmax, or of one that is spelled out.
        readers = node.output.consumers
        wanted = ("exp",) if node.op == "sub" else ("sub",)
        return node.emitted or (bool(readers) and all(r.op in wanted for r in readers))
    return False
