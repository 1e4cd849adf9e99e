"""How large the tensors of a float network get, and inputs that make them larger.

Expressions hold on the ranges that calibration saw; outside of them a circuit proves something else
than the model, and nobody would notice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.rewriter.execution import Session
from odp.rewriter.onnx_graph import module_path

__all__ = ["calibrated_ranges", "run_in_range"]

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Records = Mapping[str, Mapping[str, Any]]

# A tensor of zeros has a range, too.
_SMALLEST = 2.0**-60
_REAL = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def calibrated_ranges(
    network: onnx.ModelProto, inputs: Sequence[Arrays], margin: float
) -> dict[str, dict[str, Any]]:
    """Node, module and log2 of the largest absolute value of every tensor, by name.

    Args:
        network: in real numbers.
        inputs: by name.
        margin: by how much larger than that a value may get, as a share.
    """
    session, watched = _watching(network)
    largest = dict.fromkeys(watched, 0.0)
    for one in inputs:
        values = session.run(one)
        for name in watched:
            largest[name] = max(largest[name], _largest(values[name]))
    return {
        name: {
            "node": node.name or name,
            "module": module_path(node),
            "largest": math.log2(max((1.0 + margin) * largest[name], _SMALLEST)),
        }
        for name, node in watched.items()
    }


def run_in_range(network: onnx.ModelProto, records: Records, inputs: Arrays) -> dict[str, Array]:
    """The outputs of a float network for an input that stays within the calibrated ranges.

    Args:
        network: in real numbers.
        records: as `calibrated_ranges` gives them.
        inputs: by name.

    Raises:
        OdpError: a tensor leaves its range; names its node.
    """
    session, watched = _watching(network)
    values = session.run(inputs)
    for name in watched:
        record, reached = records.get(name), _largest(values[name])
        if record is None or reached <= 2.0 ** record["largest"]:
            continue
        where = f" ({record['module']})" if record["module"] else ""
        raise OdpError(
            f"the input is unlike the calibration data: node '{record['node']}'{where} reaches "
            f"{reached:.4g}, and the circuit was made for {2.0 ** record['largest']:.4g}; "
            "calibrate on such inputs too"
        )
    return {name: values[name] for name in session.outputs}


def _watching(network: onnx.ModelProto) -> tuple[Session, dict[str, ir.Node]]:
    """A session that returns every tensor, and the nodes that these come from, by name."""
    from odp.backends.onnx.freeze import run_shape_inference

    model = run_shape_inference(ir.from_proto(network))
    values = {
        value.name or "": node
        for node in model.graph
        for value in node.outputs
        if value.dtype in _REAL
    }
    outputs = {value.name for value in model.graph.outputs}
    inner = [
        value
        for node in model.graph
        for value in node.outputs
        if value.name in values and value.name not in outputs
    ]
    return Session(model, inner), values


def _largest(array: Array) -> float:
    # Something that is no number is in no range.
    return float(np.nan_to_num(np.abs(array), nan=np.inf).max(initial=0.0))
