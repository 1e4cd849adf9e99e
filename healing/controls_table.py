"""The controls as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from odp.evaluation.evaluation_table import show_change, show_number
from odp.healing.controls import Controls
from odp.rewriter.report_summary import format_error, format_share
from odp.rewriter.table_style import number_column, plain_table

if TYPE_CHECKING:
    from odp.healing.training import Trained

__all__ = ["render_controls", "render_training"]


def render_controls(controls: Controls, console: Console) -> None:
    """Print the four models on every text, what was recovered, and how varied their answers are."""
    for warning in controls.evaluation.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    table = plain_table("Controls")
    # On 80 columns the names of texts need the room.
    table.show_edge = False
    table.add_column("text", overflow="fold", style="bold", min_width=8)
    table.add_column("model", no_wrap=True)
    for header in ("perplexity", "change", "KL", "top-1", "recovered"):
        number_column(table, header)
    for name in controls.evaluation.original.texts:
        kind = "trained on" if name in controls.training else "held out"
        for index, record in enumerate(controls.models()):
            found = record.differences.get(name)
            recovered = controls.recovered[name]
            is_healed = record is controls.models()[-1] and recovered is not None
            table.add_row(
                Text((name, kind)[index] if index < 2 else "", style="" if index == 0 else "dim"),
                Text(record.name),
                Text(show_number(record.texts[name].perplexity)),
                Text(show_change(found.perplexity_change) if found else ""),
                Text(format_error(found.mean_kl) if found else ""),
                Text(format_share(found.top1) if found else ""),
                Text(f"{recovered:.1%}" if is_healed else ""),
            )
        table.add_section()
    table.caption = Text(
        "KL: mean of KL(original || model) in nats; top-1: same most likely token; recovered: "
        "share of the loss that surgery added"
    )
    console.print(table)
    if not controls.diversity:
        return
    console.print()
    table = plain_table("Answers")
    table.add_column("model", no_wrap=True)
    for header in ("tokens", "repetition", "distinct-1", "distinct-2", "distinct-3"):
        number_column(table, header)
    for name, measured in controls.diversity.items():
        shares = (measured.repetition, *measured.distinct)
        table.add_row(
            Text(name),
            str(measured.tokens),
            *("n/a" if share is None else f"{share:.3f}" for share in shares),
        )
    table.caption = Text(
        "repetition: runs of 4 tokens that came before in the same answer; distinct-n: different "
        "runs of n tokens"
    )
    console.print(table)


def render_training(runs: Mapping[str, Trained | None], console: Console) -> None:
    """Print where each training began and ended."""
    table = plain_table("Training")
    table.add_column("adapter of", no_wrap=True)
    for header in ("steps", "windows", "KL", "", "text loss", "", "s/step"):
        number_column(table, header)
    for name, run in runs.items():
        if run is None:
            continue
        cells = []
        for key in ("kl", "language_model"):
            for entry in (run.first, run.last):
                cells.append(show_number(entry[key]) if entry.get(key) is not None else "n/a")
        table.add_row(
            Text(name),
            str(run.steps),
            str(run.windows),
            *cells,
            f"{run.last['seconds']:.2f}" if run.last else "n/a",
        )
    caption = "KL and loss of the text, in nats a token: first step, last step"
    for name, run in runs.items():
        if run is not None and run.resumed_at:
            caption += f"\n{name}: went on after step {run.resumed_at}"
    table.caption = Text(caption)
    console.print(table)
