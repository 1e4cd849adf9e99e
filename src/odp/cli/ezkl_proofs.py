"""`odp ezkl prove`, `verify` and `split`: proofs of circuits that were compiled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from odp.cli.shared_options import JSON, QUIET

if TYPE_CHECKING:
    from odp.backends.ezkl.parts import PartsVerdict
    from odp.backends.ezkl.splitting import Links
    from odp.cli.terminal import Terminal

__all__ = ["prove_command", "split_command", "verify_command"]

NOT_VERIFIED = 1

_SRS = click.option(
    "--srs",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Structured reference string of a public ceremony (ezkl get-srs), for the logrows of the "
    "circuit or more. Without one a TEST string is made on this machine, which is unsafe for real "
    "proofs.",
)


@click.command("prove")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "data",
    type=click.Path(path_type=Path),
    metavar="DATA.npz",
    help="Real inputs, the first sample of each array. Default: the folder's input.json.",
)
@_SRS
@click.option("--force", is_flag=True, help="Go on where memory is predicted not to suffice.")
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Parts of a split circuit that are proven at a time, through joblib.",
)
@click.option(
    "--backend",
    metavar="NAME",
    help="Of joblib, for the parts: loky, threading, or one that was registered. [default: loky]",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Of a Dask cluster that proves the parts, as tcp://host:8786, in place of --jobs. Workers "
    "need odp-rewrite[ezkl,dask], and FOLDER and the reference string under the same paths (a "
    "shared file system; test strings are in ~/.cache/odp). Start them with --nthreads 1 and one "
    "process for each proof that fits into memory.",
)
@JSON
@QUIET
def prove_command(
    folder: Path,
    data: Path | None,
    srs: Path | None,
    force: bool,
    jobs: int,
    backend: str | None,
    scheduler: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Prove one run of the circuit in FOLDER, and verify the proof.

    FOLDER is that of a circuit, or of the parts that odp ezkl split has made. The input is refused
    if a tensor leaves the range that the circuit was made for. Keys are used again while circuit
    and reference string are the same, also after an interruption. Exit code: 1 if the proof does
    not verify.
    """
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.prover import prove
    from odp.circuit_comparison import srs_folder
    from odp.cli.terminal import Terminal

    terminal = Terminal(quiet=quiet or as_json)
    if (folder / "links.json").is_file():
        if data is not None:
            raise click.UsageError(
                f"--input goes with a whole circuit, and '{folder}' holds parts: their input is "
                "that of the circuit which odp ezkl split has cut"
            )
        where = (jobs, backend, scheduler)
        return _prove_parts(folder, terminal, srs, force, where, as_json)
    if backend is not None or scheduler is not None:
        raise click.UsageError(
            f"--backend and --scheduler go with the parts of a circuit, and '{folder}' holds none; "
            "odp ezkl split makes them"
        )
    circuit = CircuitFolder(folder)
    inputs = None if data is None else _first_sample(data, circuit)
    with terminal.progress() as advance:
        run = prove(
            circuit,
            inputs,
            srs=srs,
            srs_folder=srs_folder(),
            force=force,
            told=_teller(terminal),
            progress=advance,
        )
    _warn_of_string(srs, terminal)
    if as_json:
        click.echo(run.to_json())
    elif not quiet:
        for step in run.steps:
            took = "there from before" if step.reused else f"{step.seconds:.1f} s"
            terminal.console.print(f"{step.name:16} {took:>18}", highlight=False)
        terminal.console.print(
            f"peak memory {run.peak_memory / 1e9:.2f} GB, proving key "
            f"{run.sizes['pk.key'] / 1e6:.0f} MB; EZKL's witness "
            + (
                "equals our integers"
                if run.witness_error is None
                else f"has a relative error of {run.witness_error:.2g}"
            ),
            highlight=False,
        )
        terminal.console.print("verified" if run.verified else "NOT verified")
    return 0 if run.verified else NOT_VERIFIED


@click.command("split")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--memory", required=True, type=float, metavar="GB", help="That the proof of a part may need."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Default: FOLDER.parts."
)
@click.option(
    "--links",
    type=click.Choice(["committed", "public"]),
    default="committed",
    show_default=True,
    help="How the proofs show the tensors between the parts: as KZG commitments, or as they are.",
)
@JSON
def split_command(
    folder: Path, memory: float, output: Path | None, links: Links, as_json: bool
) -> int:
    """Cut the circuit in FOLDER into parts that prove within some memory.

    What leaves one part enters the next as the same integers, and both proofs commit to them.
    odp ezkl prove and verify take the folder of the parts, too, and check the links.
    """
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.splitting import split
    from odp.cli.terminal import Terminal

    terminal = Terminal(quiet=as_json)
    target = output or folder.with_name(f"{folder.name}.parts")
    with terminal.progress() as advance:
        parts = split(CircuitFolder(folder), target, memory * 1e9, links=links, progress=advance)
    records = [CircuitFolder(part.folder).manifest["predicted"] for part in parts]
    if as_json:
        click.echo(
            json.dumps(
                {part.folder.name: r for part, r in zip(parts, records, strict=True)}, indent=1
            )
        )
        return 0
    for part, record in zip(parts, records, strict=True):
        terminal.console.print(
            f"{part.folder.name}: {record['rows']:,} rows, logrows {record['logrows']}, peak "
            f"memory {record['peak_memory'] / 1e9:.1f} GB; {', '.join(part.inputs)} -> "
            f"{', '.join(part.outputs)}",
            highlight=False,
        )
    terminal.wrote(target)
    return 0


