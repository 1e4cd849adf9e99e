"""Scale labels: how many bits after the point EZKL believes each tensor to have.

A label is bookkeeping, the integers do not know it. EZKL's rule for each operation, in order:

1. Constants get `param_scale`, inputs `input_scale`, integers and booleans 0.
2. Where operands need the same label (Add, Sub, Max, Min, comparisons, Concat, branches of Where),
   a constant that nobody else reads is quantised again at the largest label of all operands; any
   other operand below it is multiplied by a power of two, for one cell an element.
3. The output's label follows: sums for products, a multiple for powers, the same for the rest.
4. A label above the threshold is brought down to it by a division, unless the operation is an
   identity, an input or a constant. This is the rescale, by far the dearest thing there is.

Multiplying by a scalar constant 2 ** -k below 1 is an identity whose label is k higher: that is how
a graph asks for a rescale of whatever reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from odp.backends.ezkl.cost_network import Network, Operation
from odp.backends.ezkl.run_arguments import RunArguments

__all__ = ["Labelled", "label_network", "quantise"]

Array = npt.NDArray[Any]

_SAME_LABEL = {
    **dict.fromkeys(("Add", "Sub", "Max", "Min"), (0, 1)),
    **dict.fromkeys(("Less", "LessEqual", "Greater", "GreaterEqual", "Equal"), (0, 1)),
    "Iff": (1, 2),
    "Concat": tuple(range(100)),
}
_ZERO = frozenset(
    {"And", "Or", "Xor", "Not", "Sign", "Less", "LessEqual", "Greater", "GreaterEqual"}
)


@dataclass
class Labelled:
    """An operation with what EZKL decides about it.

    Attributes:
        number: of the operation in the network.
        operation: itself.
        form: what EZKL makes of it: the kind, or "Identity", "Rectify", "PowerTable", ...
        operands: those that are left; constants that became parameters are gone.
        labels_in: labels of the operands before any of them is multiplied.
        multipliers: factor for each operand that has to be brought up to the others' label.
        label_before: label of the result as computed.
        label: label of the result after a rescale, if there is one.
        uses: readers that are left.
        parameters: what EZKL takes from constant operands.
    """

    number: int
    operation: Operation
    form: str
    operands: tuple[int, ...]
    labels_in: tuple[int, ...] = ()
    multipliers: tuple[float, ...] = ()
    label_before: int = 0
    label: int = 0
    uses: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def divisor(self) -> float:
        """What EZKL divides the result by; 1 where it leaves it alone."""
        return 2.0 ** (self.label_before - self.label)


def quantise(value: Array, label: int) -> npt.NDArray[np.float64]:
    """Integers, as floats, that stand for a constant; halves away from zero as Rust rounds."""
    scaled = np.asarray(value, np.float32).astype(np.float64) * 2.0**label
    return np.copysign(np.floor(np.abs(scaled) + 0.5), scaled) + 0.0


def label_network(network: Network, arguments: RunArguments) -> list[Labelled]:
    """Work labels out, in the order in which EZKL lays operations out."""
    labelled: dict[int, Labelled] = {}
    users = network.users()
    order = network.order()
    # Inputs that nobody reads are laid out all the same.
    for number in [*order, *(i for i in network.inputs if i not in users)]:
        operation = network[number]
        uses = max(len(users.get(number, ())), 1)
        entry = Labelled(number, operation, operation.kind, operation.inputs, uses=uses)
        labelled[number] = entry
        if operation.kind == "Const":
            entry.label = entry.label_before = _constant_label(operation, arguments)
            continue
        if operation.kind == "Input":
            label = arguments.input_scale if operation.category == "float" else 0
            entry.label = entry.label_before = label
            continue
        _parse(entry, labelled, arguments)
        _bring_to_one_label(entry, labelled)
        entry.label_before = _label(entry, arguments)
        entry.label = entry.label_before
        exempt = entry.form == "Identity" or _vanishes(network, users, number)
        if entry.label_before > arguments.threshold and not exempt:
            entry.label = arguments.threshold
    return [
        entry for entry in labelled.values() if entry.operation.kind != "Const" or entry.uses > 0
    ]


def _vanishes(network: Network, users: dict[int, list[int]], number: int) -> bool:
    """Whether tract gets rid of an axis of size 1, so that the next operation is rescaled instead.

    The change of axes has to reach a matrix product, or another change of axes, on every way, and
    must not meet a tensor that is not changed.
    """
    operation = network[number]
    if operation.kind != "Axes":
        return False
    before = network[operation.inputs[0]].shape
    if [n for n in before if n > 1] != [n for n in operation.shape if n > 1]:
        return False
    changed, pending = {number}, [number]
    while pending:
        wire = pending.pop()
        if wire in network.outputs or not users[wire]:
            return False
        for reader in users[wire]:
            other = network[reader]
            if other.kind in ("EinSum", "Axes"):
                continue
            if other.kind in ("Concat", "Iff", "Broadcast", "Gather", "Softmax", "Unknown"):
                return False
            if any(i not in changed and network[i].kind != "Const" for i in other.inputs):
                return False
            if reader not in changed:
                changed.add(reader)
                pending.append(reader)
    return True


def _constant_label(operation: Operation, arguments: RunArguments) -> int:
    if operation.category != "float":
        return 0
    assert operation.value is not None
    if arguments.rebase_frac_zero_constants and bool(
        np.all(np.asarray(operation.value) == np.floor(operation.value))
    ):
        return 0
    return arguments.param_scale


def _drop(entry: Labelled, labelled: dict[int, Labelled], index: int) -> Array:
    """Turn a constant operand into a parameter of the operation."""
    constant = labelled[entry.operands[index]]
    constant.uses -= 1
    entry.operands = tuple(o for i, o in enumerate(entry.operands) if i != index)
    assert constant.operation.value is not None
    return constant.operation.value


def _parse(entry: Labelled, labelled: dict[int, Labelled], arguments: RunArguments) -> None:
    """Decide what EZKL makes of an operation: constants may become parameters."""
    constants = [i for i, o in enumerate(entry.operands) if labelled[o].operation.kind == "Const"]
    kind = entry.operation.kind
    if kind in ("Mul", "Max") and constants:
        index = constants[0]
        value = labelled[entry.operands[index]].operation.value
        assert value is not None
        if value.size == 1 and kind == "Mul":
            bits = _free_bits(float(np.float32(value.reshape(-1)[0])))
            if bits is not None:
                _drop(entry, labelled, index)
                entry.form, entry.parameters["bits"] = "Identity", bits
        elif value.size == 1 and float(value.reshape(-1)[0]) == 0 and kind == "Max":
            _drop(entry, labelled, index)
            entry.form = "Rectify"
    elif kind == "Pow" and 1 in constants:
        exponent = float(_drop(entry, labelled, 1).reshape(-1)[0])
        entry.parameters["exponent"] = exponent
        if exponent != math.floor(exponent):
            entry.form = "PowerTable"
    elif kind == "Pow" and 0 in constants:
        entry.parameters["base"] = float(_drop(entry, labelled, 0).reshape(-1)[0])
        entry.form = "Exponential"
    elif kind == "Prod":
        inner = labelled[entry.operands[0]].operation
        entry.parameters["length"] = inner.elements // entry.operation.elements
    elif kind == "Cast":
        label = labelled[entry.operands[0]].label
        to_integer = entry.operation.category != "float"
        entry.form = "Floor" if to_integer and label != 0 else "Identity"


def _free_bits(factor: float) -> int | None:
    """The k of a factor 2 ** -k with k > 0, for which EZKL moves the label alone."""
    if not 0 < factor < 1:
        return None
    bits = math.log2(1.0 / factor)
    return int(bits) if bits == math.floor(bits) else None


def _bring_to_one_label(entry: Labelled, labelled: dict[int, Labelled]) -> None:
    positions = _SAME_LABEL.get(entry.form, ())
    labels = [labelled[o].label for o in entry.operands]
    for index in positions[: len(entry.operands)]:
        operand = labelled[entry.operands[index]]
        if operand.operation.kind == "Const" and operand.uses == 1 and max(labels) > labels[index]:
            labels[index] = operand.label = operand.label_before = max(labels)
    entry.labels_in = tuple(labels)
    relevant = {labels[index] for index in positions[: len(labels)]}
    largest = max(labels, default=0)
    entry.multipliers = tuple(
        2.0 ** (largest - label) if len(relevant) > 1 and index in positions else 1.0
        for index, label in enumerate(labels)
    )


def _label(entry: Labelled, arguments: RunArguments) -> int:
    labels = [
        label + round(math.log2(multiplier))
        for label, multiplier in zip(entry.labels_in, entry.multipliers, strict=True)
    ]
    largest = max(arguments.input_scale, arguments.param_scale)
    rules: dict[str, Callable[[], int]] = {
        "Mul": lambda: labels[0] + labels[1],
        "EinSum": lambda: sum(labels),
        "Square": lambda: 2 * labels[0],
        "MeanOfSquares": lambda: 2 * labels[0],
        "Pow": lambda: labels[0] * max(int(entry.parameters["exponent"]), 0),
        "Prod": lambda: labels[0] * entry.parameters["length"],
        "Identity": lambda: labels[0] + entry.parameters.get("bits", 0),
        "LeakyRelu": lambda: labels[0] + arguments.param_scale,
        "Iff": lambda: labels[1],
        "Recip": lambda: max(largest, labels[0]),
        "Rsqrt": lambda: max(largest, labels[0]),
        "Softmax": lambda: labels[0] + max(largest, labels[0]),
        "Unknown": lambda: labels[0] if labels else 0,
    }
    if entry.form in _ZERO:
        return 0
    rule = rules.get(entry.form)
    return rule() if rule is not None else labels[0]
