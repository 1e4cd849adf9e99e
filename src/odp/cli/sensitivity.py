"""`odp sensitivity`: which site costs the quality, and what a budget of operations buys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from odp.cli.language_model import MODEL, calibration_of, load, model_options
from odp.cli.shared_options import JSON

if TYPE_CHECKING:
    from rich.console import Console

    from odp.budgeting import Budget

__all__ = ["sensitivity_command"]


@click.command("sensitivity")
@MODEL
@model_options
@click.option("-p", "--passes", default="all", show_default=True, metavar="PASSES")
@click.option(
    "--coarse",
    default=1e-2,
    show_default=True,
    metavar="E",
    type=float,
    help="Error of the expressions that are measured with.",
)
@click.option(
    "--operations",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Spend so many multiplications a token (a division is 3) over all sites.",
)
@click.option("--top", default=20, show_default=True, type=click.IntRange(min=1), metavar="N")
@JSON
def sensitivity_command(
    model: Path,
    calibrations: Sequence[Path],
    calibrate_context: int | None,
    samples: int | None,
    dtype: str,
    device: str | None,
    attention: str | None,
    passes: str,
    coarse: float,
    operations: float | None,
    top: int,
    as_json: bool,
) -> int:
    """Rank the sites of a language MODEL by what their error does to its predictions.

    Each site alone gets a coarse expression, and the KL divergence from the original is measured;
    it grows with the square of the error. With --operations the cheapest allocation of errors to
    sites is computed exactly, and measured beside one error for all.
    """
    from odp.cli.terminal import Terminal

    if not calibrations:
        raise click.UsageError("give at least one text with --calibrate")
    if any(file.suffix == ".json" for file in calibrations):
        raise click.UsageError("sensitivity is measured on texts; --calibrate cannot be ranges")
    terminal = Terminal(quiet=as_json)
    loaded = load(model, dtype, device, attention, terminal)

    from odp.budgeting import allocate_operations, sensitivity

    calibration = calibration_of(calibrations)
    with terminal.progress() as advance:
        if operations is None:
            budget = sensitivity(
                loaded.model,
                passes,
                calibration=calibration,
                tokenizer=loaded.tokenizer,
                context=calibrate_context,
                samples=samples or 2,
                coarse=coarse,
                progress=advance,
            )
        else:
            _, budget = allocate_operations(
                loaded.model,
                operations,
                passes,
                calibration=calibration,
                tokenizer=loaded.tokenizer,
                context=calibrate_context,
                samples=samples or 2,
                coarse=coarse,
                progress=advance,
            )
    if as_json:
        click.echo(budget.to_json())
    else:
        show(budget, terminal.console, top)
    return 0


def show(budget: Budget, console: Console, top: int) -> None:
    """Print the most sensitive sites, what errors cost, and the allocation if there is one."""
    from rich.markup import escape

    from odp.rewriter.report_summary import format_error
    from odp.rewriter.table_style import number_column, plain_table

    table = plain_table(f"Sensitivity on {budget.tokens:,} tokens, windows of {budget.context}")
    table.add_column("module", overflow="fold")
    table.add_column("function")
    for header in ("error", "KL alone", "KL / error²", "per token"):
        number_column(table, header)
    if budget.allocated:
        number_column(table, "allocated")
    for site in budget.sites[:top]:
        row = [
            escape(site.module),
            site.function,
            format_error(site.error),
            format_error(site.kl),
            format_error(site.coefficient),
            f"{site.per_token:,.0f}",
        ]
        if budget.allocated:
            row.append(format_error(budget.allocated.get(site.site)))
        table.add_row(*row)
    console.print(table)
    if len(budget.sites) > top:
        console.print(f"and {len(budget.sites) - top} sites that matter less (--top)")
    console.print()
    prices = plain_table("One error for all sites")
    for header in ("error", "operations / token", "predicted KL"):
        number_column(prices, header)
    for price in budget.uniform:
        row = [format_error(price.error), f"{price.operations:,.0f}"]
        prices.add_row(*row, format_error(price.predicted_kl))
    console.print(prices)
    if budget.operations is None:
        return
    console.print()
    spent = plain_table(f"Within {budget.operations:,.0f} operations a token")
    spent.add_column("")
    for header in ("predicted KL", "measured KL"):
        number_column(spent, header)
    spent.add_row("allocated", format_error(budget.predicted_kl), format_error(budget.measured_kl))
    if budget.best_uniform is not None:
        spent.add_row(
            f"error {format_error(budget.best_uniform.error)} for all",
            format_error(budget.best_uniform.predicted_kl),
            format_error(budget.measured_uniform_kl),
        )
    console.print(spent)
