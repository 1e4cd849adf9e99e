"""From the folder of a circuit to a proof that verifies, step by step, keeping what is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder, input_json, witness_integers
from odp.backends.ezkl.memory import machine_memory
from odp.backends.ezkl.proving import run_ezkl, unsafe_srs
from odp.backends.whole_files import write_text

__all__ = ["ProofRun", "Step", "prove", "verify"]

Array = NDArray[Any]
Told = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        name: of EZKL's function.
        seconds: that it took; 0 if its result was there.
        peak_memory: of its process, bytes.
        reused: whether its result was there from an earlier run.
    """

    name: str
    seconds: float = 0.0
    peak_memory: int = 0
    reused: bool = False


@dataclass
class ProofRun:
    """What proving took and gave.

    Attributes:
        steps: in order.
        outputs: of the circuit, as real numbers, by name.
        witness_difference: largest difference between the integers of EZKL's witness and ours.
        verified: whether the proof verifies.
        sizes: of the files, bytes, by name.
        unsafe_srs: whether the reference string was made on this machine.
    """

    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, list[float]] = field(default_factory=dict)
    witness_difference: int = 0
    verified: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    unsafe_srs: bool = False

    @property
    def peak_memory(self) -> int:
        """Of all steps, bytes."""
        return max((step.peak_memory for step in self.steps), default=0)

    def seconds(self, name: str) -> float:
        """What a step took."""
        return sum(step.seconds for step in self.steps if step.name == name)

    def to_json(self) -> str:
        """Everything as JSON."""
        return json.dumps(asdict(self) | {"peak_memory": self.peak_memory}, indent=1)


def prove(
    folder: CircuitFolder,
    inputs: Mapping[str, Array] | None = None,
    *,
    srs: Path | None = None,
    srs_folder: Path,
    force: bool = False,
    told: Told = lambda message: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> ProofRun:
    """Prove one run of a circuit, and verify the proof.

    Keys are kept beside the circuit and used again while network and settings are the same.

    Args:
        folder: of the circuit.
        inputs: real inputs by name; those of input.json if None.
        srs: a structured reference string of the right length; a test one is made if None.
        srs_folder: where test strings are kept.
        force: go on where memory is predicted not to suffice.
        told: called with what a person must know.
        progress: called as `progress(step, done, total)`.

    Raises:
        OdpError: bad input, an input that leaves the calibrated ranges, too little memory, or a
            step of EZKL that fails.
    """
    path, run = folder.path, ProofRun()
    _check_memory(folder, force)
    if srs is not None and not srs.is_file():
        raise OdpError(f"reference string '{srs}' does not exist")
    integers = folder.stored_input() if inputs is None else folder.quantise(inputs)
    expected = folder.simulated(integers)
    if inputs is not None:
        write_text(path / "input.json", input_json(integers))
    run.outputs = {name: tensor.real.ravel().tolist() for name, tensor in expected.items()}

    names = ("srs", "compile_circuit", "setup", "gen_witness", "prove", "verify")

    def begin(name: str) -> None:
        progress(name, names.index(name), len(names))

    begin("srs")
    if srs is None:
        srs, run.unsafe_srs = unsafe_srs(folder.logrows, srs_folder, told), True
    network, key, checking = path / "network.ezkl", path / "pk.key", path / "vk.key"
    settings, witness, proof = (
        path / name for name in ("settings.json", "witness.json", "proof.json")
    )
    is_known = _keys_are_of(folder)
    begin("compile_circuit")
    if is_known and network.is_file():
        run.steps.append(Step("compile_circuit", reused=True))
    else:
        _measured(run, "compile_circuit", path / "network.onnx", network, settings, writes=network)
    begin("setup")
    if is_known and key.is_file() and checking.is_file():
        run.steps.append(Step("setup", reused=True))
    else:
        _measured(run, "setup", network, checking, key, srs_path=srs, writes=(checking, key))
        write_text(path / "keys.json", json.dumps({"circuit": folder.digest}))
    begin("gen_witness")
    _measured(run, "gen_witness", path / "input.json", network, witness, writes=witness)
    run.witness_difference = max(
        int(np.abs(found - wanted.integers.ravel()).max(initial=0))
        for found, wanted in zip(witness_integers(witness), expected.values(), strict=True)
    )
    if run.witness_difference:
        raise OdpError(
            f"EZKL's witness differs from our integers by {run.witness_difference}: a bug of "
            "one of the two; nothing was proven"
        )
    begin("prove")
    _measured(run, "prove", witness, network, key, proof, srs_path=srs, writes=proof)
    begin("verify")
    run.verified = verify(folder, proof, srs=srs, run=run)
    progress("verify", len(names), len(names))
    run.sizes = {
        file.name: file.stat().st_size for file in (key, checking, proof, network) if file.is_file()
    }
    return run


def verify(folder: CircuitFolder, proof: Path, *, srs: Path, run: ProofRun | None = None) -> bool:
    """Whether a proof is one of this circuit.

    Args:
        folder: of the circuit, with its verifying key.
        proof: the file.
        srs: the reference string of the keys.
        run: where to write down what it took.

    Raises:
        OdpError: a file is missing.
    """
    key = folder.path / "vk.key"
    for file in (proof, key, srs):
        if not file.is_file():
            raise OdpError(f"'{file}' does not exist; odp ezkl prove makes it")
    try:
        measured = run_ezkl("verify", proof, folder.path / "settings.json", key, srs_path=srs)
    except OdpError:
        # EZKL raises for a proof that does not verify, and for one that is no proof.
        return False
    if run is not None:
        run.steps.append(Step("verify", measured.seconds, measured.peak_memory))
    return bool(measured.result)


def _measured(run: ProofRun, step: str, *arguments: Any, **options: Any) -> None:
    found = run_ezkl(step, *arguments, **options)
    run.steps.append(Step(step, found.seconds, found.peak_memory))


def _keys_are_of(folder: CircuitFolder) -> bool:
    """Whether the keys in the folder are those of its network and settings."""
    try:
        known = json.loads((folder.path / "keys.json").read_text(encoding="utf-8"))
        return bool(known["circuit"] == folder.digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_memory(folder: CircuitFolder, force: bool) -> None:
    needed = int(folder.manifest["predicted"]["peak_memory"])
    there = machine_memory()
    if needed > there and not force:
        raise OdpError(
            f"the proof is predicted to need {needed / 1e9:.1f} GB, and this machine has "
            f"{there / 1e9:.1f}; allow a larger error, use a larger machine, or try with --force"
        )
