"""`odp ezkl prove`, `verify` and `split`: proofs of circuits that were compiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

if TYPE_CHECKING:
    from odp.backends.ezkl.splitting import Links
    from odp.cli.terminal import Terminal

__all__ = ["prove_command", "split_command", "verify_command"]

NOT_VERIFIED = 1

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")
_SRS = click.option(
    "--srs",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Structured reference string of a public ceremony. Without one a TEST string is made on "
    "this machine, which is unsafe for real proofs.",
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
    help="Parts of a split circuit that are proven at a time, through joblib: whose backend "
    "decides where (joblib.parallel_config).",
)
@_JSON
@_QUIET
def prove_command(
    folder: Path,
    data: Path | None,
    srs: Path | None,
    force: bool,
    jobs: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Prove one run of the circuit in FOLDER, and verify the proof.

    The input is refused if a tensor leaves the range that the circuit was made for. Keys are used
    again while the circuit is the same. Exit code: 1 if the proof does not verify.
    """
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.prover import prove
    from odp.circuit_comparison import srs_folder
    from odp.cli.terminal import Terminal

    terminal = Terminal(quiet=quiet or as_json)
    if (folder / "links.json").is_file():
        return _prove_parts(folder, terminal, srs, force, jobs, as_json)
    circuit = CircuitFolder(folder)
    inputs = None if data is None else _first_sample(data, circuit)
    with terminal.progress() as advance:
        run = prove(
            circuit,
            inputs,
            srs=srs,
            srs_folder=srs_folder(),
            force=force,
            told=lambda message: terminal.errors.print(f"warning: {message}", markup=False),
            progress=advance,
        )
    if as_json:
        click.echo(run.to_json())
    elif not quiet:
        for step in run.steps:
            took = "there from before" if step.reused else f"{step.seconds:.1f} s"
            terminal.console.print(f"{step.name:16} {took:>18}", highlight=False)
        terminal.console.print(
            f"peak memory {run.peak_memory / 1e9:.2f} GB, proving key "
            f"{run.sizes['pk.key'] / 1e6:.0f} MB; EZKL's witness equals our integers"
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
@_JSON
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
@_JSON
def verify_command(folder: Path, proof: Path | None, srs: Path | None, as_json: bool) -> int:
    """Verify a proof against the circuit in FOLDER. Exit code: 1 if it does not verify."""
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.prover import verify
    from odp.circuit_comparison import srs_folder

    circuit = CircuitFolder(folder)
    string = srs or srs_folder() / f"test-{circuit.logrows}.srs"
    verified = verify(circuit, proof or folder / "proof.json", srs=string)
    click.echo(json.dumps({"verified": verified}) if as_json else _said(verified))
    return 0 if verified else NOT_VERIFIED


def _prove_parts(
    folder: Path, terminal: Terminal, srs: Path | None, force: bool, jobs: int, as_json: bool
) -> int:
    """Prove every part of a split circuit, and check the links between them."""
    from joblib import Parallel, delayed

    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.linking import check_links, read_parts
    from odp.backends.ezkl.prover import prove
    from odp.circuit_comparison import srs_folder

    parts, links = read_parts(folder)
    runs = Parallel(n_jobs=jobs)(
        delayed(prove)(CircuitFolder(part.folder), srs=srs, srs_folder=srs_folder(), force=force)
        for part in parts
    )
    string = srs or srs_folder() / f"test-{CircuitFolder(parts[0].folder).logrows}.srs"
    broken = check_links(parts, links, string)
    verified = all(run.verified for run in runs) and not broken
    if as_json:
        tree = {
            part.folder.name: json.loads(run.to_json())
            for part, run in zip(parts, runs, strict=True)
        }
        click.echo(json.dumps({"parts": tree, "links": len(links), "verified": verified}, indent=1))
        return 0 if verified else NOT_VERIFIED
    if any(run.unsafe_srs for run in runs):
        terminal.errors.print("warning: TEST reference strings: unsafe for real proofs")
    for part, run in zip(parts, runs, strict=True):
        terminal.console.print(
            f"{part.folder.name}: setup {run.seconds('setup'):.1f} s, proof "
            f"{run.seconds('prove'):.1f} s, peak memory {run.peak_memory / 1e9:.2f} GB, "
            f"{_said(run.verified)}",
            highlight=False,
        )
    for link in broken:
        terminal.console.print(f"'{link.tensor}' differs between the parts it links", markup=False)
    terminal.console.print(f"{len(links)} links: {_said(verified)}", highlight=False)
    return 0 if verified else NOT_VERIFIED


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
