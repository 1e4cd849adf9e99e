"""The degrees of freedom of a circuit: what was chosen, instead of what, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from odp.backends.ezkl.columns import price, seconds
from odp.backends.ezkl.cost import CostReport, RunArguments

__all__ = ["Choice", "columns_choice", "digits_choice"]


@dataclass(frozen=True)
class Choice:
    """One degree of freedom.

    Attributes:
        freedom: what was free.
        chosen: what was taken.
        instead_of: what else was tried, with what it would have cost.
        reason: why.
    """

    freedom: str
    chosen: str
    instead_of: str
    reason: str


def digits_choice(arguments: RunArguments, rows: Mapping[int, int | None]) -> Choice:
    """The number of digits of range checks.

    Args:
        arguments: the settings.
        rows: of the first schedule with each number of digits; None where there is none.
    """
    bits = (arguments.decomp_base - 1).bit_length()
    others = [
        f"{count} ({_thousands(found)})"
        for count, found in rows.items()
        if count != arguments.decomp_legs
    ]
    return Choice(
        "decomp_legs",
        f"{arguments.decomp_legs} digits of {bits} bits",
        ", ".join(others),
        "fewest rows, after the scales were moved until the error is just within the budget",
    )


def columns_choice(chosen: CostReport, options: Sequence[CostReport]) -> Choice:
    """The numbers of inner columns and of rows.

    Args:
        chosen: of the options.
        options: all that were compared.
    """
    ranked = sorted(options, key=price)
    others = [
        f"{one.arguments.num_inner_cols}, {one.logrows} "
        f"({seconds(one) / seconds(chosen):.2f}x, {one.resources.peak_memory / 1e9:.1f} GB)"
        for one in ranked
        if one is not chosen
    ]
    return Choice(
        "num_inner_cols, logrows",
        f"{chosen.arguments.num_inner_cols}, {chosen.logrows} "
        f"({chosen.resources.peak_memory / 1e9:.1f} GB)",
        ", ".join(others[:3]),
        "least predicted time times memory, within the memory of this machine; others by time",
    )


def _thousands(rows: int | None) -> str:
    return "no schedule" if rows is None else f"{rows:,} rows at first"
