"""A prediction of costs, for people on a terminal and for programs as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from odp.backends.ezkl.cost_report import CostReport, NodeCost
from odp.rewriter.table_style import WIDE, number_column, plain_table

__all__ = ["render", "to_json"]

# What a reader wants to know first; the rest is one line that sums it up.
_SHOWN = 15


def render(report: CostReport, console: Console, nodes: int = _SHOWN) -> None:
    """Print totals, what dominates, and the most expensive nodes.

    Args:
        report: what was predicted.
        console: where to print; its width decides how many columns the table of nodes has.
        nodes: how many nodes to list.
    """
    console.print(_headline(report))
    for item in report.unknown:
        where = f"'{item.source.name}' ({item.source.op_type})"
        console.print(Text(f"not counted: {where}: {item.reason}", style="yellow"))
    console.print()
    console.print(_totals(report))
    console.print(_operations(report))
    console.print(_nodes(report, console.width, nodes))
    console.print(
        Text(
            "rows and sizes follow EZKL's own layout; memory is fitted to within 25 %; times are "
            "those of 2 shared cores and will differ on yours",
            style="dim",
        )
    )


def to_json(report: CostReport) -> str:
    """The whole prediction as JSON, rows of nodes and resources included."""
    document: dict[str, Any] = dataclasses.asdict(report)
    document["lookups"] = [
        {"name": table.name, **dict(table.parameters)} for table in report.lookups
    ]
    document["table_entries"] = report.table_entries
    document["rescale_rows"] = report.rescale_rows
    document["rescaled_elements"] = report.rescaled_elements
    document["rows_by_operation"] = report.rows_by_operation()
    document["resources"]["peak_memory"] = report.resources.peak_memory
    document["resources"]["columns"]["extension"] = report.resources.columns.extension
    return json.dumps(document, indent=2)


def _headline(report: CostReport) -> Text:
    share = report.rescale_rows / report.rows if report.rows else 0.0
    return Text.assemble(
        (f"{report.rows:,} rows", "bold"),
        f", logrows {report.logrows}, ",
        f"{len(report.lookups)} tables, proving key {_size(report.resources.proving_key)}; ",
        (f"{share:.0%} of the rows are rescales", "bold"),
        f" of {report.rescaled_elements:,} elements",
    )


def _totals(report: CostReport) -> Table:
    resources = report.resources
    columns = resources.columns
    ranges = ", ".join(f"[{low}, {high}]" for low, high in report.range_checks)
    names = ", ".join(table.name for table in report.lookups) or "none"
    table = plain_table()
    table.add_column("total", no_wrap=True, style="bold")
    table.add_column("", overflow="fold")
    table.add_row("tables", f"{names}; {report.table_entries:,} entries")
    table.add_row("range checks", ranges or "none")
    table.add_row("constants", f"{report.constants:,}")
    table.add_row("matrix products", f"{report.einsum_cells:,} cells of Freivalds' algorithm")
    if report.shuffles:
        table.add_row("sorts", f"{report.shuffles:,}, {report.shuffle_cells:,} cells")
    table.add_row(
        "columns",
        f"{columns.advice} advice, {columns.fixed} fixed, {columns.lookups} lookup arguments; "
        f"degree {columns.degree}, extended {columns.extension} times",
    )
    table.add_row(
        "keys",
        f"{_size(resources.proving_key)} to prove, {_size(resources.verifying_key)} to verify",
    )
    table.add_row("proof", f"{_size(resources.proof)}, as a file {_size(resources.proof_file)}")
    table.add_row("setup", f"{_size(resources.setup_memory)}, {_time(resources.setup_seconds)}")
    table.add_row("prove", f"{_size(resources.proof_memory)}, {_time(resources.proof_seconds)}")
    best = min(report.alternatives, key=lambda other: other.peak_memory, default=resources)
    if best.peak_memory < resources.peak_memory:
        table.add_row(
            "less memory",
            f"{_size(best.peak_memory)} with {best.columns.advice} advice columns at logrows "
            f"{best.logrows}",
        )
    return table


def _operations(report: CostReport) -> Table:
    table = plain_table("What dominates")
    table.add_column("operation", no_wrap=True, style="bold")
    number_column(table, "rows")
    number_column(table, "share")
    for name, rows in report.rows_by_operation().items():
        if rows > 0:
            table.add_row(name, f"{rows:,.0f}", _share(rows, report.rows))
    return table


def _nodes(report: CostReport, width: int, limit: int) -> Table:
    ranked = sorted((n for n in report.nodes if n.rows > 0), key=lambda n: -n.rows)
    table = plain_table("Most expensive nodes")
    table.add_column("node", overflow="fold", style="bold")
    table.add_column("operator", no_wrap=True)
    if width >= WIDE:
        table.add_column("in EZKL", no_wrap=True)
    number_column(table, "elements")
    number_column(table, "bits")
    number_column(table, "rows")
    number_column(table, "share")
    for node in ranked[:limit]:
        cells = [node.module_path or node.name, node.op_type]
        if width >= WIDE:
            cells.append(f"{node.operation} + rescale" if node.rescale_rows else node.operation)
        cells += [
            f"{node.elements:,}",
            _labels(node),
            f"{node.rows:,.0f}",
            _share(node.rows, report.rows),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    rest = ranked[limit:]
    if rest:
        rows = sum(node.rows for node in rest)
        blank = [""] * (4 if width >= WIDE else 3)
        table.add_row(f"{len(rest):,} more", *blank, f"{rows:,.0f}", _share(rows, report.rows))
    return table


def _labels(node: NodeCost) -> str:
    """Bits after the point, before and after a rescale."""
    if node.rescaled_bits:
        return f"{node.label_before} - {node.rescaled_bits}"
    return str(node.label_after)


def _share(rows: float, total: int) -> str:
    return f"{rows / total:.1%}" if total else "n/a"


def _size(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:.0f} B"


def _time(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"
