"""`odp-rewrite`: replace the transcendental operations of an ONNX model or exported program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from odp.cli.shared_options import QUIET

if TYPE_CHECKING:
    from odp.rewriter.report import Report

__all__ = ["rewrite_command"]

_EPILOG = """
Examples

  odp-rewrite model.onnx --passes rsqrt,exp,rope --calibrate inputs.npz

  odp-rewrite model.onnx --passes "rsqrt{error=1e-6},softmax,gelu" --report report.html

  odp-rewrite model.onnx --shape input_ids=1,32 --shape attention_mask=1,32

  odp-rewrite --list-passes
"""

_GROUPS = [
    ("What to rewrite", ["--passes", "--list-passes", "--explain", "--shape"]),
    ("Data", ["--calibrate", "--samples", "--seed", "--no-measure"]),
    ("Accuracy", ["--error", "--margin", "--guard"]),
    ("Output", ["--output", "--opset", "--external-data", "--report", "--json", "--quiet"]),
    ("Help", ["--version", "--help"]),
]
click.rich_click.OPTION_GROUPS |= {
    name: [{"name": title, "options": options} for title, options in _GROUPS]
    for name in ("odp-rewrite", "odp rewrite")
}


@click.command(
    "odp-rewrite",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option(
    "-p",
    "--passes",
    default="all",
    metavar="PASSES",
    help="What to replace: pass names separated by commas, each with options in braces if needed, "
    "such as 'rsqrt{error=1e-6},exp,rope'. 'exp' also means the exp inside a softmax. "
    "Default: all.",
)
@click.option("--list-passes", is_flag=True, help="List all passes with their options, and stop.")
@click.option(
    "--explain",
    multiple=True,
    metavar="PASS",
    help="Say for every node that this pass nearly matched which node did not fit, and why. "
    "Can be repeated, or a list with commas.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=D1,D2,...",
    help="Static shape of an input that has a dynamic one. Can be repeated.",
)
@click.option(
    "-c",
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="DATA.npz",
    help="Real inputs: one array for each model input, by name, samples along the first axis. "
    "They decide the domains of the approximations. Without them random inputs are used, with a "
    "warning.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Use at most N samples (generate N; default 4) to calibrate and measure.",
)
@click.option(
    "--seed",
    default=0,
    type=click.IntRange(min=0),
    show_default=True,
    metavar="N",
    help="Of generated inputs.",
)
@click.option(
    "--no-measure",
    is_flag=True,
    help="Do not measure the error at the outputs after every pass: faster on large models.",
)
@click.option(
    "--error",
    default=1e-5,
    show_default=True,
    metavar="E",
    type=float,
    help="Largest error at each site; relative for roots, powers and reciprocals, else absolute.",
)
@click.option(
    "--margin",
    default=0.25,
    show_default=True,
    metavar="M",
    type=float,
    help="Share of its width by which each calibrated range is widened on either side.",
)
@click.option(
    "--guard",
    type=click.Choice(["clip", "none"]),
    default="clip",
    show_default=True,
    help="What happens at run time to inputs outside the domain: 'clip' them, or 'none'.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the rewritten model goes. Default: MODEL.rational.onnx (or .pt2) beside the model.",
)
@click.option(
    "--opset",
    default="12",
    show_default=True,
    metavar="12|keep",
    help="ONNX operator set of the result: 12, which EZKL reads, or 'keep' for that of the model.",
)
@click.option(
    "--external-data/--inline-data",
    default=None,
    help="Weights beside the model, or inside. Default: beside it above 2 GB.",
)
@click.option(
    "-r",
    "--report",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the report as .json or .html. Can be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of tables.")
@QUIET
@click.version_option(None, "--version", package_name="odp-rewrite")
def rewrite_command(
    model: Path | None,
    passes: str,
    list_passes: bool,
    explain: Sequence[str],
    shapes: Sequence[str],
    calibrate: Path | None,
    samples: int | None,
    seed: int,
    no_measure: bool,
    error: float,
    margin: float,
    guard: str,
    output: Path | None,
    opset: str,
    external_data: bool | None,
    reports: Sequence[Path],
    as_json: bool,
    quiet: bool,
) -> int:
    """Replace exp, sqrt, sigmoid and their kin in a MODEL (.onnx, or .pt2 of torch) by + - * /.

    Every transcendental operation becomes a rational expression that is chosen for the range of
    inputs which that very place sees. The result is a plain ONNX file (or exported program) without
    such operations, for zero-knowledge circuits, homomorphic encryption, MPC or hardware, and a
    table of what every pass cost in accuracy.

    Exit code: 0 if the model was rewritten or has nothing to rewrite, 2 for bad input.
    """
    from odp.cli.terminal import Terminal

    terminal = Terminal(quiet=quiet or as_json)
    if list_passes:
        terminal.list_passes()
        return 0
    if model is None:
        raise click.UsageError("give the path of a model; odp-rewrite --help shows how")
    _check_numbers(error, margin)
    explained = [name.strip() for names in explain for name in names.split(",")]
    _check_explain(explained)
    for report in reports:
        if report.suffix.lower() not in (".json", ".html"):
            raise click.UsageError(f"report '{report}': the name must end in .json or .html")
    if not model.name:
        raise click.UsageError(f"'{model}' is a directory, not an ONNX model")
    target = output or model.with_name(f"{model.stem}.rational{model.suffix or '.onnx'}")
    from odp.backends.whole_files import check_writable, write_text

    _check_distinct([target, *reports])
    # A model that is not there is the first thing to tell; loading it does so.
    for path in (target, *reports) if model.is_file() else ():
        check_writable(path)

    from odp.rewriting import rewrite

    with terminal.progress() as advance:
        result = rewrite(
            model,
            passes,
            calibration=calibrate,
            shapes=parse_shapes(shapes),
            error=error,
            margin=margin,
            guard=guard,
            opset=parse_opset(opset),
            samples=samples,
            seed=seed,
            measure=not no_measure,
            explain=explained,
            progress=advance,
        )
        rendered = [(path, _render(path, result.report)) for path in reports]
        result.save(target, external_data=external_data)
        for path, text in rendered:
            write_text(path, text)
    if as_json:
        click.echo(result.report.to_json())
    terminal.warn(result.report.warnings)
    terminal.show(result, target, reports)
    return 0


def parse_shapes(texts: Sequence[str]) -> dict[str, list[int]]:
    """Read `--shape name=1,32` options.

    Raises:
        UsageError: an option is malformed or names an input twice.
    """
    shapes: dict[str, list[int]] = {}
    for text in texts:
        name, separator, extents = text.rpartition("=")
        try:
            shape = [int(extent) for extent in extents.replace("x", ",").split(",")]
        except ValueError:
            shape = [0]
        if not separator or not name or any(extent < 1 for extent in shape):
            raise click.UsageError(
                f"cannot read --shape '{text}': write NAME=1,32 with whole numbers"
            )
        if name in shapes:
            raise click.UsageError(f"--shape gives input '{name}' twice")
        shapes[name] = shape
    return shapes


def parse_opset(text: str) -> int | None:
    """Read `--opset`: a number, or `keep` (None).

    Raises:
        UsageError: neither.
    """
    if text == "keep":
        return None
    if text.isdecimal() and int(text) >= 7:
        return int(text)
    raise click.UsageError(f"--opset takes a number from 7 up or 'keep', not '{text}'")


def _check_numbers(error: float, margin: float) -> None:
    if not 0.0 < error < float("inf"):
        raise click.UsageError(f"--error must be a positive number, not {error:g}")
    if not 0.0 <= margin < float("inf"):
        raise click.UsageError(f"--margin must be zero or a positive number, not {margin:g}")


def _check_distinct(paths: Sequence[Path]) -> None:
    resolved = [path.resolve() for path in paths]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise click.UsageError(
                f"'{paths[index]}' is named twice: give each output its own file"
            )


def _check_explain(names: Sequence[str]) -> None:
    from odp.passes import registry
    from odp.rewriter.pass_options import nearest

    for name in names:
        if name not in registry():
            raise click.UsageError(f"--explain: unknown pass '{name}'{nearest(name, registry())}")


def _render(path: Path, report: Report) -> str:
    if path.suffix.lower() == ".json":
        return report.to_json()
    from odp.rewriter.report_html import render_html

    return render_html(report)
