"""The same model as circuits of EZKL's own making and of ours, in one table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder, real_input_json, witness_outputs
from odp.backends.ezkl.compiler import relative_error
from odp.backends.ezkl.cost import predict
from odp.backends.ezkl.memory import machine_memory
from odp.backends.ezkl.prover import prove
from odp.backends.ezkl.proving import run_ezkl
from odp.backends.ezkl.reference_string import unsafe_srs
from odp.backends.ezkl.run_arguments import RunArguments
from odp.backends.whole_files import write_bytes, write_text

__all__ = ["Competitor", "ours", "standard"]

Array = NDArray[Any]
Told = Callable[[str], None]


@dataclass
class Competitor:
    """One circuit of a model.

    Attributes:
        name: of the way it was made.
        rows: of the main columns.
        inner_columns: in which elements lie side by side: rows are fewer with more of them.
        logrows: log2 of the rows of the circuit.
        tables: names of tables of functions.
        table_entries: of all of them together.
        range_checks: intervals.
        error: relative l2 error of the witness against the original, None if it has none.
        failure: why there is no circuit, or no proof.
        setup_seconds: of `setup`; None if nothing was proven, as all that follow.
        prove_seconds: of `prove`.
        verify_seconds: of `verify`.
        proving_key: bytes.
        verifying_key: bytes.
        proof: bytes of the file.
        peak_memory: bytes, of all steps.
        verified: whether the proof verifies.
    """

    name: str
    rows: int = 0
    inner_columns: int = 0
    logrows: int = 0
    tables: tuple[str, ...] = ()
    table_entries: int = 0
    range_checks: tuple[tuple[int, int], ...] = ()
    error: float | None = None
    failure: str = ""
    setup_seconds: float | None = None
    prove_seconds: float | None = None
    verify_seconds: float | None = None
    proving_key: int | None = None
    verifying_key: int | None = None
    proof: int | None = None
    peak_memory: int | None = None
    verified: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)


def ours(
    folder: CircuitFolder,
    reference: Mapping[str, Array],
    *,
    with_proof: bool,
    srs_folder: Path,
    told: Told = lambda message: None,
) -> Competitor:
    """A circuit that `odp ezkl compile` has made.

    Args:
        folder: of the circuit.
        reference: what the original makes of the stored input, by name.
        with_proof: whether to prove.
        srs_folder: where test strings are kept.
        told: called with what a person must know.
    """
    found = _described("scheduled by ODP", folder.settings)
    simulated = folder.simulated(folder.stored_input())
    outputs = {name: tensor.real for name, tensor in simulated.items()}
    found.error = relative_error(outputs, reference)
    if with_proof:
        run = prove(folder, srs_folder=srs_folder, told=told)
        found.setup_seconds = run.seconds("setup")
        found.prove_seconds, found.verify_seconds = run.seconds("prove"), run.seconds("verify")
        found.proving_key, found.verifying_key = run.sizes["pk.key"], run.sizes["vk.key"]
        found.proof, found.peak_memory = run.sizes["proof.json"], run.peak_memory
        found.verified = run.verified
    return found


def standard(
    name: str,
    model: onnx.ModelProto,
    inputs: Mapping[str, Array],
    reference: Mapping[str, Array],
    folder: Path,
    arguments: RunArguments,
    *,
    goal: str,
    with_proof: bool,
    srs_folder: Path,
    told: Told = lambda message: None,
) -> Competitor:
    """The original as EZKL lowers it, with settings from its own calibration.

    Args:
        name: in the table.
        model: the original, opset 12, static.
        inputs: real inputs by name.
        reference: what the original makes of them.
        folder: where files go.
        arguments: visibilities and range checks, the same as ours.
        goal: `scale N` for scale N with tables as wide as the inputs need, or what EZKL's own
            calibration is to look for: `resources` or `accuracy`.
        with_proof: whether to prove.
        srs_folder: where test strings are kept.
        told: called with what a person must know.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network, settings, data = folder / "network.onnx", folder / "settings.json", folder / "in.json"
    write_bytes(network, model.SerializeToString())
    write_text(data, real_input_json(inputs))
    found = Competitor(name)
    try:
        run_ezkl("gen_settings", network, settings, py_run_args=arguments, writes=settings)
        fixed = goal.partition("scale ")[2]
        options: dict[str, Any] = (
            {"scales": [int(fixed)], "scale_rebase_multiplier": [1]} if fixed else {}
        )
        target = "resources" if fixed else goal
        run_ezkl("calibrate_settings", data, network, settings, target, **options)
        tree = json.loads(settings.read_text(encoding="utf-8"))
        found = _described(name, tree)
        arguments = RunArguments.from_settings(tree)
        compiled, witness = folder / "network.ezkl", folder / "witness.json"
        steps = [run_ezkl("compile_circuit", network, compiled, settings, writes=compiled)]
        steps.append(run_ezkl("gen_witness", data, compiled, witness, writes=witness))
        witnessed = dict(zip(reference, witness_outputs(witness), strict=True))
        found.error = relative_error(witnessed, reference)
        if not with_proof:
            return found
        needed = predict(model, arguments, found.logrows).resources.peak_memory
        there = machine_memory()
        if needed > there:
            found.failure = (
                f"not proven: predicted to need {needed / 1e9:.0f} GB of memory, and this machine "
                f"has {there / 1e9:.0f}"
            )
            return found
        srs = unsafe_srs(found.logrows, srs_folder, told)
        key, checking, proof = folder / "pk.key", folder / "vk.key", folder / "proof.json"
        setup = run_ezkl("setup", compiled, checking, key, srs_path=srs, writes=(checking, key))
        proved = run_ezkl("prove", witness, compiled, key, proof, srs_path=srs, writes=proof)
        verified = run_ezkl("verify", proof, settings, checking, srs_path=srs)
        found.setup_seconds, found.prove_seconds = setup.seconds, proved.seconds
        found.verify_seconds, found.verified = verified.seconds, bool(verified.result)
        found.proving_key, found.verifying_key = _size(key), _size(checking)
        found.proof = _size(proof)
        measured = (*steps, setup, proved, verified)
        found.peak_memory = max(step.peak_memory for step in measured)
    except OdpError as error:
        found.failure = str(error)
    return found


def _described(name: str, settings: Mapping[str, Any]) -> Competitor:
    arguments = settings["run_args"]
    low, high = arguments["lookup_range"]
    tables = tuple(_table_name(lookup) for lookup in settings["required_lookups"])
    return Competitor(
        name,
        rows=int(settings["num_rows"]),
        inner_columns=int(arguments["num_inner_cols"]),
        logrows=int(arguments["logrows"]),
        tables=tables,
        table_entries=len(tables) * (high - low + 1),
        range_checks=tuple((int(a), int(b)) for a, b in settings["required_range_checks"]),
    )


def _table_name(lookup: Any) -> str:
    return lookup if isinstance(lookup, str) else str(next(iter(lookup)))


def _size(path: Path) -> int:
    return path.stat().st_size
