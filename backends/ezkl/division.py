"""Division by a variable becomes multiplication by a polynomial or iteration for 1/x.

Or by EZKL's own reciprocal, where a policy keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from numpy.typing import NDArray

from odp.approximations.algebra import OperatorAlgebra
from odp.approximations.approximant import Approximant
from odp.approximations.errors import OdpError
from odp.approximations.interval import Interval
from odp.backends.ezkl.circuit import Circuit, Node
from odp.backends.ezkl.homogeneous import approximate_homogeneous

__all__ = ["Division", "without_division"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Division:
    """What became of one division.

    Attributes:
        node: where it was.
        low: smallest denominator that the expression holds for, or that was seen.
        high: largest.
        approximant: of the reciprocal; None for EZKL's own.
    """

    node: Node
    low: float
    high: float
    approximant: Approximant | None


@dataclass(frozen=True)
class _Value:
    """A node of the circuit that Python's operators work on."""

    circuit: Circuit
    number: int
    name: str
    module: str

    def _with(self, kind: str, other: _Value) -> _Value:
        number = self.circuit.add(
            kind, self.number, other.number, name=self.name, module=self.module
        )
        return _Value(self.circuit, number, self.name, self.module)

    def __add__(self, other: _Value) -> _Value:
        return self._with("add", other)

    def __sub__(self, other: _Value) -> _Value:
        return self._with("sub", other)

    def __mul__(self, other: _Value) -> _Value:
        return self._with("mul", other)


@dataclass
class _Copy:
    circuit: Circuit = field(default_factory=Circuit)
    numbers: list[int] = field(default_factory=list)


def without_division(
    circuit: Circuit,
    samples: Sequence[Sequence[Array]],
    error: float,
    margin: float,
    keeps: Callable[[Circuit, Node], bool] = lambda circuit, node: False,
) -> tuple[Circuit, list[Division]]:
    """The circuit with an expression for every reciprocal of a variable.

    Args:
        circuit: any.
        samples: values of all nodes, for each calibration input.
        error: relative error of each reciprocal.
        margin: share of their octaves by which the range of denominators grows on each side.
        keeps: whether a division is left to EZKL.

    Raises:
        OdpError: a denominator comes close to zero.
    """
    copy = _Copy()
    found: list[Division] = []
    for node in circuit.nodes:
        inputs = [copy.numbers[i] for i in node.inputs]
        if node.kind == "div":
            values = [values[node.inputs[1]] for values in samples]
            if keeps(circuit, node):
                division = _kept(node, values)
            else:
                division = _division(node, values, error, margin)
            found.append(division)
            copy.numbers.append(_emitted(copy.circuit, division, *inputs))
        elif node.kind == "input":
            copy.numbers.append(copy.circuit.input(node.name, node.shape))
        elif node.value is not None:
            copy.numbers.append(copy.circuit.constant(node.value, node.name, node.module))
        else:
            copy.numbers.append(
                copy.circuit.add(
                    node.kind, *inputs, name=node.name, module=node.module, **node.attributes
                )
            )
    copy.circuit.outputs = {name: copy.numbers[i] for name, i in circuit.outputs.items()}
    return copy.circuit.without_unused(), found


def _division(node: Node, denominators: Sequence[Array], error: float, margin: float) -> Division:
    low = min(float(values.min()) for values in denominators)
    high = max(float(values.max()) for values in denominators)
    if low <= 0.0 <= high:
        raise OdpError(
            f"node {node.where} divides by values from {low:.3g} to {high:.3g}: 1/x has no "
            "polynomial across zero; bound the denominator away from it"
        )
    sign = 1.0 if low > 0 else -1.0
    near, far = sorted((abs(low), abs(high)))
    factor = float((far / near) ** margin * (1.0 + margin))
    near, far = near / factor, far * factor
    domain = Interval(near, far) if sign > 0 else Interval(-far, -near)
    approximant = approximate_homogeneous("reciprocal", domain, error)
    return Division(node, domain.lo, domain.hi, approximant)


def _kept(node: Node, denominators: Sequence[Array]) -> Division:
    low = min(float(values.min()) for values in denominators)
    high = max(float(values.max()) for values in denominators)
    if any(not values.all() for values in denominators):
        raise OdpError(f"node {node.where} divides by zero; bound the denominator away from it")
    return Division(node, low, high, None)


def _emitted(circuit: Circuit, division: Division, numerator: int, denominator: int) -> int:
    node = division.node

    def constant(value: Fraction) -> _Value:
        return _Value(circuit, circuit.constant(float(value)), node.name, node.module)

    if division.approximant is None:
        return _times(circuit, node, numerator, _reciprocal(circuit, node, denominator))
    x = _Value(circuit, denominator, node.name, node.module)
    result: int = division.approximant.expression.emit(OperatorAlgebra(constant), x=x).number
    return _times(circuit, node, numerator, result)


def _reciprocal(circuit: Circuit, node: Node, denominator: int) -> int:
    """EZKL's reciprocal, of a number that can be rescaled: a root can, and a negation."""

    def added(kind: str, x: int) -> int:
        return circuit.add(kind, x, name=node.name, module=node.module)

    if circuit.nodes[denominator].kind == "sqrt":
        return added("reciprocal", denominator)
    return added("neg", added("reciprocal", added("neg", denominator)))


def _times(circuit: Circuit, node: Node, numerator: int, result: int) -> int:
    top = circuit.nodes[numerator].value
    if top is not None and top.size == 1 and float(top.reshape(())) == 1.0:
        return result
    return circuit.add("mul", numerator, result, name=node.name, module=node.module)
