"""`odp ezkl`: circuits of models, what they cost, and how they compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from odp.cli.ezkl_proofs import prove_command, split_command, verify_command
from odp.cli.rewrite import parse_shapes
from odp.cli.shared_options import JSON, QUIET

if TYPE_CHECKING:
    from odp.backends.ezkl.cost import Resources
    from odp.circuits import CompiledModel
    from odp.cli.terminal import Terminal
    from odp.plain_circuits import PlainModel

__all__ = ["ezkl_group"]


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
        click.option(
            "--policy",
            type=click.Choice(["rational", "cheapest"]),
            default="rational",
            show_default=True,
            help="rational: nothing but + - * and the model's own comparisons. cheapest: square "
            "roots and reciprocals stay EZKL's where time and memory are predicted to be less.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group("ezkl", context_settings={"help_option_names": ["-h", "--help"]})
def ezkl_group() -> None:
    """Circuits for EZKL: integers whose rescales we place, no tables, and proofs that finish."""


for _command in (prove_command, split_command, verify_command):
    ezkl_group.add_command(_command)


@ezkl_group.command("compile")
@click.argument("model", type=click.Path(path_type=Path))
@_model_options
@click.option(
    "--profile",
    type=click.Choice(["scheduled", "plain"]),
    default="scheduled",
    show_default=True,
    help="scheduled: integers whose scales and rescales we place. plain: the rewritten model in "
    "real numbers, of which EZKL decides scales and tables.",
)
@click.option(
    "--scale",
    type=click.IntRange(1, 24),
    metavar="BITS",
    help="Of --profile plain. Default: 7, or the next of 10, 12 and 14 that keeps --error.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Default: MODEL.circuit."
)
@JSON
@QUIET
def compile_command(
    model: Path,
    profile: str,
    scale: int | None,
    output: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Rewrite an ONNX MODEL and schedule it as a circuit of integers.

    Writes network.onnx, settings.json, input.json (the first calibration input) and manifest.json
    (scales, ranges, expressions, predicted cost).
    """
    from odp.approximations.errors import OdpError
    from odp.cli.terminal import Terminal
    from odp.plain_circuits import PlainModel, compile_plain

    terminal = Terminal(quiet=quiet or as_json)
    if scale is not None and profile != "plain":
        raise OdpError(
            "--scale is of --profile plain: a scheduled circuit has a scale for every tensor"
        )
    compiled: CompiledModel | PlainModel
    if profile == "plain":
        with terminal.progress() as advance:
            compiled = compile_plain(model, scale=scale, progress=advance, **_arguments(options))
    else:
        compiled = _compiled(model, terminal, options)
    folder = output or model.with_name(f"{model.stem}.circuit")
    compiled.save(folder)
    if as_json:
        click.echo(json.dumps(compiled.manifest(), indent=1))
    elif not quiet:
        if isinstance(compiled, PlainModel):
            _show_plain(compiled, terminal)
        else:
            _show(compiled, terminal)
        terminal.wrote(folder)
    for warning in compiled.report.warnings:
        terminal.errors.print(f"warning: {warning}", markup=False, soft_wrap=True)
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
@JSON
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
@JSON
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
    from odp.backends.whole_files import write_text
    from odp.circuit_comparison import compare_circuits
    from odp.cli.terminal import Terminal

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
    from odp.circuit_comparison import lowered_original

    arguments = RunArguments(ignore_range_check_inputs_outputs=not options["check_ranges"])
    return predict(lowered_original(model, **_arguments(options)), arguments)


def _show_plain(compiled: PlainModel, terminal: Terminal) -> None:
    cost, arguments, console = compiled.cost, compiled.settled.arguments, terminal.console
    tables = ", ".join(table.name for table in cost.lookups) or "none"
    console.print(
        f"scale {arguments.input_scale}: {cost.rows:,} rows in {arguments.num_inner_cols} columns, "
        f"logrows {arguments.logrows}, tables {tables}; EZKL's witness has a relative error of "
        f"{compiled.settled.error:.2g} (expressions alone {compiled.approximation:.2g})",
        highlight=False,
    )
    _show_prediction(cost.resources, terminal)


def _show_prediction(resources: Resources, terminal: Terminal) -> None:
    terminal.console.print(
        f"predicted: proving key {resources.proving_key / 1e6:.0f} MB, peak memory "
        f"{resources.peak_memory / 1e9:.1f} GB",
        highlight=False,
    )


def _show(compiled: CompiledModel, terminal: Terminal) -> None:
    from odp.rewriter.table_style import number_column, plain_table

    found, console = compiled.compiled, terminal.console
    console.print(
        f"{found.cost.rows:,} rows in {found.arguments.num_inner_cols} columns, logrows "
        f"{found.arguments.logrows}, no tables; relative error {found.error:.2g} "
        f"(expressions alone {compiled.approximation:.2g})",
        highlight=False,
    )
    _show_prediction(found.cost.resources, terminal)
    choices = plain_table("Degrees of freedom")
    for name in ("what", "chosen", "instead of, or where", "why"):
        choices.add_column(name, overflow="fold")
    for choice in compiled.choices():
        choices.add_row(choice.freedom, choice.chosen, choice.instead_of, choice.reason)
    console.print(choices, markup=False)
    table = plain_table("Rescales")
    for name in ("node", "module"):
        table.add_column(name, overflow="fold")
    for name in ("elements", "bits", "to scale"):
        number_column(table, name)
    for one in compiled.manifest()["rescales"]:
        row = (one["node"], one["module"], f"{one['elements']:,}", one["bits"], one["scale"])
        table.add_row(*(str(cell) for cell in row))
    console.print(table)
