"""Opset-12 forms of LSTM, GRU and RNN with the batch as first axis."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from odp.backends.onnx.legalise_emitter import Emitter, rule

__all__: list[str] = []


@rule("GRU", "LSTM", "RNN", first=14)
def recurrent_layout(node: ir.Node, emit: Emitter) -> Sequence[ir.Value | None] | None:
    """Drop `layout` 0; for 1 transpose the sequence and the states in and out."""
    layout = node.attributes.get_int("layout", 0)
    node.attributes.pop("layout", None)
    if not layout:
        return None
    inputs = list(node.inputs)
    # 0 is the sequence, 5 and 6 are the initial states; each has the batch in front.
    for index in (0, 5, 6):
        if index < len(inputs) and inputs[index] is not None:
            inputs[index] = emit.op("Transpose", [inputs[index]], {"perm": [1, 0, 2]})
    first = emit.op(node.op_type, inputs, outputs=len(node.outputs))
    inner = first.producer()
    assert inner is not None
    inner.attributes.update(node.attributes)
    outputs: list[ir.Value | None] = []
    for index, (value, wanted) in enumerate(zip(inner.outputs, node.outputs, strict=True)):
        if not wanted.name:
            value.name = ""
            outputs.append(None)
            continue
        perm = [2, 0, 1, 3] if index == 0 else [1, 0, 2]
        outputs.append(emit.op("Transpose", [value], {"perm": perm}))
    return outputs
