"""The search for fewer rows as a table for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from odp.evaluation.evaluation_table import show_change, show_number
from odp.healing.rows_record import Point, RowsSearch
from odp.rewriter.report_summary import format_error
from odp.rewriter.table_style import VERY_WIDE, WIDE, number_column, plain_table

__all__ = ["render_rows"]

# From which width of the terminal on.
_COLUMNS = {
    "rows": 0,
    "rescaled": WIDE,
    "products": VERY_WIDE,
    "k": 0,
    "keys": 0,
    "price": VERY_WIDE,
    "perplexity": WIDE,
    "change": WIDE,
    "KL": WIDE,
    "loss": 0,
    "refused": 0,
}


def render_rows(search: RowsSearch, console: Console) -> None:
    """Print every rung before and after healing, both fronts, and the verdict."""
    table = plain_table("Rows against quality")
    number_column(table, "error")
    table.add_column("circuits", no_wrap=True)
    headers = [header for header, width in _COLUMNS.items() if console.width >= width]
    for header in headers:
        number_column(table, header)
    fronts = {healed: search.front(healed) for healed in (False, True)}
    for rung in search.rungs:
        for is_healed, point in ((False, rung.unhealed), (True, rung.healed)):
            if point is None:
                continue
            mark = " *" if rung.error in fronts[is_healed] else ""
            cells = _cells(point)
            table.add_row(
                "" if is_healed else f"{rung.error:g}",
                ("healed" if is_healed else "compiled") + mark,
                *(cells[header] for header in headers),
            )
        if rung.unhealed is None:
            table.add_row(f"{rung.error:g}", Text("none", style="dim"))
        table.add_section()
    table.caption = Text(
        f"Windows of {search.tokens} tokens. rows: of all layers, in two columns; rescaled, "
        "products: elements; k: log2 of the rows in the best columns; keys: GB; price: seconds of "
        "setup and proof times GB, predicted; KL: mean of KL(original || circuits) in nats; "
        "loss: exp(KL) - 1, the expected change of the perplexity, which decides; "
        "refused: windows that leave the calibrated ranges, not scored; *: no other rung has both "
        "fewer rows and a lower loss"
    )
    console.print(table)
    for rung in search.rungs:
        if rung.failure:
            line = f"error {rung.error:g}: no circuits: {rung.failure}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(f"\n{search.verdict()}", soft_wrap=True, highlight=False, markup=False)


def _cells(point: Point) -> dict[str, str]:
    cost, found = point.cost, point.held_out
    low, high = min(cost.logrows), max(cost.logrows)
    return {
        "rows": f"{cost.rows:,.0f}",
        "rescaled": f"{cost.rescaled:,}",
        "products": f"{cost.products:,}",
        "k": f"{low}" if low == high else f"{low}-{high}",
        "keys": f"{cost.proving_key / 1e9:.2f}",
        "price": f"{cost.price / 1e9:,.0f}",
        "perplexity": show_number(found.perplexity),
        "change": show_change(found.change),
        "KL": format_error(found.kl),
        "loss": show_change(found.loss),
        "refused": f"{found.refused} of {found.windows}",
    }
