"""The folder of a circuit: network.onnx, settings.json, input.json, manifest.json, and its keys."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.ezkl.field import from_field, to_field
from odp.backends.ezkl.network import Tensor, simulate

__all__ = [
    "CircuitFolder",
    "input_json",
    "real_input_json",
    "witness_integers",
    "witness_outputs",
]

Array = NDArray[Any]


def input_json(integers: Mapping[str, Array]) -> str:
    """EZKL's input file for integers by name.

    They are written as elements of the field: decimal numbers EZKL would read through a float32, in
    which integers of 51 bits were off by 1e-8.
    """
    data = [[to_field(x) for x in array.flat] for array in integers.values()]
    return json.dumps({"input_data": data})


def real_input_json(inputs: Mapping[str, Array]) -> str:
    """EZKL's input file for real numbers by name."""
    values = [np.asarray(array, np.float64).ravel().tolist() for array in inputs.values()]
    return json.dumps({"input_data": values})


def witness_integers(path: Path) -> list[Array]:
    """The outputs in a witness file as the integers that they are."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    return [np.array([from_field(x) for x in output], object) for output in tree["outputs"]]


def witness_outputs(path: Path) -> list[Array]:
    """The outputs in a witness file as real numbers."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    return [
        np.array([float(value) for value in output])
        for output in tree["pretty_elements"]["rescaled_outputs"]
    ]


@dataclass(frozen=True)
class CircuitFolder:
    """What `odp ezkl compile` has written.

    Attributes:
        path: the folder.
    """

    path: Path

    def __post_init__(self) -> None:
        for name in ("network.onnx", "settings.json", "manifest.json"):
            if not (self.path / name).is_file():
                raise OdpError(
                    f"'{self.path}' has no {name}: make the folder with odp ezkl compile "
                    f"model.onnx -o {self.path}"
                )

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The parsed manifest.

        Raises:
            OdpError: it is no JSON.
        """
        return self._json("manifest.json")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """EZKL's parsed settings."""
        return self._json("settings.json")

    @cached_property
    def network(self) -> onnx.ModelProto:
        """The scheduled network."""
        return onnx.load(self.path / "network.onnx")

    @property
    def digest(self) -> str:
        """Of network and settings: keys are good for these and no others."""
        found = hashlib.sha256()
        for name in ("network.onnx", "settings.json"):
            found.update((self.path / name).read_bytes())
        return found.hexdigest()

    @property
    def logrows(self) -> int:
        """log2 of the rows of the circuit."""
        return int(self.settings["run_args"]["logrows"])

    def quantise(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Real inputs as the integers that the network takes.

        Raises:
            OdpError: an input is missing, or has another shape.
        """
        found = {}
        for name, record in self.manifest["inputs"].items():
            if name not in inputs:
                raise OdpError(f"the input has no '{name}', which the circuit takes")
            shape = tuple(record["shape"])
            array = np.asarray(inputs[name], np.float64)
            if array.size != math.prod(shape):
                raise OdpError(
                    f"input '{name}' has shape {list(array.shape)}, the circuit takes {list(shape)}"
                )
            whole = np.rint(np.ldexp(array.reshape(shape), record["scale"]))
            found[name] = np.asarray(np.frompyfunc(int, 1, 1)(whole), object)
        return found

    def stored_input(self) -> dict[str, Array]:
        """The integers of input.json.

        Raises:
            OdpError: there is none, or it does not fit the network.
        """
        tree = self._json("input.json")
        found = {}
        records = self.manifest["inputs"].items()
        for (name, record), values in zip(records, tree["input_data"], strict=True):
            if len(values) != math.prod(record["shape"]):
                raise OdpError(
                    f"input.json has {len(values)} values for '{name}': not this circuit"
                )
            integers = [from_field(value) for value in values]
            found[name] = np.array(integers, object).reshape(record["shape"])
        return found

    def simulated(self, integers: Mapping[str, Array]) -> dict[str, Tensor]:
        """The outputs by name, after a check of every tensor against its calibrated range.

        Raises:
            OdpError: a tensor leaves its range; names its node.
        """
        tensors = simulate(self.network, integers, self._check_range)
        return {value.name: tensors[value.name] for value in self.network.graph.output}

    def _check_range(self, name: str, tensor: Tensor) -> None:
        record = self.manifest["tensors"].get(name)
        if record is None:
            return
        largest = max((abs(int(x)) for x in tensor.integers.flat), default=0)
        # In whole numbers: what leaves its range may be too large for a float.
        if not largest:
            return
        if largest.bit_length() <= record["largest"] + record["scale"] + 1:
            real = math.ldexp(float(largest), -record["scale"])
            if real <= 2.0 ** record["largest"]:
                return
        where = f" ({record['module']})" if record["module"] else ""
        bits = largest.bit_length() - record["scale"]
        raise OdpError(
            f"the input is unlike the calibration data: node '{record['node']}'{where} reaches "
            f"2^{bits}, and the circuit was made for {2.0 ** record['largest']:.4g}; calibrate on "
            "such inputs too"
        )

    def _json(self, name: str) -> dict[str, Any]:
        try:
            tree: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
            return tree
        except (OSError, ValueError) as error:
            raise OdpError(f"cannot read '{self.path / name}': {error}") from None
