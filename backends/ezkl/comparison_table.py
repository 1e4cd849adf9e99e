"""Circuits of one model side by side, for a terminal and as HTML."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from rich.console import Console

from odp.backends.ezkl.comparison import Competitor
from odp.rewriter.table_style import plain_table

__all__ = ["render", "to_html"]


def render(competitors: Sequence[Competitor], console: Console) -> None:
    """Print the table, with each figure as a ratio to the first circuit behind it."""
    table = plain_table()
    table.add_column("", style="bold", no_wrap=True)
    for one in competitors:
        table.add_column(one.name, justify="right", overflow="fold")
    for title, cell in _LINES:
        cells = [cell(one) for one in competitors]
        if any(cells):
            table.add_row(title, *cells)
    console.print(table)
    for one in competitors:
        if one.failure:
            console.print(f"{one.name}: {one.failure}", markup=False, soft_wrap=True)


def to_html(competitors: Sequence[Competitor]) -> str:
    """The table as a page of its own."""
    console = Console(record=True, width=120, file=io.StringIO())
    render(competitors, console)
    return console.export_html(inline_styles=True)


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


_LINES: tuple[tuple[str, Callable[[Competitor], str]], ...] = (
    ("rows", lambda c: f"{c.rows:,}" if c.rows else ""),
    ("inner columns", lambda c: str(c.inner_columns) if c.rows else ""),
    ("logrows", lambda c: str(c.logrows) if c.logrows else ""),
    ("tables", lambda c: (", ".join(c.tables) or "none") if c.rows else ""),
    ("table entries", lambda c: f"{c.table_entries:,}" if c.rows else ""),
    ("range checks", lambda c: str(len(c.range_checks)) if c.rows else ""),
    ("error", lambda c: "" if c.error is None else f"{c.error:.2g}"),
    ("setup", lambda c: _seconds(c.setup_seconds)),
    ("proof", lambda c: _seconds(c.prove_seconds)),
    ("verification", lambda c: _seconds(c.verify_seconds)),
    ("proving key", lambda c: _bytes(c.proving_key)),
    ("verifying key", lambda c: _bytes(c.verifying_key)),
    ("proof file", lambda c: _bytes(c.proof)),
    ("peak memory", lambda c: _bytes(c.peak_memory)),
    ("verified", lambda c: "" if c.verified is None else ("yes" if c.verified else "NO")),
)
