"""The scheduled ONNX file, run in exact integers as EZKL runs it.

An independent reading of the very file that EZKL gets: a product with ``2**-k`` raises the label of
a tensor by k and changes no integer; the operation that reads labelled operands is computed on
their integers, and its result is divided by ``2**label``, to nearest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.ezkl.circuit import apply
from odp.backends.ezkl.exact_integers import rescaled
from odp.backends.ezkl.roots import reciprocals, roots

__all__ = ["Tensor", "simulate"]

Array = NDArray[Any]

_MOVES = frozenset({"Reshape", "Transpose", "Slice", "Concat", "Gather"})
_KINDS = {
    "Abs": "abs",
    "Add": "add",
    "MatMul": "matmul",
    "Max": "max",
    "Min": "min",
    "Mul": "mul",
    "Neg": "neg",
    "Relu": "relu",
    "Sub": "sub",
}


@dataclass(frozen=True)
class Tensor:
    """Integers, and the bits after their point that EZKL knows of.

    Attributes:
        integers: Python integers, any shape.
        label: bits.
        largest: bits of the largest integer before a rescale, if there was one.
    """

    integers: Array
    label: int = 0
    largest: int = 0

    @property
    def real(self) -> Array:
        """The numbers that the integers stand for, float64."""
        return np.ldexp(self.integers.astype(np.float64), -self.label)


def simulate(
    network: onnx.ModelProto,
    inputs: Mapping[str, Array],
    check: Callable[[str, Tensor], None] = lambda name, tensor: None,
) -> dict[str, Tensor]:
    """Every tensor of a scheduled network.

    Args:
        network: as `IntegerProgram.to_onnx` writes it.
        inputs: integers by name.
        check: called with each tensor as soon as it is known; may raise.

    Raises:
        OdpError: the file is no scheduled network.
    """
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in network.graph.initializer}
    values: dict[str, Tensor] = {}
    for value in network.graph.input:
        shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        values[value.name] = Tensor(np.asarray(inputs[value.name], object).reshape(shape))
    for node in network.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = _run(node, attributes, values, constants)
        check(node.output[0], values[node.output[0]])
    return values


def _run(
    node: onnx.NodeProto,
    attributes: Mapping[str, Any],
    values: Mapping[str, Tensor],
    constants: Mapping[str, Array],
) -> Tensor:
    if (k := _lowered(node, constants)) is not None:
        tensor = values[node.input[0]]
        return Tensor(tensor.integers, tensor.label + k, tensor.largest)
    if node.op_type in _MOVES:
        return _moved(node, attributes, values, constants)
    operands, labels = [], []
    for name in node.input:
        if name in values:
            operands.append(values[name].integers)
            labels.append(values[name].label)
        else:
            operands.append(_integers(constants[name]))
    if node.op_type in ("Sqrt", "Reciprocal"):
        return _claimed(node, operands[0], labels[0])
    if node.op_type in ("ReduceSum", "ReduceMax"):
        kind = "sum" if node.op_type == "ReduceSum" else "reduce_max"
        result = apply(kind, operands, {"axes": tuple(attributes["axes"])})
    elif node.op_type in _KINDS:
        result = apply(_KINDS[node.op_type], operands, {})
    else:
        raise OdpError(f"node '{node.name}' is a {node.op_type}: not of a scheduled network")
    # Labels of a product add up; those of a sum are equal, as the schedule makes them.
    label = sum(labels) if node.op_type in ("Mul", "MatMul") else max(labels, default=0)
    bits = _bits(result)
    if label:
        result = rescaled(np.asarray(result, object), label)
    return Tensor(np.asarray(result, object), 0, bits)


def _claimed(node: onnx.NodeProto, integers: Array, label: int) -> Tensor:
    """A square root or a reciprocal, divided by the label that it keeps of its operand."""
    if node.op_type == "Sqrt" and any(x < 0 for x in integers.flat):
        raise OdpError(
            f"the input is unlike the calibration data: node '{node.name}' takes the square root "
            "of a negative number; calibrate on such inputs too"
        )
    claimed = (roots if node.op_type == "Sqrt" else reciprocals)(integers, label)
    return Tensor(rescaled(claimed, label) if label else claimed, 0, _bits(claimed))


def _lowered(node: onnx.NodeProto, constants: Mapping[str, Array]) -> int | None:
    """The k of a product with ``2**-k``, which moves the label."""
    if node.op_type != "Mul" or node.input[1] not in constants:
        return None
    factor = constants[node.input[1]]
    if factor.size != 1 or not 0.0 < float(factor.reshape(())) < 1.0:
        return None
    return -(math.frexp(float(factor.reshape(())))[1] - 1)


def _moved(
    node: onnx.NodeProto,
    attributes: Mapping[str, Any],
    values: Mapping[str, Tensor],
    constants: Mapping[str, Array],
) -> Tensor:
    first = values[node.input[0]]
    x = first.integers
    if node.op_type == "Reshape":
        return Tensor(x.reshape(constants[node.input[1]]), first.label)
    if node.op_type == "Transpose":
        return Tensor(x.transpose(attributes["perm"]), first.label)
    if node.op_type == "Gather":
        indices = constants[node.input[1]]
        return Tensor(np.take(x, indices, axis=attributes["axis"]), first.label)
    if node.op_type == "Concat":
        parts = [
            values[name].integers if name in values else _integers(constants[name])
            for name in node.input
        ]
        return Tensor(np.concatenate(parts, axis=attributes["axis"]), first.label)
    starts, stops, axes, steps = (constants[name] for name in node.input[1:])
    index = [slice(None)] * x.ndim
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        index[int(axis)] = slice(int(start), int(stop), int(step))
    return Tensor(x[tuple(index)], first.label)


def _integers(array: Array) -> Array:
    """A stored constant in integers; what it meets are Python integers, so nothing overflows."""
    whole = array.astype(np.float64)
    if np.abs(whole).max(initial=0.0) < 2.0**62:
        return whole.astype(np.int64)
    return np.asarray(np.frompyfunc(int, 1, 1)(whole), object)


def _bits(integers: Array) -> int:
    return max((abs(int(x)) for x in np.asarray(integers).flat), default=0).bit_length()