@click.command("verify")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--proof", type=click.Path(path_type=Path), metavar="FILE", help="Default: FOLDER's.")
@_SRS
@JSON
def verify_command(folder: Path, proof: Path | None, srs: Path | None, as_json: bool) -> int:
    """Verify a proof against the circuit in FOLDER.

    If FOLDER holds the parts of a circuit, the proof of every part is verified, and that what
    leaves one enters the next. Exit code: 1 if anything does not verify.
    """
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.prover import verify
    from odp.backends.ezkl.reference_string import stored_srs
    from odp.circuit_comparison import srs_folder
    from odp.cli.terminal import Terminal

    if (folder / "links.json").is_file():
        if proof is not None:
            raise click.UsageError(
                f"--proof goes with one circuit, and '{folder}' holds parts, each with its proof"
            )
        return _verify_parts(folder, Terminal(quiet=as_json), srs, as_json)
    circuit = CircuitFolder(folder)
    string = srs or stored_srs(circuit.logrows, srs_folder())
    verified = verify(circuit, proof or folder / "proof.json", srs=string)
    click.echo(json.dumps({"verified": verified}) if as_json else _said(verified))
    return 0 if verified else NOT_VERIFIED


def _prove_parts(
    folder: Path,
    terminal: Terminal,
    srs: Path | None,
    force: bool,
    where: tuple[int, str | None, str | None],
    as_json: bool,
) -> int:
    """Prove every part of a split circuit, and check the links between them."""
    from odp.backends.ezkl.part_workers import workers
    from odp.backends.ezkl.parts import prove_parts
    from odp.circuit_comparison import srs_folder

    with workers(*where) as chosen, terminal.progress() as advance:
        proof = prove_parts(
            folder,
            srs=srs,
            srs_folder=srs_folder(),
            force=force,
            workers=chosen,
            told=_teller(terminal),
            progress=advance,
        )
    _warn_of_string(srs, terminal)
    if as_json:
        tree = {name: json.loads(run.to_json()) for name, run in proof.runs.items()}
        verdict = proof.verdict
        record = {"parts": tree, "links": verdict.links, "verified": verdict.verified}
        click.echo(json.dumps(record, indent=1))
    elif not terminal.quiet:
        for name, run in proof.runs.items():
            terminal.console.print(
                f"{name}: setup {run.seconds('setup'):.1f} s, proof {run.seconds('prove'):.1f} s, "
                f"peak memory {run.peak_memory / 1e9:.2f} GB, {_said(run.verified)}",
                highlight=False,
            )
        _show_links(proof.verdict, terminal)
    return 0 if proof.verdict.verified else NOT_VERIFIED


def _verify_parts(folder: Path, terminal: Terminal, srs: Path | None, as_json: bool) -> int:
    """Verify every part of a split circuit, and the links between them."""
    from odp.backends.ezkl.parts import verify_parts
    from odp.circuit_comparison import srs_folder

    with terminal.progress() as advance:
        verdict = verify_parts(folder, srs=srs, srs_folder=srs_folder(), progress=advance)
    if as_json:
        broken = [link.tensor for link in verdict.broken]
        record = {"parts": verdict.parts, "links": verdict.links, "broken": broken}
        click.echo(json.dumps(record | {"verified": verdict.verified}, indent=1))
    else:
        for name, verified in verdict.parts.items():
            terminal.console.print(f"{name}: {_said(verified)}", highlight=False)
        _show_links(verdict, terminal)
    return 0 if verdict.verified else NOT_VERIFIED


def _show_links(verdict: PartsVerdict, terminal: Terminal) -> None:
    for link in verdict.broken:
        terminal.console.print(
            f"'{link.tensor}' differs between part-{link.source + 1} and part-{link.target + 1}",
            markup=False,
            highlight=False,
        )
    terminal.console.print(f"{verdict.links} links: {_said(verdict.verified)}", highlight=False)


def _teller(terminal: Terminal) -> Callable[[str], None]:
    """What prints a warning, between the bars of progress."""
    return lambda message: terminal.errors.print(f"warning: {message}", markup=False)


def _warn_of_string(srs: Path | None, terminal: Terminal) -> None:
    """Of what was proven; one that is made now is warned of before."""
    if srs is None:
        _teller(terminal)("proven with a TEST reference string: unsafe for real proofs")


def _said(verified: bool) -> str:
    return "verified" if verified else "NOT verified"


def _first_sample(data: Path, circuit: Any) -> dict[str, Any]:
    """The first sample of every input in an archive."""
    from odp.rewriter.samples import read_arrays, split_arrays

    inputs = {
        name: (tuple(record["shape"]), "float32")
        for name, record in circuit.manifest["inputs"].items()
    }
    return dict(split_arrays(read_arrays(data), inputs, data.name, 1)[0])
