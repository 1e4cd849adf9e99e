"""A scheduled circuit: simulated in exact integers, and written as ONNX for EZKL at scale 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from odp.backends.ezkl.circuit import Circuit, Node
from odp.backends.ezkl.exact_integers import (
    bits_of,
    exact,
    rescaled,
    rounded_to_float32,
    shifted,
    whole_numbers,
)
from odp.backends.ezkl.roots import ROOT_BITS, reciprocals, roots
from odp.backends.ezkl.schedule import ALIGNED, QUOTIENT_BITS, Schedule, power_of_two
from odp.rewriter.module_paths import MODULE

__all__ = ["IntegerProgram", "Overflow"]

Array = NDArray[Any]

# Bits of integers that a simulation still computes with; float64 ends at 1024.
_LONGEST = 1000
_OPSET, _IR_VERSION = 12, 7


@dataclass(frozen=True)
class Overflow:
    """An integer that does not fit.

    Attributes:
        node: whose tensor it is in.
        bits: that it has.
        limit: bits that there are.
    """

    node: Node
    bits: int
    limit: int


@dataclass(frozen=True)
class IntegerProgram:
    """A circuit in integers.

    Attributes:
        circuit: in real numbers.
        schedule: scales of its tensors.
        digits: log2 of ``decomp_base ** decomp_legs``.
    """

    circuit: Circuit
    schedule: Schedule
    digits: int

    def quantise(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Inputs as integers: ``round(x * 2**scale)``."""
        found = {}
        for name, number in self.circuit.inputs.items():
            shape = self.circuit.nodes[number].shape
            real = np.asarray(inputs[name], np.float64).reshape(shape)
            whole = whole_numbers(np.rint(np.ldexp(real, self.schedule.scales[number])))
            found[name] = whole.astype(object)
        return found

    def simulate(self, integers: Mapping[str, Array]) -> tuple[list[Array], list[Overflow]]:
        """Every tensor in exact integers, and what does not fit.

        Tensors are int64 where the operation that makes them cannot overflow it, and Python
        integers elsewhere.  A rescale rounds as EZKL's does; see `rescaled`.  From an integer of
        more than 1000 bits on, which overflows, all tensors are zeros: chains of squares of such
        ones would take minutes.
        """
        values: list[Array] = []
        overflows: list[Overflow] = []
        for number, node in enumerate(self.circuit.nodes):
            if node.kind == "input":
                values.append(integers[node.name])
                continue
            if node.value is not None:
                values.append(np.empty(0, object))
                continue
            before = self._result(number, node, values)
            limit, k = 125, self.schedule.rescaled(number)
            if node.kind in ("sqrt", "reciprocal"):
                limit, k = self._claim_bits(node), self.schedule.labels[number]
                self._check_operand(node, values[node.inputs[0]], overflows)
            self._check(node, before, limit, overflows)
            if overflows and overflows[-1].bits > _LONGEST:
                before = np.zeros(node.shape, np.int64)
            after = before
            if k:
                after = rescaled(before, k)
                self._check(node, after, min(self.digits - 1, QUOTIENT_BITS), overflows)
            values.append(after)
        return values, overflows

    def outputs(self, values: Sequence[Array]) -> dict[str, Array]:
        """The outputs as real numbers, float64."""
        return {
            name: np.ldexp(values[number].astype(np.float64), -self.schedule.scales[number])
            for name, number in self.circuit.outputs.items()
        }

    def _claim_bits(self, node: Node) -> int:
        return min(self.digits - 1, ROOT_BITS if node.kind == "sqrt" else 125)

    def _check_operand(self, node: Node, value: Array, found: list[Overflow]) -> None:
        """Of a root or a reciprocal: EZKL's prover has nothing to claim for other ones."""
        if node.kind == "sqrt" and min(value.flat) < 0:
            found.append(Overflow(node, int(-min(value.flat)).bit_length(), 0))
        if node.kind == "reciprocal":
            self._check(node, value, self.digits - 2, found)

    def _result(self, number: int, node: Node, values: Sequence[Array]) -> Array:
        if node.kind in ("sqrt", "reciprocal"):
            claimed = roots if node.kind == "sqrt" else reciprocals
            return claimed(values[node.inputs[0]], self.schedule.labels[number])
        power = power_of_two(self.circuit, node)
        if power is not None:
            operand = values[node.inputs[power[0]]]
            return np.broadcast_to(operand, node.shape)
        operands = []
        for place, other in enumerate(node.inputs):
            if self.circuit.nodes[other].value is not None:
                operands.append(self.constant(number, place))
            else:
                shift = self.schedule.alignments.get((number, place), 0)
                operands.append(values[other] if not shift else shifted(values[other], shift))
        return exact(node, operands)

    def constant(self, user: int, place: int) -> Array:
        """A constant as the integers that its user works with."""
        nudge = self.nudges.get((user, place), 0)
        return self._plain_constant(user, place, nudge)

    @cached_property
    def _known(self) -> dict[tuple[int, int, int], Array]:
        """Constants in integers, made once."""
        return {}

    @cached_property
    def nudges(self) -> dict[tuple[int, int], int]:
        """Constants that move by units of their last bit, because others are equal to them.

        tract takes equal constants for one, and EZKL checks the range of a constant with several
        readers, for which large ones have too many bits.  A unit is 6e-8 of the constant.
        """
        seen: Counter[tuple[Any, ...]] = Counter()
        found = {}
        for user, place in sorted(self.schedule.constants):
            if self.circuit.nodes[self.circuit.nodes[user].inputs[place]].elements > 1:
                continue
            integers = self._plain_constant(user, place, 0)
            if abs(int(integers.reshape(()))).bit_length() >= self.digits:
                key = (int(integers.reshape(())),)
                if seen[key]:
                    found[user, place] = seen[key]
                seen[key] += 1
        return found

    def _plain_constant(self, user: int, place: int, nudge: int) -> Array:
        value = self.circuit.nodes[self.circuit.nodes[user].inputs[place]].value
        assert value is not None
        scale = self.schedule.constants[user, place]
        key = (user, place, nudge)
        if key not in self._known:
            self._known[key] = rounded_to_float32(value, scale, nudge)
        return self._known[key]

    @staticmethod
    def _check(node: Node, value: Array, limit: int, found: list[Overflow]) -> None:
        if (bits := bits_of(value)) > limit:
            found.append(Overflow(node, bits, limit))

    def to_onnx(self) -> onnx.ModelProto:
        """The model that EZKL reads with ``input_scale = param_scale = 0``.

        Inputs are integers, outputs real numbers.  A rescale is a product with ``2**-k`` on an
        operand, which costs nothing and makes EZKL divide the result.
        """
        return _Writer(self).model()


