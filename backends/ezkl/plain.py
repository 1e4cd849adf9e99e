"""Circuits of which EZKL decides the scales: what settings they need, and what they lose.

Nothing is known of their integers beforehand, so EZKL makes its witness for real inputs, which is
compared with the model in float32: a proof that verifies says nothing about the size of rounding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder, real_input_json, witness_outputs
from odp.backends.ezkl.compiler import relative_error
from odp.backends.ezkl.proving import run_ezkl
from odp.backends.ezkl.real_ranges import run_in_range
from odp.backends.ezkl.run_arguments import RunArguments
from odp.backends.whole_files import write_bytes, write_text
from odp.rewriter.execution import Session

__all__ = ["PlainClaim", "Settled", "is_plain", "settle"]

Array = NDArray[Any]
Arrays = Mapping[str, Array]

# Digits of 14 bits for range checks: EZKL's default, and more where its integers need them.
_LEGS = (2, 3, 4, 5, 6)
_MEASURED = 4
# Roundings of other inputs differ; a value that leaves its digits or its table differs by far more.
_SLACK = 8.0


@dataclass(frozen=True)
class Settled:
    """Settings that EZKL computes a network with.

    Attributes:
        settings: EZKL's, parsed.
        error: largest relative l2 error of the witness against the references.
        rounding: the same against the network itself in float32.
    """

    settings: dict[str, Any]
    error: float
    rounding: float

    @property
    def arguments(self) -> RunArguments:
        """The settings that decide what the circuit costs."""
        return RunArguments.from_settings(self.settings)


def settle(
    network: onnx.ModelProto,
    inputs: Sequence[Arrays],
    references: Sequence[Arrays],
    arguments: RunArguments,
    scale: int,
    folder: Path,
) -> Settled:
    """Settings for one scale, with as many digits as the inputs need, and the error of the witness.

    Args:
        network: in real numbers.
        inputs: calibration inputs by name; the first four are used.
        references: what the original model makes of each of them.
        arguments: visibilities and range checks.
        scale: bits after the point of inputs and parameters.
        folder: for EZKL's files.

    Raises:
        OdpError: EZKL has no witness at this scale; says what EZKL says.
    """
    file, settings, data = folder / "network.onnx", folder / "settings.json", folder / "data.json"
    write_bytes(file, network.SerializeToString())
    some = list(inputs[:_MEASURED])
    together = {name: np.stack([one[name] for one in some]) for name in some[0]}
    failure: OdpError | None = None
    for legs in _LEGS:
        wished = replace(arguments, input_scale=scale, param_scale=scale, decomp_legs=legs)
        run_ezkl("gen_settings", file, settings, py_run_args=wished, writes=settings)
        try:
            # The width of tables, and the number of rows, from all inputs one after the other.
            write_text(data, real_input_json(together))
            fixed: dict[str, Any] = {"scales": [scale], "scale_rebase_multiplier": [1]}
            run_ezkl("calibrate_settings", data, file, settings, "resources", **fixed)
            return _measured(network, some, references, folder)
        except OdpError as error:
            failure = error
    assert failure is not None
    raise failure


def _measured(
    network: onnx.ModelProto, inputs: Sequence[Arrays], references: Sequence[Arrays], folder: Path
) -> Settled:
    """The settings in a folder, and how far EZKL's witnesses with them are off."""
    settings, compiled = folder / "settings.json", folder / "network.ezkl"
    run_ezkl("compile_circuit", folder / "network.onnx", compiled, settings, writes=compiled)
    session = Session(ir.from_proto(network))
    data, witness = folder / "data.json", folder / "witness.json"
    error = rounding = 0.0
    for one, reference in zip(inputs, references, strict=False):
        write_text(data, real_input_json(one))
        run_ezkl("gen_witness", data, compiled, witness, writes=witness)
        found = dict(zip(session.outputs, witness_outputs(witness), strict=True))
        error = max(error, relative_error(found, reference))
        rounding = max(rounding, relative_error(found, session.run(one)))
    tree = json.loads(settings.read_text(encoding="utf-8"))
    return Settled(tree, error, rounding)


# Proofs


def is_plain(folder: CircuitFolder) -> bool:
    """Whether EZKL chose the scales of a circuit, so that its integers are not known beforehand."""
    return bool(folder.manifest.get("profile") == "plain")


@dataclass(frozen=True)
class PlainClaim:
    """An input of a plain circuit, and what the outputs have to be.

    Attributes:
        input_json: EZKL's input file.
        outputs: of the network in float32, by name.
        allowed: relative l2 error of the witness.
    """

    input_json: str
    outputs: dict[str, Array]
    allowed: float

    @classmethod
    def of(cls, folder: CircuitFolder, inputs: Arrays | None = None) -> PlainClaim:
        """The claim for real inputs, or for those of input.json.

        Args:
            folder: a circuit of the plain profile.
            inputs: by name.

        Raises:
            OdpError: an input is missing, has another shape, or leaves the calibrated ranges.
        """
        values = _stored(folder) if inputs is None else inputs
        feed = {}
        for value in folder.network.graph.input:
            shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            if value.name not in values:
                raise OdpError(f"the input has no '{value.name}', which the circuit takes")
            array = np.asarray(values[value.name])
            if array.size != int(np.prod(shape)):
                raise OdpError(
                    f"input '{value.name}' has shape {list(array.shape)}, the circuit takes {shape}"
                )
            feed[value.name] = array.reshape(shape).astype(kind)
        allowed = _SLACK * float(folder.manifest["rounding_error"])
        outputs = run_in_range(folder.network, folder.manifest["tensors"], feed)
        return cls(real_input_json(feed), outputs, allowed)

    def check(self, witness: Path) -> float:
        """Compare EZKL's witness with the network in float32.

        Args:
            witness: EZKL's file.

        Returns:
            The relative l2 error of its outputs.

        Raises:
            OdpError: it is further off than calibration inputs were.
        """
        found = dict(zip(self.outputs, witness_outputs(witness), strict=True))
        error = relative_error(found, self.outputs)
        if error > self.allowed:
            raise OdpError(
                f"the input is unlike the calibration data: EZKL's witness is off by {error:.2g}, "
                f"and {self.allowed:.2g} were expected at most; calibrate on such inputs too"
            )
        return error


def _stored(folder: CircuitFolder) -> dict[str, Array]:
    path = folder.path / "input.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))["input_data"]
        names = [value.name for value in folder.network.graph.input]
        return {name: np.array(values) for name, values in zip(names, data, strict=True)}
    except (OSError, ValueError, KeyError) as error:
        raise OdpError(f"cannot read '{path}': {error}") from None
