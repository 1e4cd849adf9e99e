"""What a scheduled circuit makes of an input, in integers that are known before EZKL has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder, input_json, witness_integers
from odp.backends.ezkl.network import Tensor

__all__ = ["IntegerClaim"]

Array = NDArray[Any]


@dataclass(frozen=True)
class IntegerClaim:
    """An input of a scheduled circuit, and the integers that its outputs are.

    Attributes:
        integers: of the inputs, by name.
        tensors: outputs by name.
    """

    integers: Mapping[str, Array]
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, folder: CircuitFolder, inputs: Mapping[str, Array] | None) -> IntegerClaim:
        """Simulate a circuit.

        Args:
            folder: of the circuit.
            inputs: real numbers by name; those of input.json if None.

        Raises:
            OdpError: bad input, or a tensor that leaves its calibrated range.
        """
        integers = folder.stored_input() if inputs is None else folder.quantise(inputs)
        return cls(integers, folder.simulated(integers))

    @property
    def input_json(self) -> str:
        """EZKL's input file."""
        return input_json(self.integers)

    @property
    def outputs(self) -> dict[str, Array]:
        """Outputs as real numbers, float64."""
        return {name: tensor.real for name, tensor in self.tensors.items()}

    def check(self, witness: Path) -> None:
        """Compare with EZKL's witness, to the bit.

        Raises:
            OdpError: they differ.
        """
        for found, (name, wanted) in zip(
            witness_integers(witness), self.tensors.items(), strict=True
        ):
            difference = int(np.abs(found - wanted.integers.ravel()).max(initial=0))
            if difference:
                raise OdpError(
                    f"output '{name}' of EZKL's witness differs from our integers by {difference}: "
                    "a bug of one of the two; nothing was proven"
                )