class _Writer:
    def __init__(self, program: IntegerProgram) -> None:
        self.program = program
        self.circuit, self.schedule = program.circuit, program.schedule
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.names: dict[int, str] = {i: name for name, i in self.circuit.inputs.items()}
        self.written: dict[tuple[str, int], str] = {}

    def model(self) -> onnx.ModelProto:
        for number, node in enumerate(self.circuit.nodes):
            if node.value is None and node.kind != "input":
                self.names[number] = self._write(number, node)
        outputs = []
        for name, number in self.circuit.outputs.items():
            scale = self.schedule.scales[number]
            factor = self._tensor(f"unscale_{scale}", np.float32(2.0**-scale))
            self._node("Mul", [self.names[number], factor], name, self.circuit.nodes[number])
            outputs.append(_value_info(name, self.circuit.nodes[number].shape))
        inputs = [
            _value_info(name, self.circuit.nodes[i].shape)
            for name, i in self.circuit.inputs.items()
        ]
        graph = onnx.helper.make_graph(
            self.nodes, "circuit", inputs, outputs, list(self.initializers.values())
        )
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="odp",
        )
        onnx.checker.check_model(model)
        return model

    def _write(self, number: int, node: Node) -> str:
        """Write the operations of a node; the name of its integers."""
        power = power_of_two(self.circuit, node)
        if power is not None:
            return self.names[node.inputs[power[0]]]
        operands = [self._operand(number, place) for place in range(len(node.inputs))]
        k = self.schedule.rescaled(number) or self.schedule.labels.get(number, 0)
        if k:
            places = range(len(operands)) if node.kind in ALIGNED else [self._variable(node)]
            for place in places:
                operands[place] = self._scaled(operands[place], -k, node)
        emitted: str = _EMITTERS[node.kind](self, node, operands, f"t{number}")
        return emitted

    def _variable(self, node: Node) -> int:
        """The place of an operand that is no constant."""
        return next(p for p, i in enumerate(node.inputs) if self.circuit.nodes[i].value is None)

    def _operand(self, user: int, place: int) -> str:
        number = self.circuit.nodes[user].inputs[place]
        if self.circuit.nodes[number].value is None:
            up = self.schedule.alignments.get((user, place), 0)
            return self._scaled(self.names[number], up, self.circuit.nodes[user])
        integers = self.program.constant(user, place)
        array = integers.astype(np.float64).astype(np.float32)
        name = f"c{number}_{self.schedule.constants[user, place]}"
        nudge = self.program.nudges.get((user, place), 0)
        return self._tensor(f"{name}_{nudge}" if nudge else name, array)

    def _scaled(self, name: str, exponent: int, node: Node) -> str:
        if not exponent:
            return name
        known = self.written.get((name, exponent))
        if known is None and exponent >= self.program.digits:
            # EZKL checks the range of a constant with several readers, as this one may have.
            step = self.program.digits - 1
            part = self._scaled(name, step, node)
            known = self.written[name, exponent] = self._scaled(part, exponent - step, node)
        if known is None:
            word = f"up_{exponent}" if exponent > 0 else f"down_{-exponent}"
            factor = self._tensor(word, np.float32(2.0**exponent))
            known = self._node("Mul", [name, factor], f"{name}_{word}", node)
            self.written[name, exponent] = known
        return known

    def _tensor(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        self.initializers.setdefault(name, onnx.numpy_helper.from_array(array, name))
        return name

    def _node(
        self, kind: str, inputs: Sequence[str], output: str, node: Node, **attributes: Any
    ) -> str:
        made = onnx.helper.make_node(kind, list(inputs), [output], name=output, **attributes)
        for key, value in ((MODULE, node.module), ("odp.node", node.name)):
            if value:
                made.metadata_props.add(key=key, value=value)
        self.nodes.append(made)
        return output


def _value_info(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))


