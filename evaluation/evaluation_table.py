"""The evaluation as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from odp.evaluation.answers_table import answers_table
from odp.evaluation.record import (
    Difference,
    Evaluation,
    ModelRecord,
    Perplexity,
    TaskScore,
)
from odp.rewriter.report_summary import format_count, format_error, format_share
from odp.rewriter.table_style import VERY_WIDE, WIDE, Signs, number_column, plain_table

__all__ = ["render", "render_tasks", "show_change", "show_cosine", "show_number"]


def render(evaluation: Evaluation, console: Console) -> None:
    """Print everything that was measured.

    Args:
        evaluation: what was found.
        console: where to print; on a narrow one columns that refine others are left out.
    """
    signs = Signs.of(console)
    for warning in evaluation.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    console.print(_headline(evaluation, signs))
    console.print()
    console.print(_scores_table(evaluation, console.width))
    if any(variant.layer_errors for variant in evaluation.variants):
        console.print()
        console.print(_layers_table(evaluation.variants))
    if evaluation.original.speed is not None:
        console.print()
        console.print(_speed_table([evaluation.original, *evaluation.variants]))
    if evaluation.tasks:
        console.print()
        render_tasks(evaluation.tasks, console)
    for generation in evaluation.generations:
        console.print()
        console.print(answers_table(generation, console))


def render_tasks(tasks: Sequence[TaskScore], console: Console) -> None:
    """Print what lm-evaluation-harness found, one row for each task, metric and model."""
    table = plain_table("Tasks")
    table.add_column("task", overflow="fold", style="bold", min_width=8)
    table.add_column("metric", overflow="fold", min_width=6)
    table.add_column("model", overflow="fold", min_width=8)
    if console.width >= WIDE:
        number_column(table, "questions")
    for header in ("value", "stderr", "difference"):
        number_column(table, header)
    previous = ""
    for row in tasks:
        for index, (name, value) in enumerate(row.values.items()):
            cells = [
                Text(row.task if row.task != previous else ""),
                Text(row.metric if index == 0 else ""),
                Text(name),
            ]
            if console.width >= WIDE:
                cells.append(Text(format_count(row.samples) if index == 0 else ""))
            stderr, difference = row.stderr[name], row.differences.get(name)
            cells += [
                Text(show_number(value)),
                Text("n/a" if stderr is None else show_number(stderr)),
                Text("" if difference is None else _signed(difference)),
            ]
            table.add_row(*cells)
            previous = row.task
    console.print(table)


def _headline(evaluation: Evaluation, signs: Signs) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for record in (evaluation.original, *evaluation.variants):
        words = (
            f"{record.architecture}, {format_count(record.parameters)} parameters, "
            f"{record.dtype} on {record.device}"
        )
        if record is evaluation.original:
            grid.add_row("original", words)
        else:
            grid.add_row("variant", Text.assemble((record.name, "bold"), f": {words}"))
    windows = evaluation.windows
    begin = ", each after a begin token" if windows.begin_token is not None else ""
    most = f", at most {format_count(windows.max_tokens)} tokens of a text"
    grid.add_row(
        "windows",
        f"{windows.context} tokens every {windows.stride}{begin}"
        f"{'' if windows.max_tokens is None else most}",
    )
    before = evaluation.original.total
    for variant in evaluation.variants:
        if variant.difference is None or variant.total is None or before is None:
            continue
        change = show_change(variant.difference.perplexity_change)
        is_sane = math.isfinite(variant.total.perplexity)
        grid.add_row(
            "perplexity",
            Text.assemble(
                f"{_perplexity(before)} {signs.arrow} ",
                (f"{_perplexity(variant.total)} ({change})", "bold" if is_sane else "bold red"),
                f" {variant.name}" if len(evaluation.variants) > 1 else "",
            ),
        )
    return grid


def _scores_table(evaluation: Evaluation, width: int) -> Table:
    records = (evaluation.original, *evaluation.variants)
    is_broken = any(record.total and record.total.not_finite for record in records)
    table = plain_table("Predictions")
    table.add_column("text", overflow="fold", style="bold", min_width=8)
    table.add_column("model", overflow="fold", min_width=8)
    if width >= WIDE:
        number_column(table, "tokens")
    for header in ("perplexity", "change", "KL"):
        number_column(table, header)
    if width >= WIDE:
        number_column(table, "max KL")
    number_column(table, "top-1")
    if width >= WIDE:
        number_column(table, "top-5")
        number_column(table, "top-10")
    # On a narrow terminal there is room for one of both, and a broken model has no cosine.
    has_cosine = width >= WIDE or not is_broken
    if has_cosine:
        number_column(table, "cosine")
    if width >= VERY_WIDE:
        number_column(table, "least")
    if is_broken:
        number_column(table, "not finite")
    names = list(evaluation.original.texts)
    for name in names:
        scores = [record.texts[name] for record in records]
        differences = [record.differences.get(name) for record in records]
        _add_text(table, name, records, scores, differences, width, is_broken)
    totals = [record.total for record in records]
    if len(names) > 1 and all(total is not None for total in totals):
        known = [total for total in totals if total is not None]
        table.add_section()
        differences = [record.difference for record in records]
        _add_text(table, "all texts", records, known, differences, width, is_broken)
    caption = "KL: mean of KL(original || variant) in nats; top-1: same most likely token"
    if width >= WIDE:
        caption += "; top-5, top-10: shared part of the five, ten most likely"
    if has_cosine:
        caption += "; cosine: of the logits, mean over tokens"
    if width >= VERY_WIDE:
        caption += ", and the least of them"
    if is_broken:
        caption += "\nnot finite: positions whose logits are nan or infinite"
    table.caption = Text(caption)
    return table


def _add_text(
    table: Table,
    text: str,
    records: Sequence[ModelRecord],
    scores: Sequence[Perplexity],
    differences: Sequence[Difference | None],
    width: int,
    is_broken: bool,
) -> None:
    for index, (record, score, found) in enumerate(zip(records, scores, differences, strict=True)):
        cells = [Text(text if index == 0 else ""), Text(record.name)]
        if width >= WIDE:
            cells.append(Text(format_count(score.tokens) if index == 0 else ""))
        cells.append(Text(_perplexity(score)))
        cells.append(Text(show_change(found.perplexity_change) if found else ""))
        cells.append(Text(format_error(found.mean_kl) if found else ""))
        if width >= WIDE:
            cells.append(Text(format_error(found.max_kl) if found else ""))
        cells.append(Text(format_share(found.top1) if found else ""))
        if width >= WIDE:
            cells.append(Text(format_share(found.top5) if found else ""))
            cells.append(Text(format_share(found.top10) if found else ""))
        if width >= WIDE or not is_broken:
            cells.append(Text(show_cosine(found.cosine) if found else ""))
        if width >= VERY_WIDE:
            cells.append(Text(show_cosine(found.min_cosine) if found else ""))
        if is_broken:
            cells.append(Text(format_count(score.not_finite)))
        table.add_row(*cells)


def _layers_table(variants: Sequence[ModelRecord]) -> Table:
    table = plain_table("Layers")
    number_column(table, "layer")
    measured = {v.name: v.layer_errors for v in variants if v.layer_errors is not None}
    for name in measured:
        table.add_column(Text(name), justify="right", overflow="fold")
    for index, errors in enumerate(zip(*measured.values(), strict=True)):
        table.add_row(str(index), *(format_error(error) for error in errors))
    table.caption = Text("relative l2 error of the hidden states after each layer")
    return table


def _speed_table(records: Sequence[ModelRecord]) -> Table:
    table = plain_table("Tokens per second")
    table.add_column("model", overflow="fold", style="bold", min_width=8)
    for header in ("prefill", "ratio", "decode", "ratio"):
        number_column(table, header)
    for record in records:
        speed = record.speed
        if speed is not None:
            table.add_row(
                Text(record.name),
                _rate(speed.prefill),
                f"{speed.prefill_ratio:.2f}",
                _rate(speed.decode),
                f"{speed.decode_ratio:.2f}",
            )
    table.caption = Text("batch 1, greedy, with key-value cache; ratio: to the original")
    return table


def _perplexity(score: Perplexity) -> str:
    return show_number(score.perplexity)


def show_number(value: float) -> str:
    """A number of any size with at least four significant digits.

    >>> show_number(12.34567), show_number(0.25), show_number(1234567.0), show_number(float("inf"))
    ('12.346', '0.2500', '1.235e6', 'inf')
    """
    if not math.isfinite(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e5:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"+{show_number(value)}" if value > 0 else show_number(value)


def show_change(change: float) -> str:
    """A relative change in percent; tiny ones keep their size.

    >>> show_change(0.0123), show_change(-2.5e-7), show_change(0.0), show_change(float("inf"))
    ('+1.230 %', '-2.5e-5 %', '0 %', 'n/a')
    """
    if not math.isfinite(change):
        return "n/a"
    percent = change * 100
    if percent == 0:
        return "0 %"
    sign = "+" if percent > 0 else "-"
    shown = f"{abs(percent):.3f}" if abs(percent) >= 5e-3 else format_error(abs(percent))
    return f"{sign}{shown} %"


def show_cosine(cosine: float) -> str:
    """A cosine; one near 1 by its distance from it.

    >>> show_cosine(0.957), show_cosine(1.0), show_cosine(1 - 2.5e-7), show_cosine(float("inf"))
    ('0.9570', '1', '1 - 2.5e-7', 'n/a')
    """
    if not math.isfinite(cosine):
        return "n/a"
    if cosine == 1:
        return "1"
    distance = 1 - cosine
    return f"{cosine:.4f}" if distance >= 5e-4 else f"1 - {format_error(distance)}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
