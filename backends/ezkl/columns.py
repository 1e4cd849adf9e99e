"""How many columns side by side, and how many rows: what makes a circuit quickest to prove."""

from __future__ import annotations

from dataclasses import replace

import onnx

from odp.backends.ezkl.cost import CostReport, RunArguments, predict

__all__ = ["choose_columns", "seconds"]

_INNER = (1, 2, 4)
# The table of a range check of 14 bits fits into one column.
_FEWEST = 15


def seconds(report: CostReport) -> float:
    """Predicted time of setup and proof together."""
    return report.resources.setup_seconds + report.resources.proof_seconds


def choose_columns(
    model: onnx.ModelProto, arguments: RunArguments
) -> tuple[RunArguments, CostReport]:
    """Settings with the number of inner columns and rows that are predicted to be the quickest.

    Fewer rows are not always quicker: what does not fit goes to further columns, each with
    selectors of its own.  Weights of matrix products, which EZKL reads one by one in columns of
    their own, often outweigh everything else.

    Args:
        model: the network.
        arguments: the settings, of which these two are chosen.
    """
    found: list[tuple[float, RunArguments, CostReport]] = []
    for inner in _INNER:
        wished = replace(arguments, num_inner_cols=inner)
        report = predict(model, wished)
        for resources in (report.resources, *report.alternatives):
            if resources.logrows < _FEWEST:
                continue
            one = replace(report, resources=resources, logrows=resources.logrows)
            chosen = replace(wished, logrows=resources.logrows)
            found.append((seconds(one), chosen, replace(one, arguments=chosen)))
    _, chosen, report = min(found, key=lambda option: option[0])
    return chosen, report
