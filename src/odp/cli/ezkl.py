"""`odp ezkl`: circuits of models, what they cost, and proofs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from odp.cli.rewrite import parse_shapes

if TYPE_CHECKING:
    from odp.circuits import CompiledModel
    from odp.cli.terminal import Terminal

__all__ = ["ezkl_group"]

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


def _model_options(command: Any) -> Any:
    """The options that say how a model becomes a circuit."""
    options = [
        click.option("-p", "--passes", default="all", metavar="PASSES", help="As for odp-rewrite."),
        click.option(
            "-c",
            "--calibrate",
            type=click.Path(path_type=Path),
            metavar="DATA.npz",
            help="Real inputs, as for odp-rewrite; ranges of all tensors come from them.",
        ),
        click.option("--shape", "shapes", multiple=True, metavar="NAME=D1,D2,..."),
        click.option(
            "--error",
            default=0.01,
            show_default=True,
            metavar="E",
            help="Largest relative l2 error of the outputs, expressions and roundings together.",
        ),
        click.option(
            "--site-error",
            type=float,
            metavar="E",
            help="Error of the expression at each site. Default: what suits --error.",
        ),
        click.option("--margin", default=0.25, show_default=True, metavar="M"),
        click.option("--samples", type=click.IntRange(min=1), metavar="N"),
        click.option(
            "--check-ranges",
            is_flag=True,
            help="Let EZKL check the ranges of inputs and outputs in the circuit, for those that "
            "are not public.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group("ezkl", context_settings={"help_option_names": ["-h", "--help"]})
def ezkl_group() -> None:
    """Circuits for EZKL: integers whose rescales we place, no tables, and proofs that finish."""


@ezkl_group.command("compile")
@click.argument("model", type=click.Path(path_type=Path))
@_model_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Default: MODEL.circuit."
)
@_JSON
@_QUIET
def compile_command(
    model: Path, output: Path | None, as_json: bool, quiet: bool, **options: Any
) -> int:
    """Rewrite an ONNX MODEL and schedule it as a circuit of integers.

    Writes network.onnx, settings.json, input.json (the first calibration input) and manifest.json
    (scales, ranges, expressions, predicted cost).
    """
    from odp.cli.terminal import Terminal

    terminal = Terminal(quiet=quiet or as_json)
    compiled = _compiled(model, terminal, options)
    folder = output or model.with_name(f"{model.stem}.circuit")
    compiled.save(folder)
    if as_json:
        click.echo(json.dumps(compiled.manifest(), indent=1))
    elif not quiet:
        _show(compiled, terminal)
        terminal.wrote(folder)
    terminal.warn(compiled.report.warnings)
    return 0


@ezkl_group.command("cost")
@click.argument("model", type=click.Path(path_type=Path))
@_model_options
@click.option("--nodes", default=15, show_default=True, metavar="N", help="Nodes to list.")
@click.option(
    "--standard",
    is_flag=True,
    help="Of the model as it is, with EZKL's own rescales at scale 7, instead of our circuit.",
)
@_JSON
def cost_command(model: Path, nodes: int, standard: bool, as_json: bool, **options: Any) -> int:
    """Predict rows, keys, memory and time of a circuit, without EZKL.

    MODEL is an ONNX model, or a folder that odp ezkl compile has written.
    """
    from odp.backends.ezkl.cost_table import render, to_json
    from odp.cli.terminal import Terminal

    terminal = Terminal(quiet=as_json)
    if model.is_dir():
        report = _cost_of_folder(model)
    elif standard:
        report = _cost_of_standard(model, options)
    else:
        report = _compiled(model, terminal, options).compiled.cost
    if as_json:
        click.echo(to_json(report))
    else:
        render(report, terminal.console, nodes)
    return 0


@ezkl_group.command("prove")
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
    from odp.circuits import srs_folder
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


@ezkl_group.command("split")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--memory", required=True, type=float, metavar="GB", help="That the proof of a part may need."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Default: FOLDER.parts."
)
@_JSON
def split_command(folder: Path, memory: float, output: Path | None, as_json: bool) -> int:
    """Cut the circuit in FOLDER into parts that prove within some memory.

    The parts are linked by public integers: what leaves one enters the next. odp ezkl prove and
    verify take the folder of the parts, too, and check the links.
    """
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.splitting import split
    from odp.cli.terminal import Terminal

    terminal = Terminal(quiet=as_json)
    target = output or folder.with_name(f"{folder.name}.parts")
    with terminal.progress() as advance:
        parts = split(CircuitFolder(folder), target, memory * 1e9, advance)
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


@ezkl_group.command("verify")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--proof", type=click.Path(path_type=Path), metavar="FILE", help="Default: FOLDER's.")
@_SRS
@_JSON
def verify_command(folder: Path, proof: Path | None, srs: Path | None, as_json: bool) -> int:
    """Verify a proof against the circuit in FOLDER. Exit code: 1 if it does not verify."""
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.prover import verify
    from odp.circuits import srs_folder

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
    from odp.backends.ezkl.prover import prove
    from odp.backends.ezkl.splitting import check_links, read_parts
    from odp.circuits import srs_folder

    parts, links = read_parts(folder)
    runs = Parallel(n_jobs=jobs)(
        delayed(prove)(CircuitFolder(part.folder), srs=srs, srs_folder=srs_folder(), force=force)
        for part in parts
    )
    broken = check_links(parts, links)
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


@ezkl_group.command("compare")
@click.argument("model", type=click.Path(path_type=Path))
@_model_options
@click.option("--prove", "with_proof", is_flag=True, help="Set up and prove every circuit, too.")
@click.option(
    "--goal",
    "goals",
    multiple=True,
    type=click.Choice(["scale 7", "scale 12", "resources", "accuracy"]),
    default=("scale 7", "accuracy"),
    show_default=True,
    help="EZKL's circuits to compare with: at its default scale of 7, at 12, or with settings from "
    "its own calibration. Can be repeated.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help=".json or .html")
@_JSON
def compare_command(
    model: Path,
    with_proof: bool,
    goals: Sequence[str],
    output: Path | None,
    report: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Compare circuits of an ONNX MODEL: as EZKL makes them, and ours.

    Visibilities and range checks of inputs and outputs are the same for all.
    """
    from odp.backends.ezkl.comparison_table import render, to_html
    from odp.circuits import compare_circuits
    from odp.cli.terminal import Terminal
    from odp.output import write_text

    terminal = Terminal(quiet=as_json)
    with terminal.progress() as advance:
        found = compare_circuits(
            model,
            goals=goals,
            folder=output or model.with_name(f"{model.stem}.comparison"),
            with_proof=with_proof,
            told=lambda message: terminal.errors.print(f"warning: {message}", markup=False),
            progress=advance,
            **_arguments(options),
        )
    text = json.dumps([one.to_dict() for one in found], indent=1)
    if report is not None:
        write_text(report, to_html(found) if report.suffix == ".html" else text)
    if as_json:
        click.echo(text)
    else:
        render(found, terminal.console)
    return 0