def _plain(kind: str) -> Any:
    def emit(w: _Writer, node: Node, operands: list[str], name: str) -> str:
        return w._node(kind, operands, name, node)

    return emit


def _reduced(kind: str) -> Any:
    def emit(w: _Writer, node: Node, operands: list[str], name: str) -> str:
        axes = list(node.attributes["axes"])
        return w._node(kind, operands, name, node, axes=axes, keepdims=1)

    return emit


def _reshape(w: _Writer, node: Node, operands: list[str], name: str) -> str:
    shape = w._tensor(f"{name}_shape", np.array(node.shape, np.int64))
    return w._node("Reshape", [*operands, shape], name, node)


def _transpose(w: _Writer, node: Node, operands: list[str], name: str) -> str:
    return w._node("Transpose", operands, name, node, perm=list(node.attributes["order"]))


def _slice(w: _Writer, node: Node, operands: list[str], name: str) -> str:
    axes, starts, stops, steps = zip(*node.attributes["parts"], strict=True)
    columns = {"starts": starts, "ends": stops, "axes": axes, "steps": steps}
    parts = [w._tensor(f"{name}_{key}", np.array(x, np.int64)) for key, x in columns.items()]
    return w._node("Slice", [*operands, *parts], name, node)


def _concat(w: _Writer, node: Node, operands: list[str], name: str) -> str:
    return w._node("Concat", operands, name, node, axis=node.attributes["axis"])


def _gather(w: _Writer, node: Node, operands: list[str], name: str) -> str:
    indices = w._tensor(f"{name}_indices", node.attributes["indices"])
    return w._node("Gather", [*operands, indices], name, node, axis=node.attributes["axis"])


def _broadcast(w: _Writer, node: Node, operands: list[str], name: str) -> str:
    ones = w._tensor(f"{name}_ones", np.ones(node.shape, np.float32))
    return w._node("Mul", [*operands, ones], name, node)


_EMITTERS: dict[str, Any] = {
    "abs": _plain("Abs"),
    "add": _plain("Add"),
    "broadcast": _broadcast,
    "concat": _concat,
    "gather": _gather,
    "matmul": _plain("MatMul"),
    "max": _plain("Max"),
    "min": _plain("Min"),
    "mul": _plain("Mul"),
    "neg": _plain("Neg"),
    "reciprocal": _plain("Reciprocal"),
    "reduce_max": _reduced("ReduceMax"),
    "relu": _plain("Relu"),
    "reshape": _reshape,
    "slice": _slice,
    "sqrt": _plain("Sqrt"),
    "sub": _plain("Sub"),
    "sum": _reduced("ReduceSum"),
    "transpose": _transpose,
}
