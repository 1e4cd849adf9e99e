"""`odp calibrate`: which inputs every site of a language model sees, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from odp.cli.language_model import MODEL, calibration_of, load, model_options
from odp.cli.shared_options import QUIET

__all__ = ["calibrate_command"]


@click.command("calibrate")
@MODEL
@model_options
@click.option("-p", "--passes", default="all", show_default=True, metavar="PASSES")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Where the ranges go. Default: MODEL.ranges.json in the current folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the ranges instead of a table.")
@QUIET
def calibrate_command(
    model: Path,
    calibrations: Sequence[Path],
    calibrate_context: int | None,
    samples: int | None,
    dtype: str,
    device: str | None,
    attention: str | None,
    passes: str,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run a language MODEL on texts and write which range of inputs every site has seen.

    MODEL is a folder of transformers or a GGUF file. The ranges are what takes time; 'odp
    evaluate --calibrate ranges.json' and odp.rewrite(..., calibration="ranges.json") choose
    expressions from them in seconds, for any error.
    """
    from odp.backends.whole_files import check_writable, write_text
    from odp.cli.terminal import Terminal

    if not calibrations:
        raise click.UsageError("give at least one text with --calibrate")
    calibration = calibration_of(calibrations)
    target = output or Path(f"{model.resolve().stem}.ranges.json")
    check_writable(target)
    terminal = Terminal(quiet=quiet or as_json)
    loaded = load(model, dtype, device, attention, terminal)

    from odp.rewriting import calibrate

    with terminal.progress() as advance:
        ranges = calibrate(
            loaded.model,
            passes,
            calibration=calibration,
            tokenizer=loaded.tokenizer,
            context=calibrate_context,
            samples=samples,
            progress=advance,
        )
        write_text(target, ranges.to_json())
    if as_json:
        click.echo(ranges.to_json())
        return 0
    if not quiet:
        _show(ranges, terminal.console)
        terminal.wrote(target)
    return 0


def _show(ranges: object, console: object) -> None:
    from rich.console import Console
    from rich.markup import escape

    from odp.rewriter.ranges import Ranges
    from odp.rewriter.report_summary import format_interval
    from odp.rewriter.table_style import plain_table

    assert isinstance(ranges, Ranges) and isinstance(console, Console)
    table = plain_table(f"Inputs of {len(ranges.observations)} sites on {ranges.samples} windows")
    for header in ("module", "function", "inputs", ""):
        table.add_column(header, overflow="fold")
    for site_id, seen in ranges.observations.items():
        module, function = ranges.places[site_id]
        inputs = "none" if seen.is_empty else format_interval((seen.low, seen.high))
        table.add_row(escape(module), function, inputs, "and masks" if seen.masked else "")
    console.print(table)
