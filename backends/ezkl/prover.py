"""From the folder of a circuit to a proof that verifies, step by step, keeping what is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder
from odp.backends.ezkl.folder_lock import locked
from odp.backends.ezkl.integer_claim import IntegerClaim
from odp.backends.ezkl.keys import (
    check_origin,
    forget_keys,
    keys_are_good,
    record_keys,
)
from odp.backends.ezkl.memory import machine_memory
from odp.backends.ezkl.plain import PlainClaim, is_plain
from odp.backends.ezkl.proving import EzklError, run_ezkl
from odp.backends.ezkl.reference_string import fitting, unsafe_srs
from odp.backends.whole_files import write_text

__all__ = ["ProofRun", "Step", "prove", "verify"]

Array = NDArray[Any]
Told = Callable[[str], None]

_STEPS = ("srs", "compile_circuit", "setup", "gen_witness", "prove", "verify")
# How EZKL begins to say that a file cannot be read.
_NO_PROOF, _NO_KEY = "failed to load the proof", "failed to load vk"


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
        witness_error: relative l2 error of EZKL's witness against the network in floats, where
            EZKL chose the scales (profile plain); None where its integers are ours, to the bit.
        verified: whether the proof verifies.
        sizes: of the files, bytes, by name.
        unsafe_srs: whether the reference string was made on this machine.
    """

    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, list[float]] = field(default_factory=dict)
    witness_error: float | None = None
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

    Keys are kept beside the circuit, and used again while network, settings and reference string
    are the same and the files of the keys are unharmed.

    Args:
        folder: of the circuit.
        inputs: real inputs by name; those of input.json if None.
        srs: a structured reference string that is long enough; a test one is made if None.
        srs_folder: where test strings are kept.
        force: go on where memory is predicted not to suffice.
        told: called with what a person must know.
        progress: called as `progress(step, done, total)`.

    Raises:
        OdpError: bad input, an input that leaves the calibrated ranges, too little memory, a
            reference string that does not fit, another process at work in the folder, or a step
            of EZKL that fails.
    """
    _check_memory(folder, force)
    if srs is not None:
        fitting(srs, folder.logrows)
    claim = PlainClaim.of(folder, inputs) if is_plain(folder) else IntegerClaim.of(folder, inputs)
    with locked(folder.path):
        if inputs is not None:
            write_text(folder.path / "input.json", claim.input_json)
        run = ProofRun(unsafe_srs=srs is None)
        run.outputs = {name: array.ravel().tolist() for name, array in claim.outputs.items()}
        progress("srs", 0, len(_STEPS))
        string = srs or unsafe_srs(folder.logrows, srs_folder, told)

        def begin(name: str) -> None:
            progress(name, _STEPS.index(name), len(_STEPS))

        _run_steps(folder, run, claim, string, begin)
        progress("verify", len(_STEPS), len(_STEPS))
    return run


def _run_steps(
    folder: CircuitFolder,
    run: ProofRun,
    claim: IntegerClaim | PlainClaim,
    srs: Path,
    begin: Callable[[str], None],
) -> None:
    """Keys, witness, proof and verification of the input that is in the folder."""
    path = folder.path
    network, key, checking = path / "network.ezkl", path / "pk.key", path / "vk.key"
    settings, witness, proof = (
        path / name for name in ("settings.json", "witness.json", "proof.json")
    )
    ceremony = fitting(srs, folder.logrows).ceremony
    if keys_are_good(folder, ceremony):
        run.steps += [Step(name, reused=True) for name in ("compile_circuit", "setup")]
    else:
        forget_keys(path)
        begin("compile_circuit")
        _measured(run, "compile_circuit", path / "network.onnx", network, settings, writes=network)
        begin("setup")
        _measured(run, "setup", network, checking, key, srs_path=srs, writes=(checking, key))
        record_keys(folder, ceremony)
    begin("gen_witness")
    _measured(run, "gen_witness", path / "input.json", network, witness, writes=witness)
    if isinstance(claim, PlainClaim):
        run.witness_error = claim.check(witness)
    else:
        claim.check(witness)
    begin("prove")
    _measured(run, "prove", witness, network, key, proof, srs_path=srs, writes=proof)
    begin("verify")
    run.verified = verify(folder, proof, srs=srs, run=run)
    run.sizes = {
        file.name: file.stat().st_size for file in (key, checking, proof, network) if file.is_file()
    }


def verify(folder: CircuitFolder, proof: Path, *, srs: Path, run: ProofRun | None = None) -> bool:
    """Whether a proof is one of this circuit.

    What is verified are the `instances` of the file, the public values; those that EZKL prints
    again under `pretty_public_inputs` are not.

    Args:
        folder: of the circuit, with its verifying key.
        proof: the file.
        srs: the reference string of the keys.
        run: where to write down what it took.

    Raises:
        OdpError: a file is missing or is something else, or the keys belong to another string.
    """
    key = folder.path / "vk.key"
    for file in (proof, key):
        if not file.is_file():
            raise OdpError(f"'{file}' does not exist; odp ezkl prove makes it")
    check_origin(folder, srs)
    try:
        measured = run_ezkl("verify", proof, folder.path / "settings.json", key, srs_path=srs)
    except EzklError as error:
        if _NO_PROOF in error.said:
            detail = error.said.partition(_NO_PROOF)[2].strip(" :")
            raise OdpError(f"'{proof}' is no proof of EZKL ({detail})") from None
        if _NO_KEY in error.said:
            raise OdpError(
                f"'{key}' is no verifying key, or not whole; odp ezkl prove makes it anew"
            ) from None
        # What is left is a proof that does not verify, of which EZKL speaks as an error, too.
        return False
    if run is not None:
        run.steps.append(Step("verify", measured.seconds, measured.peak_memory))
    return bool(measured.result)


def _measured(run: ProofRun, step: str, *arguments: Any, **options: Any) -> None:
    found = run_ezkl(step, *arguments, **options)
    run.steps.append(Step(step, found.seconds, found.peak_memory))


def _check_memory(folder: CircuitFolder, force: bool) -> None:
    needed = int(folder.manifest["predicted"]["peak_memory"])
    there = machine_memory()
    if needed > there and not force:
        raise OdpError(
            f"the proof is predicted to need {needed / 1e9:.1f} GB, and this machine has "
            f"{there / 1e9:.1f}; allow a larger error, use a larger machine, or try with --force"
        )
