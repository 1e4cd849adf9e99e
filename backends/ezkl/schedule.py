"""Where to rescale: an integer program over the scales of all tensors.

Every tensor is integers at a scale: the real value is ``integer * 2**-scale``.  Products add
scales, sums need equal ones, and only a rescale, which divides by a power of two and rounds, makes
a scale smaller.  A rescale costs 20 to 40 rows an element where everything else costs one or two,
so the program minimises the elements that are rescaled (R. Dathathri et al., EVA, PLDI 2020, place
the rescales of homomorphic encryption likewise, by a waterline).  Its constraints:

- a tensor that is rounded keeps a scale that its effect on the outputs asks for (`noise.py`);
- an integer has at most 125 bits, since EZKL's witness holds 128 with sign;
- quotient and divisor of a rescale fit the digits of a range check, ``base ** legs``, and the
  quotient a float64, in which EZKL computes it (beyond 2^53 its witness is wrong);
- constants are exact in float32, in which ONNX stores them: at most 24 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odp.approximations.errors import OdpError
from odp.approximations.native_output import without_native_output
from odp.backends.ezkl.circuit import Circuit, Node
from odp.backends.ezkl.roots import RECIPROCAL_LABEL, ROOT_BITS

__all__ = [
    "ALIGNED",
    "CLAIMED",
    "COMPARED",
    "QUOTIENT_BITS",
    "Requirements",
    "Schedule",
    "can_rescale",
    "power_of_two",
    "solve",
]

ALIGNED = frozenset({"add", "sub", "max", "min", "concat"})
"""Operations whose operands must be at one scale."""

CLAIMED = frozenset({"sqrt", "reciprocal"})
"""Operations whose result EZKL's prover claims, rounded, and its circuit checks."""

COMPARED = frozenset({"abs", "relu", "max", "min", "reduce_max"})
"""Operations that EZKL makes of signs, for which integers are taken apart into digits."""

QUOTIENT_BITS = 52
_BITS = 125
_CONSTANT_BITS = 24
# A product by a power of two, to bring an operand to a larger scale.
_ALIGNMENT_ROWS = 2.0
# Of two schedules with the same rows that with fewer bits leaves more room for other inputs.
_TIE = 1e-4
_LARGE = 400.0


@dataclass(frozen=True)
class Requirements:
    """What a schedule has to keep.

    Attributes:
        magnitudes: for each node log2 of the largest absolute value, partial sums included.
        precisions: for each node the smallest scale to which it may be rounded.
        digits: log2 of ``decomp_base ** decomp_legs``.
        rescale_rows: of one rescaled element.
        checked_outputs: whether outputs are range-checked.
    """

    magnitudes: Sequence[float]
    precisions: Sequence[float]
    digits: int
    rescale_rows: float
    checked_outputs: bool


@dataclass(frozen=True)
class Schedule:
    """Scales of all tensors.

    Attributes:
        natural: for each node the scale at which its operation leaves it.
        scales: for each node its scale after a rescale, if there is one.
        constants: scale of a constant where it is used, by (user, place among its operands).
        alignments: bits by which an operand is multiplied up, by (user, place).
        rows: what rescales and alignments cost.
        labels: of the operand of each square root and reciprocal.
    """

    natural: tuple[int, ...]
    scales: tuple[int, ...]
    constants: dict[tuple[int, int], int]
    alignments: dict[tuple[int, int], int]
    rows: float
    labels: dict[int, int] = field(default_factory=dict)

    def rescaled(self, number: int) -> int:
        """Bits by which a node is rescaled."""
        return self.natural[number] - self.scales[number]


def power_of_two(circuit: Circuit, node: Node) -> tuple[int, int] | None:
    """For a product with a scalar power of two: the place of the other operand, and the exponent.

    Such a product changes the scale and no integer.
    """
    if node.kind != "mul":
        return None
    for place, operand in enumerate(node.inputs):
        value = circuit.nodes[operand].value
        if value is None or value.size != 1:
            continue
        number = float(value.reshape(()))
        if number > 0 and math.frexp(number)[0] == 0.5:
            return 1 - place, math.frexp(number)[1] - 1
    return None


