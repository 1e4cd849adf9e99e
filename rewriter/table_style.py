"""How tables look on a terminal, the same in every command."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["VERY_WIDE", "WIDE", "Signs", "number_column", "plain_table"]

# From these widths on there is room for columns that repeat or refine what other columns say.
WIDE, VERY_WIDE = 100, 140


@dataclass(frozen=True)
class Signs:
    """Signs that not every terminal encoding has.

    Attributes:
        arrow: from what was to what is, or to what matters.
        certified: before an error that is proven.
        measured: before one that was only measured.
    """

    arrow: str
    certified: str
    measured: str

    @classmethod
    def of(cls, console: Console) -> Signs:
        """The signs that a console can show."""
        return cls("->", "<=", "~") if console.options.ascii_only else cls("→", "≤", "≈")


def plain_table(title: str | None = None) -> Table:
    """A table with no lines but the one below its header."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        caption_style="dim",
        box=box.SIMPLE_HEAD,
        header_style="dim",
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
        expand=False,
    )


def number_column(table: Table, header: str) -> None:
    """Add a column of numbers, which are never shortened or wrapped."""
    table.add_column(header, justify="right", no_wrap=True)
