"""What `odp approximate` prints for people: the front as a table, and the answer below it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from odp.approximations import Approximant
from odp.approximations.arithmetic import FLOAT32
from odp.approximations.fixed_point import CertifiedProgram
from odp.cli.approximate_answer import Answer, Row, target_text
from odp.rewriter.report_summary import (
    format_count,
    format_error,
    format_interval,
    format_upper_bound,
)
from odp.rewriter.table_style import VERY_WIDE, WIDE, Signs, number_column, plain_table

__all__ = ["formula_lines", "render_answer"]

_MOST_LINES, _LONGEST_FORMULA = 12, 1200
_PLUS_MINUS = re.compile(r"\+ \(-([0-9.e+-]+)\)")
_FLOAT = re.compile(r"\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+")


def render_answer(answer: Answer, console: Console, *, with_front: bool) -> None:
    """Print the front, the answer marked in it, and the answer in detail.

    Args:
        answer: what was found.
        console: where to print; its width decides how many columns the table has.
        with_front: whether rows besides the answer are printed.
    """
    signs = Signs.of(console)
    console.print(_headline(answer))
    console.print(_table(answer, console.width, signs, with_front=with_front))
    console.print()
    console.print(_details(answer, signs))


def formula_lines(approximant: Approximant) -> list[str]:
    """The expression as lines of ``name = value``, the last one ``y = ...``.

    Constants have just the digits that tell them apart in float32; `--emit` gives them exactly.
    """
    *bound, result = approximant.expression.to_python().splitlines()[1:]
    lines = [line.strip() for line in bound] + [result.strip().replace("return", "y =", 1)]
    if approximant.target.arithmetic == FLOAT32:
        lines = [_FLOAT.sub(lambda m: _short(m.group()), line) for line in lines]
    return [_PLUS_MINUS.sub(r"- \1", line) for line in lines]


def _short(number: str) -> str:
    text = str(np.float32(float(number)))
    return text.removesuffix(".0")


def _headline(answer: Answer) -> Text:
    question = answer.question
    if question.operations is not None:
        wanted = f"smallest {_kind(question.relative)} error at a cost of {question.operations:g}"
    elif question.error == math.inf:
        wanted = "cheapest expression" if question.formula is None else "the given formula"
    else:
        wanted = str(question.tolerance)
    line = Text()
    line.append(question.function.name, "bold")
    where = format_interval((question.domain.lo, question.domain.hi), digits=6)
    line.append(f" on {where}: {wanted}, for {target_text(question.target)}")
    return line


def _table(answer: Answer, width: int, signs: Signs, *, with_front: bool) -> Table:
    rows = answer.front if with_front else (answer.best,)
    compared = any(row.ratio is not None for row in rows)
    table = plain_table()
    table.add_column("", no_wrap=True)
    table.add_column("scheme", overflow="fold", ratio=1, min_width=16)
    number_column(table, "mul")
    number_column(table, "div")
    if width >= WIDE:
        number_column(table, "add")
    if width >= VERY_WIDE:
        number_column(table, "depth")
    number_column(table, "cost")
    number_column(table, f"{_kind(answer.best.approximant.relative)[:3]} error")
    single = _shows_float32(answer, rows, width)
    if single:
        number_column(table, "float32 abs" if answer.best.approximant.relative else "float32")
    if compared:
        number_column(table, "/ limit")
    if width >= VERY_WIDE:
        table.add_column("safe interval", no_wrap=True)
    for row, cost in zip(rows, _costs(rows), strict=True):
        is_answer = row is answer.best and len(rows) > 1
        cells = _cells(row, cost, width, signs, compared=compared, single=single)
        mark = Text(signs.arrow if is_answer else "", "green")
        table.add_row(mark, *cells, style="bold" if is_answer else "")
    if compared:
        caption = "/ limit: error over that of the best minimax fit of the same cost"
        if answer.best.approximant.fixed_point is not None:
            caption += ", its result rounded"
        table.caption = Text(caption)
    return table


def _costs(rows: Sequence[Row]) -> list[str]:
    """Costs with as many decimals as the one that needs most, at most two."""
    texts = [f"{row.cost:.2f}".rstrip("0") for row in rows]
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return [f"{row.cost:.{decimals}f}" for row in rows]


def _shows_float32(answer: Answer, rows: Sequence[Row], width: int) -> bool:
    """Where there is room, or where float32 spoils an expression that is close enough in itself."""
    if answer.question.target.arithmetic != FLOAT32 or width >= WIDE:
        return answer.question.target.arithmetic == FLOAT32
    wanted = answer.question.error
    if wanted is None:
        return False
    found = [row.approximant for row in rows if not row.approximant.relative]
    return any(a.absolute_error <= wanted < a.float32_error for a in found)


def _cells(
    row: Row, cost: str, width: int, signs: Signs, *, compared: bool, single: bool
) -> list[Text | str]:
    approximant, counts = row.approximant, row.approximant.counts
    cells: list[Text | str] = [Text(approximant.description)]
    cells += [str(counts.multiplications), str(counts.divisions)]
    if width >= WIDE:
        cells += [str(counts.additions)]
    if width >= VERY_WIDE:
        cells += [str(counts.multiplicative_depth)]
    cells += [cost, _error(approximant, approximant.error, signs)]
    if single:
        cells += [format_error(approximant.float32_error)]
    if compared:
        cells += [_ratio(row.ratio)]
    if width >= VERY_WIDE:
        cells += [format_interval((approximant.safe_interval.lo, approximant.safe_interval.hi))]
    return cells


def _details(answer: Answer, signs: Signs) -> Table:
    best = answer.best.approximant
    counts = best.counts
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("answer", Text(best.description, "bold"))
    lines = formula_lines(best)
    short = len(lines) <= _MOST_LINES and sum(map(len, lines)) <= _LONGEST_FORMULA
    shown = "\n".join(lines) if short else "long: --emit python prints it"
    grid.add_row("formula", Text(shown))
    errors = [f"{_error(best, best.absolute_error, signs)} absolute"]
    # Next to a zero of the function a relative error says nothing.
    if best.relative_error is not None and best.relative_error < 1:
        errors.append(f"{_error(best, best.relative_error, signs)} relative")
    proven = "proven" if best.error_kind == "certified" else "measured on a grid, not proven"
    where = "in real arithmetic" if best.fixed_point is None else "with every rounding"
    grid.add_row("error", f"{', '.join(errors)} ({proven}, {where})")
    if best.fixed_point is not None:
        grid.add_row("integers", _integers(best.fixed_point))
    if best.target.arithmetic == FLOAT32:
        grid.add_row("in float32", f"{signs.measured} {format_error(best.float32_error)} absolute")
    grid.add_row("stays sane on", format_interval((best.safe_interval.lo, best.safe_interval.hi)))
    grid.add_row(
        "operations",
        f"{counts.multiplications} mul ({counts.constant_multiplications} by a constant),"
        f" {counts.divisions} div, {counts.additions} add; {counts.multiplicative_depth} levels",
    )
    return grid


def _integers(certified: CertifiedProgram) -> str:
    program = certified.program
    width = "" if program.bits is None else f", intermediates of {program.bits} bits"
    inputs = format_count(program.inputs)
    return (
        f"result at scale 2^{program.scale}, {program.guard_bits} guard bits{width}; proven by"
        f" {certified.certificate.proof} for all {inputs} inputs at scale 2^{program.input_scale}"
    )


def _kind(relative: bool) -> str:
    return "relative" if relative else "absolute"


def _error(approximant: Approximant, error: float, signs: Signs) -> str:
    if approximant.error_kind == "certified":
        return f"{signs.certified} {format_upper_bound(error)}"
    return f"{signs.measured} {format_error(error)}"


def _ratio(ratio: float | None) -> str:
    """Error over limit with about three digits.

    >>> _ratio(0.00581), _ratio(1.0021), _ratio(12.34), _ratio(None)
    ('0.0058', '1.00', '12.3', '-')
    """
    if ratio is None:
        return "-"
    if ratio < 0.1:
        return f"{ratio:#.2g}" if ratio >= 1e-4 else format_error(ratio)
    return f"{ratio:.3g}" if ratio >= 10 else f"{ratio:.2f}"