def _compiled(model: Path, terminal: Terminal, options: dict[str, Any]) -> CompiledModel:
    from odp.circuits import compile_circuit

    with terminal.progress() as advance:
        return compile_circuit(model, progress=advance, **_arguments(options))


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The options of `_model_options` as arguments of `compile_circuit`."""
    given = dict(options)
    given["calibration"] = given.pop("calibrate")
    given["shapes"] = parse_shapes(given["shapes"])
    return given


def _cost_of_folder(folder: Path) -> Any:
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.cost import RunArguments, predict

    circuit = CircuitFolder(folder)
    return predict(circuit.network, RunArguments.from_settings(circuit.settings), circuit.logrows)


def _cost_of_standard(model: Path, options: dict[str, Any]) -> Any:
    from odp.backends.ezkl.cost import RunArguments, predict
    from odp.circuits import lowered_original

    arguments = RunArguments(ignore_range_check_inputs_outputs=not options["check_ranges"])
    return predict(lowered_original(model, **_arguments(options)), arguments)


def _first_sample(data: Path, circuit: Any) -> dict[str, Any]:
    """The first sample of every input in an archive."""
    from odp.rewriter.samples import read_arrays, split_arrays

    inputs = {
        name: (tuple(record["shape"]), "float32")
        for name, record in circuit.manifest["inputs"].items()
    }
    return dict(split_arrays(read_arrays(data), inputs, data.name, 1)[0])


def _show(compiled: CompiledModel, terminal: Terminal) -> None:
    from odp.rewriter.table_style import number_column, plain_table

    found, console = compiled.compiled, terminal.console
    resources = found.cost.resources
    console.print(
        f"{found.cost.rows:,} rows in {found.arguments.num_inner_cols} columns, logrows "
        f"{found.arguments.logrows}, no tables; relative error {found.error:.2g} "
        f"(expressions alone {compiled.approximation:.2g})",
        highlight=False,
    )
    console.print(
        f"predicted: proving key {resources.proving_key / 1e6:.0f} MB, peak memory "
        f"{resources.peak_memory / 1e9:.1f} GB",
        highlight=False,
    )
    table = plain_table("Rescales")
    for name in ("node", "module"):
        table.add_column(name, overflow="fold")
    for name in ("elements", "bits", "to scale"):
        number_column(table, name)
    for one in compiled.manifest()["rescales"]:
        row = (one["node"], one["module"], f"{one['elements']:,}", one["bits"], one["scale"])
        table.add_row(*(str(cell) for cell in row))
    console.print(table)
