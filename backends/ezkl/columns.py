"""How many columns side by side, and how many rows: what a circuit is quickest to prove with."""

from __future__ import annotations

from dataclasses import replace

import onnx

from odp.backends.ezkl.cost import CostReport, RunArguments, predict
from odp.backends.ezkl.memory import machine_memory

__all__ = ["choose_columns", "seconds"]

_INNER = (1, 2, 4)
# The table of a range check of 14 bits fits into one column.
_FEWEST = 15
# Below so many halvings of what `calibrate` would choose, columns outweigh what rows save.
_RANGE = 4


def seconds(report: CostReport) -> float:
    """Predicted time of setup and proof together."""
    return report.resources.setup_seconds + report.resources.proof_seconds


def choose_columns(
    model: onnx.ModelProto, arguments: RunArguments
) -> tuple[RunArguments, CostReport]:
    """Settings with the number of inner columns and rows that are predicted to be the quickest.

    Of those that fit into the memory of this machine, if any does.  Fewer rows are not always
    quicker: what does not fit goes to further columns, each with selectors of its own.  Weights of
    matrix products, which EZKL reads one by one in columns of their own, often outweigh everything
    else.

    Args:
        model: the network.
        arguments: the settings, of which these two are chosen.
    """
    found: list[tuple[float, RunArguments, CostReport]] = []
    for inner in _INNER:
        wished = replace(arguments, num_inner_cols=inner)
        report = predict(model, wished)
        first = max(_FEWEST, report.logrows - _RANGE)
        options = {r.logrows: r for r in (report.resources, *report.alternatives)}
        for logrows in range(first, max(report.logrows + 2, first + 1)):
            resources = options.get(logrows) or predict(model, wished, logrows).resources
            one = replace(report, resources=resources, logrows=resources.logrows)
            chosen = replace(wished, logrows=resources.logrows)
            found.append((seconds(one), chosen, replace(one, arguments=chosen)))
    there = machine_memory()

    def price(option: tuple[float, RunArguments, CostReport]) -> tuple[float, float]:
        memory = option[2].resources.peak_memory
        return max(memory - there, 0.0), option[0]

    _, chosen, report = min(found, key=price)
    return chosen, report
