"""What the report says of operators that stand for several nodes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from odp.rewriter.report import ApproximantRecord, Report, SiteRecord
from odp.rewriter.site import Outcome

if TYPE_CHECKING:
    from odp.backends.triton.requested import FusedSite
    from odp.kernels.functions import KernelFunction

__all__ = ["add_fused_sites", "outcomes_of"]

_CURVE_POINTS = 241


def add_fused_sites(report: Report, fused: Sequence[FusedSite]) -> None:
    """Add a site for every function in every operator, and a record for every expression."""
    keys: dict[KernelFunction, str] = {}
    numbers: dict[str, int] = {}
    counts: dict[str, int] = {}
    for place in fused:
        number = numbers[place.operator] = numbers.get(place.operator, 0) + 1
        for name, function in place.functions.items():
            if function not in keys:
                keys[function] = f"{name}-kernel-{len(keys) + 1}"
                report.approximants.append(_record(keys[function], function))
            counts[place.typed] = counts.get(place.typed, 0) + 1
            report.sites.append(
                SiteRecord(
                    id=f"{place.typed}/{place.module_path}.{place.operator}/{number}/{name}",
                    pass_name=place.typed,
                    pattern=place.operator,
                    function=name,
                    node=place.operator,
                    module_path=place.module_path,
                    graph="",
                    elements=None,
                    observed=None,
                    domain=(function.low, function.high),
                    guard="clip" if function.reduction == "clip" else "none",
                    approximant=keys[function],
                    observed_absolute_error=None,
                    observed_relative_error=None,
                    module_type=place.module_type,
                )
            )
    for record in report.passes:
        record.sites += counts.get(record.name, 0)


def outcomes_of(fused: Sequence[FusedSite]) -> dict[str, Outcome]:
    """What each pass did, by operators."""
    outcomes: dict[str, Outcome] = {}
    for site in fused:
        outcome = outcomes.setdefault(site.typed, Outcome())
        outcome.patterns[site.operator] = outcome.patterns.get(site.operator, 0) + 1
        outcome.notes = ["each became one operator, and on a GPU one kernel"]
    outcomes.pop("", None)
    return outcomes


def _record(key: str, function: KernelFunction) -> ApproximantRecord:
    from odp.approximations.functions.registry import get_function

    inner = get_function(function.inner)
    counts = function.expression.counts
    latex = function.expression.to_latex()
    x = np.linspace(function.low, function.high, _CURVE_POINTS)
    found = np.asarray(function.expression(x))
    bounds = [bound for bound in (function.absolute_error, function.relative_error) if bound]
    return ApproximantRecord(
        key=key,
        function=function.function,
        scheme=function.reduction,
        description=function.description,
        latex=latex if len(latex) <= 600 else "",
        domain=(function.low, function.high),
        absolute_error=bounds[0],
        relative_error=function.relative_error,
        relative=function.relative_error is not None,
        error_kind="certified" if function.certified else "measured",
        float32_error=float(
            np.abs(np.asarray(function.expression(x.astype(np.float32))) - inner.numpy(x)).max()
        ),
        safe_interval=(None, None),
        multiplications=counts.multiplications,
        divisions=counts.divisions,
        additions=counts.additions,
        curve_x=[float(value) for value in x],
        curve_exact=[float(value) for value in inner.numpy(x)],
        curve_approximate=[float(value) for value in found],
    )