def can_rescale(circuit: Circuit, node: Node) -> bool:
    """Whether EZKL divides the result of this very operation when an operand's label is raised.

    A label on an operand that only moves (a reshape) goes on to the next operation, tract drops
    additions of zero, and a constant that is added would be multiplied up to the label.
    """
    variables = [i for i in node.inputs if circuit.nodes[i].value is None]
    if node.kind in ("add", "sub"):
        return len(variables) == 2
    return node.kind in ("mul", "matmul", "neg") and power_of_two(circuit, node) is None


class _Program:
    """Rows of the integer program, written down one by one."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.whole: list[int] = []
        self.rows: list[tuple[dict[int, float], float, float]] = []

    def variable(self, low: float, high: float, cost: float = 0.0) -> int:
        self.cost.append(cost)
        self.low.append(low)
        self.high.append(high)
        self.whole.append(1)
        return len(self.cost) - 1

    def constrain(self, terms: Sequence[tuple[int, float]], low: float, high: float) -> None:
        row: dict[int, float] = {}
        for index, factor in terms:
            row[index] = row.get(index, 0.0) + factor
        self.rows.append((row, low, high))

    def solve(self, seconds: float) -> Any:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array

        entries = [(i, j, x) for i, (row, _, _) in enumerate(self.rows) for j, x in row.items()]
        rows, columns, values = zip(*entries, strict=True)
        matrix = coo_array((values, (rows, columns)), shape=(len(self.rows), len(self.cost)))
        bounds = [(low, high) for _, low, high in self.rows]
        with without_native_output():
            return milp(
                np.array(self.cost),
                integrality=np.array(self.whole),
                bounds=Bounds(np.array(self.low), np.array(self.high)),
                constraints=LinearConstraint(
                    matrix.tocsr(), [low for low, _ in bounds], [high for _, high in bounds]
                ),
                options={"time_limit": seconds, "mip_rel_gap": 0.01},
            )


def solve(circuit: Circuit, wanted: Requirements, seconds: float = 10.0) -> Schedule | None:
    """The cheapest schedule, or None where there is none.

    Args:
        circuit: without divisions.
        wanted: what it has to keep.
        seconds: after which the best one so far is taken.

    Raises:
        OdpError: an operation that cannot be scheduled.
    """
    program = _Program()
    scale: dict[int, int] = {}
    natural: dict[int, int] = {}
    flags: dict[int, int] = {}
    constants: dict[tuple[int, int], int] = {}
    alignments: dict[tuple[int, int], int] = {}
    labels: dict[int, int] = {}
    outputs = set(circuit.outputs.values())

    def operand(user: int, place: int) -> list[tuple[int, float]]:
        """The scale of an operand, as terms."""
        number = circuit.nodes[user].inputs[place]
        node = circuit.nodes[number]
        if node.value is None:
            return [(scale[number], 1.0)]
        if (user, place) not in constants:
            added = circuit.nodes[user].kind in ALIGNED
            most = _BITS if added else _CONSTANT_BITS
            highest = most - wanted.magnitudes[number]
            lowest = min(wanted.precisions[number], math.floor(highest))
            constants[user, place] = program.variable(math.ceil(lowest), math.floor(highest))
        return [(constants[user, place], 1.0)]

    for number, node in enumerate(circuit.nodes):
        if node.value is not None:
            continue
        magnitude = wanted.magnitudes[number]
        tie = _TIE * node.elements / 100
        if node.kind == "input":
            lowest = math.ceil(wanted.precisions[number])
            highest = math.floor(wanted.digits - 1 - magnitude)
            natural[number] = program.variable(lowest, max(highest, lowest), tie)
            scale[number] = natural[number]
            continue
        n = natural[number] = program.variable(-_BITS, math.floor(_BITS - magnitude), tie)
        if node.kind in CLAIMED:
            scale[number] = n
            labels[number] = _claimed(program, circuit, number, n, operand(number, 0), wanted)
            continue
        _natural(program, circuit, number, n, operand, alignments)
        if node.kind in COMPARED:
            # The difference of two operands has one bit more.
            widest = max(wanted.magnitudes[i] for i in node.inputs) + 1.0
            program.constrain([(n, 1.0)], -math.inf, wanted.digits - 1 - widest)
        if not can_rescale(circuit, node):
            scale[number] = n
            if number in outputs and wanted.checked_outputs:
                fits = wanted.digits - 1 - magnitude
                program.constrain([(n, 1.0)], -math.inf, fits)
            continue
        s = scale[number] = program.variable(-_BITS, _BITS)
        b = flags[number] = program.variable(0, 1, node.elements * wanted.rescale_rows)
        most = wanted.digits - 1
        program.constrain([(n, 1.0), (s, -1.0)], 0.0, math.inf)
        program.constrain([(n, 1.0), (s, -1.0), (b, -float(most))], -math.inf, 0.0)
        program.constrain([(s, 1.0), (b, -_LARGE)], wanted.precisions[number] - _LARGE, math.inf)
        fits = min(most, QUOTIENT_BITS) - magnitude
        program.constrain([(s, 1.0), (b, _LARGE)], -math.inf, fits + _LARGE)
        if number in outputs and wanted.checked_outputs:
            program.constrain([(s, 1.0)], -math.inf, fits)
    found = program.solve(seconds)
    if found.x is None:
        return None
    x = np.rint(found.x).astype(int)
    count = len(circuit.nodes)
    return Schedule(
        tuple(int(x[natural[i]]) if i in natural else 0 for i in range(count)),
        tuple(int(x[scale[i]]) if i in scale else 0 for i in range(count)),
        {key: int(x[index]) for key, index in constants.items()},
        {key: int(x[index]) for key, index in alignments.items() if x[index] > 0},
        float(found.fun),
        {number: int(x[index]) for number, index in labels.items()},
    )


def _claimed(
    program: _Program,
    circuit: Circuit,
    number: int,
    n: int,
    operand: list[tuple[int, float]],
    wanted: Requirements,
) -> int:
    """Tie the scale of a root or a reciprocal to that of its operand; the label of the operand."""
    node = circuit.nodes[number]
    magnitude, digits = wanted.magnitudes[number], wanted.digits - 1
    program.constrain([(n, 1.0)], wanted.precisions[number], math.inf)
    if node.kind == "sqrt":
        # Without a label nothing is divided; with one the root loses half as many bits.
        label = program.variable(0, ROOT_BITS)
        used = program.variable(0, 1, node.elements * wanted.rescale_rows)
        program.constrain([(label, 1.0), (used, -float(ROOT_BITS))], -math.inf, 0.0)
        program.constrain([(n, 2.0), (label, 1.0), *((i, -f) for i, f in operand)], 0.0, 0.0)
        fits = min(ROOT_BITS, digits) - magnitude
    else:
        label = program.variable(1, RECIPROCAL_LABEL)
        program.constrain([(n, 1.0), (label, -1.0), *operand], 0.0, 0.0)
        # The distance of a neighbour's product is as large as the operand, and half of it more.
        widest = wanted.magnitudes[node.inputs[0]] + 1.0
        program.constrain(operand, -math.inf, digits - widest)
        fits = digits - magnitude
    program.constrain([(n, 1.0), (label, 1.0)], -math.inf, fits)
    return label


def _natural(
    program: _Program,
    circuit: Circuit,
    number: int,
    n: int,
    operand: Any,
    alignments: dict[tuple[int, int], int],
) -> None:
    """Tie a node's natural scale to those of its operands."""
    node = circuit.nodes[number]
    shifted = power_of_two(circuit, node)
    if shifted is not None:
        place, exponent = shifted
        terms = [(n, 1.0), *((i, -f) for i, f in operand(number, place))]
        program.constrain(terms, -exponent, -exponent)
    elif node.kind in ("mul", "matmul"):
        factors = [(i, -f) for place in (0, 1) for i, f in operand(number, place)]
        program.constrain([(n, 1.0), *factors], 0.0, 0.0)
    elif node.kind in ALIGNED:
        for place, other in enumerate(node.inputs):
            terms = [(n, 1.0), *((i, -f) for i, f in operand(number, place))]
            if circuit.nodes[other].value is None:
                rows = circuit.nodes[other].elements * _ALIGNMENT_ROWS
                up = alignments[number, place] = program.variable(0, 100)
                used = program.variable(0, 1, rows)
                program.constrain([(up, 1.0), (used, -100.0)], -math.inf, 0.0)
                terms.append((up, -1.0))
            program.constrain(terms, 0.0, 0.0)
    elif len(node.inputs) == 1:
        program.constrain([(n, 1.0), *((i, -f) for i, f in operand(number, 0))], 0.0, 0.0)
    else:
        raise OdpError(f"node {node.where}: no schedule for '{node.kind}'")
