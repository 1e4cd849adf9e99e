"""How many columns side by side, and how many rows: what a circuit is cheapest to prove with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from odp.backends.ezkl.cost import CostReport, RunArguments, predict

__all__ = ["cheapest", "column_options", "price", "seconds"]

# Constraints of up to three inner columns have degree 5, and each column is extended by 4; those of
# four to seven have up to 9, and 8. Three and five were the best of their kind wherever weights
# outweigh the rest: a key of 1.9 GB where two take 3.1.
_INNER = (1, 2, 3, 5)
# The table of a range check of 14 bits fits into one column.
_FEWEST = 15
# Rows at the end of a column that hold no public value.
_INSTANCE_RESERVE = 8
# Below so many halvings of what `calibrate` would choose, columns outweigh what rows save.
_RANGE = 4


def seconds(report: CostReport) -> float:
    """Predicted time of setup and proof together."""
    return report.resources.setup_seconds + report.resources.proof_seconds


def column_options(
    model: onnx.ModelProto, arguments: RunArguments, logrows: Sequence[int] | None = None
) -> list[CostReport]:
    """What a circuit costs with each number of inner columns, and each of rows.

    Args:
        model: the network.
        arguments: the settings, of which these two vary; they are in each report.
        logrows: log2 of the rows to try; None for those around what EZKL would take.
    """
    found: list[CostReport] = []
    for inner in _INNER:
        wished = replace(arguments, num_inner_cols=inner)
        report = predict(model, wished)
        first = max(_FEWEST, report.logrows - _RANGE)
        options = {r.logrows: r for r in (report.resources, *report.alternatives)}
        # All public values stand in one column: with 82,944 of them setup fails at 2^15 rows.
        fewest = (report.instances + _INSTANCE_RESERVE).bit_length()
        tried = logrows or range(first, max(report.logrows + 2, first + 1))
        for k in [k for k in tried if k >= fewest] or [fewest]:
            resources = options.get(k) or predict(model, wished, k).resources
            chosen = replace(wished, logrows=k)
            found.append(replace(report, resources=resources, logrows=k, arguments=chosen))
    return found


def price(report: CostReport) -> float:
    """Predicted time of setup and proof times peak memory, in bytes and seconds.

    That is what a machine costs, and what is left for others.
    """
    return seconds(report) * report.resources.peak_memory


def cheapest(options: Sequence[CostReport], memory: float) -> CostReport:
    """The option with the lowest price, of those within some memory.

    Fewer rows are not always cheaper: what does not fit goes to further columns, each with
    selectors of its own.  Weights of matrix products, which EZKL reads one by one in columns of
    their own, often outweigh everything else.

    Args:
        options: at least one.
        memory: bytes; if none fits, the one that comes closest is taken.
    """

    def rank(option: CostReport) -> tuple[float, float]:
        return max(option.resources.peak_memory - memory, 0.0), price(option)

    return min(options, key=rank)
