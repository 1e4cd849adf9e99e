"""Assembling the report from what the passes did, what the sites saw and what was chosen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from odp.approximations.approximant import Approximant
from odp.rewriter.calibration import Observation
from odp.rewriter.manager import Result
from odp.rewriter.report import ApproximantRecord, PassRecord, SiteRecord
from odp.rewriter.rewrite_pass import Pass
from odp.rewriter.selection import Choice, Selection
from odp.rewriter.site import Site

__all__ = ["approximant_records", "pass_records", "site_records"]

_CURVE_POINTS = 241


def pass_records(
    typed: Sequence[Pass],
    named: Collection[str],
    result: Result,
    sites: Mapping[str, Site],
    selection: Selection,
) -> list[PassRecord]:
    """One record for each pass, in the order typed, without metrics.

    A pass that found nothing has a record only if the user named it; `all` names none.
    """
    records = []
    for rewrite in typed:
        outcome = result.outcomes.get(rewrite.name)
        if outcome is None:
            continue
        unmet = [
            skipped
            for site_id, skipped in selection.skipped.items()
            if sites[site_id].request.typed == rewrite.name
        ]
        idle = not (outcome.patterns or outcome.folded or result.skipped.get(rewrite.name))
        if idle and rewrite.name not in named:
            continue
        chosen = [site_id for site_id in outcome.sites if site_id in selection.choices]
        records.append(
            PassRecord(
                name=rewrite.name,
                options=rewrite.options(),
                patterns=dict(outcome.patterns),
                sites=len(chosen),
                folded=outcome.folded,
                skipped=[*result.skipped.get(rewrite.name, ()), *unmet],
                seconds=outcome.seconds,
                notes=list(outcome.notes),
            )
        )
    return records


def approximant_records(
    selection: Selection,
) -> tuple[list[ApproximantRecord], dict[str, str]]:
    """One record for each distinct approximant, and the key of the approximant of every site."""
    keys: dict[Approximant, str] = {}
    numbers: dict[str, int] = {}
    for choice in selection.choices.values():
        if choice.approximant not in keys:
            name = choice.approximant.function.name
            numbers[name] = numbers.get(name, 0) + 1
            keys[choice.approximant] = f"{name}-{numbers[name]}"
    records = [_record(approximant, key) for approximant, key in keys.items()]
    return records, {s: keys[choice.approximant] for s, choice in selection.choices.items()}


def site_records(
    sites: Mapping[str, Site],
    observations: Mapping[str, Observation],
    selection: Selection,
    keys: Mapping[str, str],
) -> list[SiteRecord]:
    """One record for each site that was replaced."""
    records = []
    for site_id, choice in selection.choices.items():
        site, seen = sites[site_id], observations[site_id]
        absolute, relative = _observed_errors(choice, seen)
        domain = choice.approximant.domain
        records.append(
            SiteRecord(
                id=site_id,
                pass_name=site.request.typed,
                pattern=site.pattern,
                function=site.function,
                node=site.node,
                module_path=site.module_path,
                graph=site.graph_path,
                elements=seen.elements or None,
                observed=None if seen.is_empty else (seen.low, seen.high),
                domain=(domain.lo, domain.hi),
                guard=choice.guard,
                approximant=keys[site_id],
                observed_absolute_error=absolute,
                observed_relative_error=relative,
                histogram=seen.histogram(),
                module_type=site.module_type,
            )
        )
    return records


def _observed_errors(choice: Choice, seen: Observation) -> tuple[float | None, float | None]:
    """Largest absolute and relative error on the calibration data, evaluated in float32."""
    if seen.is_empty:
        return None, None
    approximant = choice.approximant
    x = seen.samples.astype(np.float32)
    if choice.low is not None or choice.high is not None:
        clipped = np.clip(x, choice.low, choice.high)
    else:
        clipped = x
    exact = approximant.function.numpy(x.astype(np.float64))
    with np.errstate(all="ignore"):
        found = np.asarray(approximant(clipped), dtype=np.float64)
        error = np.abs(found - exact)
        relative = error / np.abs(exact)
    error, relative = error[np.isfinite(exact)], relative[np.isfinite(exact) & (exact != 0.0)]
    if error.size == 0:
        return None, None
    if approximant.relative_error is None or relative.size == 0:
        return float(error.max()), None
    return float(error.max()), float(relative.max())


def _record(approximant: Approximant, key: str) -> ApproximantRecord:
    domain, safe, counts = approximant.domain, approximant.safe_interval, approximant.counts
    function = approximant.function
    if function.positive_scale:
        x = np.geomspace(domain.lo, domain.hi, _CURVE_POINTS)
    else:
        x = np.linspace(domain.lo, domain.hi, _CURVE_POINTS)
    latex = approximant.expression.to_latex()
    return ApproximantRecord(
        key=key,
        function=function.name,
        scheme=approximant.scheme,
        description=approximant.description,
        latex=latex if len(latex) <= 600 else "",
        domain=(domain.lo, domain.hi),
        absolute_error=approximant.absolute_error,
        relative_error=approximant.relative_error,
        relative=approximant.relative and approximant.relative_error is not None,
        error_kind=approximant.error_kind,
        float32_error=approximant.float32_error,
        safe_interval=(
            safe.lo if np.isfinite(safe.lo) else None,
            safe.hi if np.isfinite(safe.hi) else None,
        ),
        multiplications=counts.multiplications,
        divisions=counts.divisions,
        additions=counts.additions,
        curve_x=[float(value) for value in x],
        curve_exact=[float(value) for value in function.numpy(x)],
        curve_approximate=[float(value) for value in np.asarray(approximant(x))],
    )
