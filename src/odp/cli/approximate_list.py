"""`odp approximate --list`: functions, schemes and targets that have a name."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from odp.approximations import FUNCTIONS, SCHEMES, TARGETS, Interval
from odp.rewriter.report_summary import format_interval
from odp.rewriter.table_style import number_column, plain_table

__all__ = ["listing", "render_listing"]


def listing() -> dict[str, list[dict[str, Any]]]:
    """Functions, schemes and targets as plain values, ready for JSON."""
    return {
        "functions": [
            {
                "name": function.name,
                "definition": function.source,
                "domain": _bounds(function.domain),
                "error": "relative" if function.relative else "absolute",
            }
            for function in FUNCTIONS.values()
        ],
        "schemes": [
            {"name": name, "summary": scheme.summary, "parameters": dict(scheme.parameters)}
            for name, scheme in SCHEMES.items()
        ],
        "targets": [
            {
                "name": name,
                "summary": target.summary,
                "multiplication": target.multiplication,
                "constant_multiplication": target.constant_multiplication,
                "division": target.division,
                "addition": target.addition,
                "depth": target.depth,
                "arithmetic": str(target.arithmetic),
            }
            for name, target in TARGETS.items()
        ],
    }


def render_listing(console: Console) -> None:
    """Print functions, schemes and targets."""
    known = listing()
    functions = plain_table("Functions")
    functions.add_column("name", no_wrap=True, style="bold")
    functions.add_column("definition", overflow="fold", ratio=1)
    functions.add_column("real on", no_wrap=True)
    functions.add_column("error", no_wrap=True, style="dim")
    for row in known["functions"]:
        domain = format_interval(row["domain"])
        functions.add_row(Text(row["name"]), Text(row["definition"]), Text(domain), row["error"])
    functions.caption = Text(
        "and pow(0.75), pow(-1/3), ..., or any formula of one variable, such as x*exp(-x**2)"
    )
    console.print(functions)

    schemes = plain_table("Schemes")
    schemes.add_column("name", no_wrap=True, style="bold")
    schemes.add_column("what it is, and its parameters for --set", overflow="fold", ratio=1)
    for row in known["schemes"]:
        about = Text(row["summary"])
        for name, meaning in row["parameters"].items():
            about.append(f"\n{name}: {meaning}", "dim")
        schemes.add_row(Text(row["name"]), about)
    console.print(schemes)

    targets = plain_table("Targets")
    targets.add_column("name", no_wrap=True, style="bold")
    targets.add_column("what it is", overflow="fold", ratio=1)
    for header in ("mul", "by const", "div", "add", "level"):
        number_column(targets, header)
    for row in known["targets"]:
        keys = ("multiplication", "constant_multiplication", "division", "addition", "depth")
        costs = ("-" if row[key] is None else f"{row[key]:g}" for key in keys)
        targets.add_row(Text(row["name"]), Text(row["summary"]), *costs)
    targets.caption = Text("costs of one operation; level: of each on the longest path")
    console.print(targets)


def _bounds(interval: Interval) -> list[float | None]:
    return [x if abs(x) != float("inf") else None for x in (interval.lo, interval.hi)]
