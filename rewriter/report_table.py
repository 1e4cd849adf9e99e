"""The report on the terminal: headline, passes, sites, output error, warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from rich.console import Console
from rich.table import Table
from rich.text import Text

from odp.rewriter.report import Metrics, PassRecord, Report, Skipped
from odp.rewriter.report_summary import (
    SiteGroup,
    WorstError,
    approximants_by_key,
    format_cosine,
    format_count,
    format_error,
    format_interval,
    format_share,
    format_upper_bound,
    group_sites,
    headline_output,
    sites_of_pass,
    worst_error,
)
from odp.rewriter.statistics import statistics
from odp.rewriter.table_style import VERY_WIDE, WIDE, Signs, number_column, plain_table

__all__ = ["PassSummary", "render", "render_explanations", "render_passes_list"]


@dataclass(frozen=True)
class PassSummary:
    """A pass as `--list-passes` shows it.

    Attributes:
        name: as a user types it.
        summary: one line on what it finds.
        options: option name to default.
    """

    name: str
    summary: str
    options: Mapping[str, object] = field(default_factory=dict)


def render(report: Report, console: Console) -> None:
    """Print the report.

    Numbers are never shortened from 80 columns on; names and lists of patterns wrap instead.

    Args:
        report: what was rewritten.
        console: where to print; its width decides how many columns the tables have.
    """
    signs = Signs.of(console)
    for warning in report.warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), (warning, "yellow")))
    if report.warnings:
        console.print()
    console.print(_headline(report, signs))
    if not report.sites and not any(record.folded for record in report.passes):
        refused = any(record.skipped for record in report.passes)
        why = (
            "Nothing was replaced"
            if refused
            else "Nothing to do: no pass found anything to replace"
        )
        console.print(f"\n{why}.")
    if report.passes:
        console.print()
        console.print(_passes_table(report, console.width, signs))
    groups = group_sites(report)
    if groups:
        console.print(_sites_table(report, groups, console.width, signs))
        console.print(
            Text(
                f"{signs.certified} certified on the domain, {signs.measured} measured on a grid, "
                "both in real arithmetic; observed: on the calibration data, in float32",
                style="dim",
            )
        )
        console.print()
    if report.total:
        console.print(_output_table(report))
    for record in report.passes:
        reasons = Counter(skipped.reason for skipped in record.skipped)
        for reason, count in reasons.items():
            first = next(s.node for s in record.skipped if s.reason == reason)
            where = f"'{first}'" if count == 1 else f"'{first}' and {format_count(count - 1)} more"
            line = Text.assemble((f"{record.name}: ", "bold"), f"left alone {where}: {reason}")
            console.print(line, style="yellow")
    for record in report.passes:
        for note in record.notes:
            console.print(Text.assemble((f"{record.name}: ", "bold"), note))


def render_passes_list(passes: Iterable[PassSummary], console: Console) -> None:
    """Print the passes that can be asked for, with their options and defaults."""
    table = plain_table()
    table.add_column("pass", no_wrap=True, style="bold")
    table.add_column("finds", overflow="fold", ratio=3)
    table.add_column("options", overflow="fold", ratio=2, style="dim")
    for item in passes:
        options = ", ".join(f"{name}={value}" for name, value in item.options.items())
        table.add_row(Text(item.name), Text(item.summary), Text(options))
    console.print(table)


def render_explanations(skipped: Sequence[Skipped], console: Console) -> None:
    """Print why nodes were left alone: node, operator, reason."""
    if not skipped:
        console.print("No near misses: every candidate node matched.")
        return
    table = plain_table()
    table.add_column("node", overflow="fold", ratio=2)
    table.add_column("op", overflow="fold", max_width=24)
    table.add_column("reason", overflow="fold", ratio=3)
    for item in skipped:
        table.add_row(Text(item.node or "(unnamed)"), Text(item.op), Text(item.reason))
    console.print(table)


def _headline(report: Report, signs: Signs) -> Table:
    model = report.model
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    name = PurePath(model.path).name if model.path else "model in memory"
    grid.add_row("model", Text(name, style="bold"))
    left = sum(model.transcendental_after.values())
    before = sum(model.transcendental_before.values())
    after = (
        Text(f"{format_count(left)} left: {_counts(model.transcendental_after)}", "bold yellow")
        if left
        else Text("0 left", "bold green")
    )
    grid.add_row(
        "transcendental ops", Text.assemble(f"{format_count(before)} {signs.arrow} ", after)
    )
    if before:
        grid.add_row("", Text(f"before: {_counts(model.transcendental_before)}", "dim"))
    grid.add_row(
        "nodes",
        f"{format_count(model.nodes_before)} {signs.arrow} {format_count(model.nodes_after)}",
    )
    if model.opset_before is not None:
        grid.add_row("opset", f"{model.opset_before} {signs.arrow} {model.opset_after}")
    if report.sites:
        found = statistics(report)
        grid.add_row("replaced", Text(found.parts()))
        grid.add_row("eliminated", Text(found.operations()))
    passes = "1 pass" if len(report.passes) == 1 else f"{len(report.passes)} passes"
    grid.add_row("sites", f"{format_count(len(report.sites))} in {passes}")
    if report.calibration:
        words = [
            str(value) if key == "source" else f"{key} {value}"
            for key, value in report.calibration.items()
        ]
        grid.add_row("calibration", Text(", ".join(words)))
    return grid


def _passes_table(report: Report, width: int, signs: Signs) -> Table:
    output = headline_output(report)
    measured = [*(record.isolated for record in report.passes), report.total]
    measured += [record.cumulative for record in report.passes]
    is_distribution = any(metrics.kl is not None for item in measured for metrics in item.values())
    table = plain_table("Passes")
    table.add_column("pass", overflow="fold", style="bold", min_width=8)
    table.add_column("patterns", overflow="fold", ratio=1, min_width=14)
    number_column(table, "sites")
    if width >= WIDE:
        number_column(table, "declared")
        number_column(table, "observed")
    number_column(table, "alone")
    number_column(table, "cumulative")
    if is_distribution:
        number_column(table, "KL")
        number_column(table, "top-1")
    if width >= VERY_WIDE:
        number_column(table, "max abs")
        number_column(table, "cosine")
        number_column(table, "seconds")
    approximants = approximants_by_key(report)
    for record in report.passes:
        if _found_nothing(record):
            continue
        worst = worst_error(sites_of_pass(report, record), approximants)
        table.add_row(*_pass_cells(record, worst, output, is_distribution, width, signs))
    idle = [record.name for record in report.passes if _found_nothing(record)]
    caption = f"nothing found for {', '.join(idle)}\n" if idle else ""
    caption += "alone, cumulative: relative l2 error of the output"
    if is_distribution:
        caption += "; KL (nats), top-1: cumulative"
    if output is not None and len(report.total) > 1:
        caption += f"; output {output}"
    table.caption = Text(caption)
    return table


def _found_nothing(record: PassRecord) -> bool:
    return not (record.patterns or record.folded or record.skipped)


def _pass_cells(
    record: PassRecord,
    worst: WorstError | None,
    output: str | None,
    is_distribution: bool,
    width: int,
    signs: Signs,
) -> list[Text | str]:
    alone, cumulative = record.isolated.get(output or ""), record.cumulative.get(output or "")
    patterns = ", ".join(f"{name} {count}" for name, count in record.patterns.items())
    if record.folded:
        patterns += f"{', ' if patterns else ''}{format_count(record.folded)} nodes folded"
    cells: list[Text | str] = [Text(record.name), Text(patterns or "none found")]
    cells.append(format_count(record.sites))
    if width >= WIDE:
        # A pass that only folds constants has no site and no error.
        exact = "exact" if record.folded and not record.sites else "n/a"
        cells += [_declared(worst, signs) if worst else exact]
        cells += [format_error(worst.observed) if worst else exact]
    cells += [format_error(alone.relative_l2 if alone else None)]
    cells += [format_error(cumulative.relative_l2 if cumulative else None)]
    if is_distribution:
        cells += [format_error(cumulative.kl if cumulative else None)]
        cells += [format_share(cumulative.top1 if cumulative else None)]
    if width >= VERY_WIDE:
        cells += [format_error(cumulative.max_abs if cumulative else None)]
        cells += [format_cosine(cumulative.cosine if cumulative else None)]
        cells += [f"{record.seconds:.2f}"]
    return cells


def _sites_table(report: Report, groups: list[SiteGroup], width: int, signs: Signs) -> Table:
    approximants = approximants_by_key(report)
    table = plain_table("Sites")
    table.add_column("pass", overflow="fold", style="bold", min_width=6)
    table.add_column("function", overflow="fold", min_width=6)
    table.add_column("scheme", overflow="fold", min_width=6)
    if width >= VERY_WIDE:
        table.add_column("domain", no_wrap=True)
    number_column(table, "sites")
    table.add_column("operations per element", overflow="fold", ratio=1, min_width=9)
    number_column(table, "declared")
    number_column(table, "observed")
    previous = None
    for group in groups:
        worst = worst_error(group.sites, approximants)
        cells: list[Text | str] = [
            Text(group.pass_name if group.pass_name != previous else ""),
            Text(group.function),
            Text(group.scheme),
        ]
        if width >= VERY_WIDE:
            lows, highs = zip(*(site.domain for site in group.sites), strict=True)
            cells.append(Text(format_interval((min(lows), max(highs)))))
        cells += [format_count(len(group.sites)), Text(group.operations())]
        cells += [_declared(worst, signs) if worst else "n/a"]
        cells += [format_error(worst.observed) if worst else "n/a"]
        table.add_row(*cells)
        previous = group.pass_name
    return table


def _output_table(report: Report) -> Table:
    lowered = "" if report.model.opset_after is None else f", opset {report.model.opset_after}"
    table = plain_table(f"Output error, all passes{lowered}")
    table.add_column("output", overflow="fold", style="bold", min_width=8)
    for header, _ in _metric_cells(Metrics(0, 0, 0, 0)):
        number_column(table, header)
    for name, metrics in report.total.items():
        table.add_row(Text(name), *(cell for _, cell in _metric_cells(metrics)))
    return table


def _metric_cells(metrics: Metrics) -> list[tuple[str, str]]:
    return [
        ("rel l2", format_error(metrics.relative_l2)),
        ("cosine", format_cosine(metrics.cosine)),
        ("max abs", format_error(metrics.max_abs)),
        ("rmse", format_error(metrics.rmse)),
        ("KL", format_error(metrics.kl)),
        ("top-1", format_share(metrics.top1)),
    ]


def _declared(worst: WorstError, signs: Signs) -> str:
    sign = signs.certified if worst.certified else signs.measured
    shown = (format_upper_bound if worst.certified else format_error)(worst.declared)
    return f"{sign} {shown} {worst.kind}"


def _counts(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {format_count(count)}" for name, count in ordered)
