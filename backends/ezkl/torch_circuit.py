"""A scheduled circuit in torch: the values that its integers stand for, and gradients.

Every tensor is kept as the real number of its integers, ``integer * 2**-scale``, in float64, so
products with powers of two are exact and so is everything else whose integers have at most 53 bits.
Roundings are where the circuit has them (inputs, constants, rescales) and how it has them; in the
backward pass they are passed straight through (Y. Bengio et al., 2013).

Longer integers lose what float64 loses: 2^-53 of a product or of the terms of a sum, per operation.
A rescale after them can then fall on the other side of a half, and be one unit of its scale off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from odp.approximations.errors import OdpError
from odp.backends.ezkl.circuit import Node
from odp.backends.ezkl.integer_program import IntegerProgram
from odp.backends.ezkl.schedule import power_of_two

__all__ = ["TorchCircuit", "rounded_constant"]

_MANTISSA = 24
_EXACT_BITS = 1023


class TorchCircuit(nn.Module):
    """A circuit of integers as a module over a batch of windows.

    Attributes:
        program: the circuit and its scales.
        replaced: modules that give the value of a constant, float tensors of its shape, by the
            number of its node.  They are rounded like the constants whose place they take.
    """

    def __init__(
        self,
        program: IntegerProgram,
        limits: Sequence[float] | None = None,
        *,
        rounding: bool = True,
    ) -> None:
        """Take the constants over.

        Args:
            program: the circuit and its scales.
            limits: for each node log2 of the largest value that the prover accepts; None accepts
                everything.
            rounding: False leaves all roundings out, which is the circuit in real numbers.

        Raises:
            OdpError: a root or a reciprocal that EZKL's prover claims, which has no gradient here.
        """
        super().__init__()
        self.program, self.rounding = program, rounding
        self.replaced = nn.ModuleDict()
        self._limits = None if limits is None else [2.0**limit for limit in limits]
        self._constants: dict[tuple[int, int], torch.Tensor] = {}
        nodes = program.circuit.nodes
        for number, node in enumerate(nodes):
            if node.value is None and node.kind != "input" and node.kind not in _RULES:
                raise OdpError(
                    f"node {node.where}: '{node.kind}' has no counterpart in torch; compile with "
                    "policy 'rational'"
                )
            for place, other in enumerate(node.inputs):
                value = nodes[other].value
                if value is None or power_of_two(program.circuit, node) is not None:
                    continue
                self._constants[number, place] = torch.from_numpy(
                    _real_constant(program, number, place) if rounding else np.array(value)
                )

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name.

        Args:
            inputs: by name, any float type, shape (windows, *shape of the input).

        Returns:
            float64, shape (windows, *shape of the output).
        """
        return self.checked(inputs)[0]

    def checked(
        self, inputs: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The outputs as `forward` gives them, and which windows the prover would refuse.

        Args:
            inputs: as for `forward`.

        Returns:
            The outputs, and whether any tensor of a window leaves its range: bool, (windows,).
        """
        circuit = self.program.circuit
        names = list(circuit.inputs)
        given = []
        for name in names:
            shape = circuit.nodes[circuit.inputs[name]].shape
            given.append(inputs[name].to(torch.float64).reshape(-1, *shape))
        constants = self._known()

        def one(*window: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values, outside = self._evaluated(dict(zip(names, window, strict=True)), constants)
            return (*(values[number] for number in circuit.outputs.values()), outside)

        *outputs, outside = torch.vmap(one)(*given)
        return dict(zip(circuit.outputs, outputs, strict=True)), outside

    def constant(self, number: int) -> torch.Tensor:
        """The value of a constant, before any rounding: float64.

        Args:
            number: of its node.
        """
        if str(number) in self.replaced:
            value: torch.Tensor = self.replaced[str(number)]()
            return value.to(torch.float64)
        return torch.from_numpy(np.array(self.program.circuit.nodes[number].value))

    def _known(self) -> dict[tuple[int, int], torch.Tensor]:
        """Constants as their users see them, those that are trained made anew."""
        found = dict(self._constants)
        for name in self.replaced:
            value = self.constant(int(name))
            for (user, place), scale in self.program.schedule.constants.items():
                if self.program.circuit.nodes[user].inputs[place] == int(name):
                    rounded = rounded_constant(value, scale) if self.rounding else value
                    found[user, place] = rounded
        return found

    def _evaluated(
        self,
        inputs: Mapping[str, torch.Tensor],
        constants: Mapping[tuple[int, int], torch.Tensor],
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Every node's value in one window, and whether one of them leaves its range."""
        schedule = self.program.schedule
        values: list[torch.Tensor] = []
        outside = torch.zeros((), dtype=torch.bool)
        for number, node in enumerate(self.program.circuit.nodes):
            if node.value is not None:
                # Users take it from `constants`, each at a scale of its own.
                values.append(torch.empty(0))
                continue
            if node.kind == "input":
                value = inputs[node.name]
                if self.rounding:
                    value = _rounded(value, schedule.scales[number], torch.round)
                values.append(value)
                continue
            value = self._result(number, node, values, constants)
            if self.rounding and schedule.rescaled(number):
                value = _rounded(value, schedule.scales[number], _half_away)
            if self._limits is not None:
                largest = value.detach().abs().amax()
                # Written so that nan is outside, too.
                outside = outside | ~(largest <= self._limits[number])
            values.append(value)
        return values, outside

    def _result(
        self,
        number: int,
        node: Node,
        values: Sequence[torch.Tensor],
        constants: Mapping[tuple[int, int], torch.Tensor],
    ) -> torch.Tensor:
        shifted = power_of_two(self.program.circuit, node)
        if shifted is not None:
            place, exponent = shifted
            return (values[node.inputs[place]] * 2.0**exponent).expand(node.shape)
        operands = [
            constants[number, place] if (number, place) in constants else values[other]
            for place, other in enumerate(node.inputs)
        ]
        return _RULES[node.kind](operands, node.attributes)


def rounded_constant(value: torch.Tensor, scale: int) -> torch.Tensor:
    """A constant as the circuit holds it, its gradient passed straight through.

    Integers at `scale` of at most 24 significant bits, which float32 holds exactly; the same as
    `IntegerProgram.constant` makes, and in real numbers.

    Args:
        value: float64, any shape.
        scale: bits after the point.
    """
    plain = value.detach()
    _, exponent = torch.frexp(plain)
    # Of numbers too long for float32 the last bits are rounded away, too.
    shift = scale - (exponent + scale - _MANTISSA).clamp_min(0)
    rounded = torch.ldexp(torch.round(torch.ldexp(plain, shift)), -shift)
    return value + (rounded - plain)


def _real_constant(program: IntegerProgram, user: int, place: int) -> np.ndarray[Any, Any]:
    scale = program.schedule.constants[user, place]
    return np.asarray(np.ldexp(program.constant(user, place).astype(np.float64), -scale))


def _half_away(x: torch.Tensor) -> torch.Tensor:
    return torch.copysign(torch.floor(x.abs() + 0.5), x)


def _rounded(
    x: torch.Tensor, scale: int, nearest: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Multiples of ``2**-scale``; as if nothing had happened in the backward pass.

    The difference of a number and the nearest multiple is exact (P. Sterbenz, 1974), so that the
    sum is the multiple to the bit.
    """
    plain = x.detach()
    if abs(scale) > _EXACT_BITS:
        raise OdpError(f"a scale of {scale} bits is beyond float64")
    rounded = nearest(plain * 2.0**scale) * 2.0**-scale
    return x + (rounded - plain)


Operands = Sequence[torch.Tensor]


def _sliced(x: torch.Tensor, attributes: Mapping[str, Any]) -> torch.Tensor:
    index = [slice(None)] * x.ndim
    for axis, start, stop, step in attributes["parts"]:
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _gathered(x: torch.Tensor, attributes: Mapping[str, Any]) -> torch.Tensor:
    indices = torch.from_numpy(np.array(attributes["indices"], np.int64))
    axis = attributes["axis"] % x.ndim
    flat = torch.index_select(x, axis, indices.reshape(-1) % x.shape[axis])
    return flat.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


_RULES: dict[str, Callable[[Operands, Mapping[str, Any]], torch.Tensor]] = {
    "add": lambda o, a: o[0] + o[1],
    "sub": lambda o, a: o[0] - o[1],
    "mul": lambda o, a: o[0] * o[1],
    "neg": lambda o, a: -o[0],
    "matmul": lambda o, a: torch.matmul(o[0], o[1]),
    "sum": lambda o, a: o[0].sum(dim=tuple(a["axes"]), keepdim=True),
    "reduce_max": lambda o, a: o[0].amax(dim=tuple(a["axes"]), keepdim=True),
    "max": lambda o, a: torch.maximum(o[0], o[1]),
    "min": lambda o, a: torch.minimum(o[0], o[1]),
    "relu": lambda o, a: torch.relu(o[0]),
    "abs": lambda o, a: torch.abs(o[0]),
    "reshape": lambda o, a: o[0].reshape(a["shape"]),
    "transpose": lambda o, a: o[0].permute(tuple(a["order"])),
    "slice": lambda o, a: _sliced(o[0], a),
    "concat": lambda o, a: torch.cat(list(o), dim=a["axis"]),
    "gather": lambda o, a: _gathered(o[0], a),
    "broadcast": lambda o, a: o[0].expand(tuple(a["shape"])),
}
