"""What trains in a circuit: weights by low rank, or the weights of norms; and the healed circuit.

A circuit's weights are constants.  The adapter changes their values before they are rounded to the
scale that the schedule has for them, and gradients go straight through that rounding.  What is
healed is therefore the very circuit that is proven: expressions, scales and rescales stay, and with
them the rows.  E. Hu et al., "LoRA", arXiv:2106.09685.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

from odp.approximations.errors import OdpError
from odp.backends.ezkl.circuit import Circuit
from odp.backends.ezkl.integer_program import IntegerProgram
from odp.healing.adapters import seeded
from odp.rewriter.module_paths import is_at_end

if TYPE_CHECKING:
    from odp.backends.ezkl.torch_circuit import TorchCircuit
    from odp.healing.settings import HealingSettings

__all__ = [
    "TRAINED",
    "LowRank",
    "Moved",
    "Train",
    "attach_to_circuits",
    "healed_program",
    "trainable_constants",
]

Train = Literal["lora", "norms"]
TRAINED: tuple[Train, ...] = ("lora", "norms")


class LowRank(nn.Module):
    """A matrix and an update of low rank: W + alpha / rank * A B, where B begins with zeros."""

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, rank: int, alpha: float) -> None:
        """Begin with what changes nothing.

        Args:
            weight: float64, (in, out).
            rank: of the update; no more than the matrix has.
            alpha: scale of the update.
        """
        super().__init__()
        inner, out = weight.shape
        rank = min(rank, inner, out)
        self.register_buffer("weight", weight)
        self.first = nn.Parameter(torch.empty(inner, rank))
        self.second = nn.Parameter(torch.zeros(rank, out))
        # As peft begins: uniform with the variance 1 / (3 inner).
        nn.init.uniform_(self.first, -math.sqrt(1 / inner), math.sqrt(1 / inner))
        self.scale = alpha / rank

    def forward(self) -> torch.Tensor:
        """The matrix, float64, (in, out)."""
        update: torch.Tensor = self.weight + self.scale * (self.first @ self.second).double()
        return update


class Moved(nn.Module):
    """A vector w, as w (1 + d): d is what trains, so that steps are relative to each weight."""

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        """Begin with d = 0.

        Args:
            weight: float64, any shape.
        """
        super().__init__()
        self.register_buffer("weight", weight)
        self.change = nn.Parameter(torch.zeros(weight.shape))

    def forward(self) -> torch.Tensor:
        """The vector, float64."""
        moved: torch.Tensor = self.weight * (1.0 + self.change.double())
        return moved


def trainable_constants(
    circuit: Circuit, train: Sequence[Train], targets: Sequence[str]
) -> set[int]:
    """The constants that an adapter changes: numbers of their nodes.

    Equal constants are one in a circuit, and stay one.  A constant that anything else reads, too,
    is left alone.

    Args:
        circuit: of a decoder layer.
        train: `lora` for matrices of the targets, `norms` for the weights of norms.
        targets: how the paths of the linear layers end.
    """
    users = circuit.users()
    found = set()
    for number, node in enumerate(circuit.nodes):
        if node.value is None or node.value.size < 2 or not users[number]:
            continue
        readers = [circuit.nodes[user] for user in users[number]]
        is_weight = "lora" in train and all(
            reader.kind == "matmul"
            and reader.inputs[1] == number
            and is_at_end(reader.module, targets)
            for reader in readers
        )
        is_norm = "norms" in train and all(
            reader.kind == "mul"
            and node.value.ndim == 1
            and "norm" in reader.module.rpartition(".")[2].lower()
            for reader in readers
        )
        if is_weight or is_norm:
            found.add(number)
    return found


def attach_to_circuits(
    circuits: Sequence[TorchCircuit], train: Sequence[Train], settings: HealingSettings
) -> int:
    """Put an adapter that changes nothing yet on circuits; how many numbers train.

    Args:
        circuits: of the decoder layers, in place.
        train: as for `trainable_constants`.
        settings: rank, alpha, targets and seed.

    Raises:
        OdpError: there is nothing to train in one of them.
    """
    count = 0
    with seeded(settings.seed, 0, 0):
        for index, circuit in enumerate(circuits):
            graph = circuit.program.circuit
            numbers = sorted(trainable_constants(graph, train, settings.targets))
            if not numbers:
                raise OdpError(
                    f"nothing to train in the circuit of layer {index}: it has no "
                    + " and no ".join(
                        _WHAT[one].format(", ".join(settings.targets)) for one in train
                    )
                )
            for number in numbers:
                weight = circuit.constant(number).detach()
                is_matrix = weight.ndim == 2
                made = (
                    LowRank(weight, settings.rank, settings.alpha) if is_matrix else Moved(weight)
                )
                circuit.replaced[str(number)] = made
                count += sum(parameter.numel() for parameter in made.parameters())
    return count


_WHAT = {"lora": "weights of {}", "norms": "weights of norms"}


def healed_program(circuit: TorchCircuit) -> IntegerProgram:
    """The circuit with the healed weights, at the scales that it had.

    Its integers are those that the module computes with.
    """
    program = circuit.program
    healed = Circuit()
    healed.inputs, healed.outputs = dict(program.circuit.inputs), dict(program.circuit.outputs)
    values = dict(_healed_values(circuit))
    for number, node in enumerate(program.circuit.nodes):
        changed = dataclasses.replace(node, value=values[number]) if number in values else node
        healed.nodes.append(changed)
    return IntegerProgram(healed, program.schedule, program.digits)


def _healed_values(
    circuit: TorchCircuit,
) -> Iterator[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]]:
    with torch.no_grad():
        for name in circuit.replaced:
            yield int(name), circuit.constant(int(name)).numpy().copy()
