"""The report as one self-contained HTML page.

The page loads nothing: style, script and figures are inline, and its content security policy
forbids the rest.  It is laid out by `report.html.jinja`; this file only prepares what the template
shows.  Everything that comes from the model (node names, paths) is escaped by jinja2.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from odp.rewriter.report import (
    ApproximantRecord,
    Histogram,
    Metrics,
    Report,
    SiteRecord,
)
from odp.rewriter.report_math import latex_to_mathml
from odp.rewriter.report_plot import approximant_figure, error_is_relative, rebin, sparkline
from odp.rewriter.report_summary import (
    approximants_by_key,
    format_bound,
    format_cosine,
    format_count,
    format_error,
    format_interval,
    format_share,
    format_upper_bound,
    headline_metrics,
    headline_output,
    operation_counts,
)
from odp.rewriter.statistics import statistics

__all__ = ["render_html"]

# Above these numbers the rest of a list starts out folded, so that the page can be overlooked.
OPEN_SITES = 60
OPEN_CARDS_PER_FUNCTION = 6
OPEN_OPERATORS = 14
OPEN_SKIPPED = 20

MINUS, EN_DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def render_html(report: Report) -> str:
    """The report as an HTML page that needs no network.

    Args:
        report: what was rewritten; it may be empty, and numbers in it may be missing or not finite.

    Returns:
        The text of a complete HTML document, to be written as UTF-8.
    """
    model = report.model
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            model=model,
            statistics=statistics(report),
            name=PurePath(model.path).name if model.path else "Model in memory",
            headline=headline_metrics(report),
            output=headline_output(report),
            is_distribution=any(
                metrics.kl is not None
                for outputs in _all_outputs(report)
                for metrics in outputs.values()
            ),
            waterfall=_waterfall(report),
            functions=_function_sections(report),
            operators=_operator_rows(report),
            open_operators=OPEN_OPERATORS,
            site_groups=_site_groups(report),
            open_sites=len(report.sites) <= OPEN_SITES,
            skipped=[record for record in report.passes if record.skipped],
            open_skipped=sum(len(item.skipped) for item in report.passes) <= OPEN_SKIPPED,
            left=sum(model.transcendental_after.values()),
            before=sum(model.transcendental_before.values()),
            folded=sum(record.folded for record in report.passes),
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("odp.rewriter", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        bound=format_bound,
        breakable=_breakable,
        cosine=_typographic(format_cosine),
        count=format_count,
        error=_typographic(format_error),
        upper_bound=_typographic(format_upper_bound),
        interval=_typographic(format_interval),
        options=_option_text,
        share=_typographic(format_share),
    )
    return environment


def _typographic(format_number: Any) -> Any:
    """A formatter with a real minus sign, infinity sign and dash for what is missing."""

    @functools.wraps(format_number)
    def formatted(value: Any) -> str:
        text: str = format_number(value)
        return EN_DASH if text == "n/a" else text.replace("-", MINUS).replace("inf", "∞")

    return formatted


def _breakable(text: str) -> Markup:
    """Names with places where a browser may break the line: after `/`, `.`, `_` and `::`."""
    escaped = str(Markup.escape(text))
    for separator in ("/", ".", "_", "::"):
        escaped = escaped.replace(separator, f"{separator}<wbr>")
    return Markup(escaped)


def _option_text(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _all_outputs(report: Report) -> list[dict[str, Metrics]]:
    outputs = [report.total]
    for record in report.passes:
        outputs += [record.isolated, record.cumulative]
    return outputs


@dataclass(frozen=True)
class WaterfallBar:
    """A bar: its length as a percentage of the track (None: no bar) and the number beside it."""

    percent: float | None
    text: str


@dataclass(frozen=True)
class Waterfall:
    """The error of the output over the passes, on a common log scale.

    Attributes:
        rows: pass name, alone, cumulative; the last row has no bar alone.
        decades: label and position in percent of every grid line.
        step: distance of the grid lines in percent.
    """

    rows: list[tuple[str, WaterfallBar | None, WaterfallBar]]
    decades: list[tuple[str, float]]
    step: float


def _waterfall(report: Report) -> Waterfall | None:
    output = headline_output(report)
    if output is None:
        return None

    def relative_l2(outputs: Mapping[str, Metrics]) -> float | None:
        return outputs[output].relative_l2 if output in outputs else None

    values = [
        (item.name, relative_l2(item.isolated), relative_l2(item.cumulative))
        for item in report.passes
    ]
    total = relative_l2(report.total)
    finite = [
        value
        for row in [*values, ("", None, total)]
        for value in row[1:]
        if isinstance(value, float) and math.isfinite(value) and value > 0
    ]
    low = math.floor(math.log10(min(finite, default=1e-6))) - 1
    high = max(math.ceil(math.log10(max(finite, default=1.0))), low + 2)

    def bar(value: float | None) -> WaterfallBar:
        if value is None or math.isnan(value):
            return WaterfallBar(None, "not measured")
        if value == 0:
            return WaterfallBar(None, "0, exact")
        if math.isinf(value):
            return WaterfallBar(100.0, "∞")
        share = (math.log10(value) - low) / (high - low)
        return WaterfallBar(round(100 * share, 1), format_error(value).replace("-", MINUS))

    rows: list[tuple[str, WaterfallBar | None, WaterfallBar]] = [
        (name, bar(alone), bar(cumulative)) for name, alone, cumulative in values
    ]
    if total is not None:
        rows.append(("", None, bar(total)))
    stride = math.ceil((high - low) / 5)
    decades = [
        (f"1e{power}".replace("-", MINUS), round(100 * (power - low) / (high - low), 2))
        for power in range(low, high + 1, stride)
    ]
    return Waterfall(rows, decades, 100 * stride / (high - low))


@dataclass(frozen=True)
class ApproximantCard:
    """An approximant with the sites that use it and its figure."""

    record: ApproximantRecord
    sites: int
    elements: int | None
    patterns: str
    observed: tuple[float, float] | None
    observed_error: float | None
    relative: bool
    outside: float
    operations: str
    figure: Markup | None
    formula: Markup | None


@dataclass(frozen=True)
class FunctionSection:
    """The approximants of one function, those with most sites first."""

    function: str
    sites: int
    shown: list[ApproximantCard]
    folded: list[ApproximantCard]


def _function_sections(report: Report) -> list[FunctionSection]:
    sites: dict[str, list[SiteRecord]] = {}
    for site in report.sites:
        sites.setdefault(site.approximant, []).append(site)
    cards: dict[str, list[ApproximantCard]] = {}
    for record in report.approximants:
        cards.setdefault(record.function, []).append(_card(record, sites.get(record.key, [])))
    sections = []
    for function, members in cards.items():
        members.sort(key=lambda card: -card.sites)
        sections.append(
            FunctionSection(
                function,
                sum(card.sites for card in members),
                members[:OPEN_CARDS_PER_FUNCTION],
                members[OPEN_CARDS_PER_FUNCTION:],
            )
        )
    return sections


def _card(record: ApproximantRecord, sites: Sequence[SiteRecord]) -> ApproximantCard:
    histograms: list[Histogram] = [site.histogram for site in sites if site.histogram is not None]
    seen = [site.observed for site in sites if site.observed is not None]
    observed = (min(low for low, _ in seen), max(high for _, high in seen)) if seen else None
    relative = error_is_relative(record)
    errors = [
        site.observed_relative_error if relative else site.observed_absolute_error for site in sites
    ]
    elements = [site.elements for site in sites if site.elements is not None]
    patterns: dict[str, int] = {}
    for site in sites:
        patterns[site.pattern] = patterns.get(site.pattern, 0) + 1
    _, outside = rebin(histograms, np.asarray(record.domain, dtype=np.float64))
    return ApproximantCard(
        record=record,
        sites=len(sites),
        elements=sum(elements) if elements else None,
        patterns=", ".join(f"{count} {name}" for name, count in patterns.items()),
        observed=observed,
        observed_error=max((error for error in errors if error is not None), default=None),
        relative=relative,
        outside=outside,
        operations=operation_counts([record]),
        figure=approximant_figure(record, histograms, observed),
        formula=latex_to_mathml(record.latex) if record.latex else None,
    )


@dataclass(frozen=True)
class OperatorRow:
    """Counts of one operator before and after, with bar lengths in percent."""

    name: str
    before: int
    after: int
    before_percent: float
    after_percent: float
    transcendental: bool


def _operator_rows(report: Report) -> list[OperatorRow]:
    model = report.model
    largest = max([*model.ops_before.values(), *model.ops_after.values(), 1])
    transcendental = {*model.transcendental_before, *model.transcendental_after}
    rows = []
    for name in dict.fromkeys([*model.ops_before, *model.ops_after, *sorted(transcendental)]):
        before, after = model.ops_before.get(name, 0), model.ops_after.get(name, 0)
        rows.append(
            OperatorRow(
                name=name,
                before=before,
                after=after,
                before_percent=round(100 * before / largest, 1),
                after_percent=round(100 * after / largest, 1),
                transcendental=name in transcendental,
            )
        )
    rows.sort(key=lambda row: (not row.transcendental, -max(row.before, row.after), row.name))
    return rows


@dataclass(frozen=True)
class SiteRow:
    """A site with its approximant and the outline of its histogram."""

    site: SiteRecord
    approximant: ApproximantRecord | None
    spark: Markup | None


def _site_groups(report: Report) -> list[tuple[str, list[SiteRow]]]:
    approximants = approximants_by_key(report)
    groups: dict[str, list[SiteRow]] = {record.name: [] for record in report.passes}
    for site in report.sites:
        row = SiteRow(site, approximants.get(site.approximant), sparkline(site.histogram))
        groups.setdefault(site.pass_name, []).append(row)
    return [(name, rows) for name, rows in groups.items() if rows]
