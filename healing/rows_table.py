"""The search for fewer rows as a table for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from odp.evaluation.evaluation_table import show_change, show_number
from odp.healing.rows_record import Point, RowsSearch
from odp.rewriter.report_summary import format_error
from odp.rewriter.table_style import number_column, plain_table

__all__ = ["render_rows"]


def render_rows(search: RowsSearch, console: Console) -> None:
    """Print every rung before and after healing, both fronts, and the verdict."""
    table = plain_table("Rows against quality")
    number_column(table, "error")
    table.add_column("circuits", no_wrap=True)
    for header in (
        *("rows", "rescaled", "products", "k", "keys", "price"),
        *("perplexity", "change", "KL", "refused"),
    ):
        number_column(table, header)
    fronts = {healed: search.front(healed) for healed in (False, True)}
    for rung in search.rungs:
        for is_healed, point in ((False, rung.unhealed), (True, rung.healed)):
            if point is None:
                continue
            mark = " *" if rung.error in fronts[is_healed] else ""
            table.add_row(
                "" if is_healed else f"{rung.error:g}",
                ("healed" if is_healed else "as compiled") + mark,
                *_costs(point),
                show_number(point.held_out.perplexity),
                show_change(point.held_out.change),
                format_error(point.held_out.kl),
                f"{point.held_out.refused} of {point.held_out.windows}",
            )
        if rung.unhealed is None:
            table.add_row(f"{rung.error:g}", Text("none", style="dim"))
        table.add_section()
    table.caption = Text(
        f"Windows of {search.tokens} tokens. rows: of all layers, in two columns; rescaled, "
        "products: elements; k: log2 of the rows in the best columns; keys: GB; price: seconds of "
        "setup and proof times GB, predicted; KL: mean of KL(original || circuits) in nats; "
        "refused: windows that leave the calibrated ranges, not scored; *: no other rung has both "
        "fewer rows and a lower perplexity"
    )
    console.print(table)
    for rung in search.rungs:
        if rung.failure:
            line = f"error {rung.error:g}: no circuits: {rung.failure}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(f"\n{search.verdict()}", soft_wrap=True, highlight=False, markup=False)


def _costs(point: Point) -> tuple[str, ...]:
    cost = point.cost
    low, high = min(cost.logrows), max(cost.logrows)
    return (
        f"{cost.rows:,.0f}",
        f"{cost.rescaled:,}",
        f"{cost.products:,}",
        f"{low}" if low == high else f"{low}-{high}",
        f"{cost.proving_key / 1e9:.2f}",
        f"{cost.price / 1e9:,.0f}",
    )
