"""What the views of a report choose from it: the output to speak about, worst sites, wording.

The terminal table and the HTML page must say the same thing in the same words, so the choices live
here: which output is the headline, whether a group of sites is described by its absolute or by its
relative error, and how numbers are written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal

from odp.rewriter.report import ApproximantRecord, Metrics, PassRecord, Report, SiteRecord

__all__ = [
    "SiteGroup",
    "WorstError",
    "approximants_by_key",
    "format_bound",
    "format_cosine",
    "format_count",
    "format_error",
    "format_interval",
    "format_share",
    "format_upper_bound",
    "group_sites",
    "headline_metrics",
    "headline_output",
    "operation_counts",
    "sites_of_pass",
    "worst_error",
]


def format_count(count: int | None) -> str:
    """A count with thousands separators; `n/a` for None.

    >>> format_count(3334), format_count(None)
    ('3,334', 'n/a')
    """
    return "n/a" if count is None else f"{count:,}"


def format_error(value: float | None) -> str:
    """An error with two significant digits and an exponent without padding zeros.

    >>> format_error(3.14e-5), format_error(0.0), format_error(None), format_error(float("inf"))
    ('3.1e-5', '0', 'n/a', 'inf')
    """
    if value is None or math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_upper_bound(value: float | None) -> str:
    """A proven bound like `format_error`, but rounded up: what is printed holds as well.

    >>> format_upper_bound(5.01e-5), format_upper_bound(2e-3), format_upper_bound(9.99e-4)
    ('5.1e-5', '2.0e-3', '1.0e-3')
    """
    if value is None or not math.isfinite(value) or value == 0:
        return format_error(value)
    rounded = Context(prec=2, rounding=ROUND_CEILING).create_decimal(Decimal(repr(value)))
    return format_error(float(rounded))


def format_bound(value: float | None, digits: int = 4) -> str:
    """A bound of an interval with at most `digits` significant digits.

    >>> format_bound(-12.3456789), format_bound(1.5e-7), format_bound(2e6)
    ('-12.35', '1.5e-7', '2e6')
    """
    if value is None or math.isnan(value):
        return "n/a"
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    return f"{mantissa}e{int(exponent)}"


def format_interval(interval: Sequence[float | None] | None, digits: int = 4) -> str:
    """An interval; open at a None or infinite bound.

    >>> format_interval((-10.0, 0.0)), format_interval((None, 4.5)), format_interval(None)
    ('[-10, 0]', '(-inf, 4.5]', 'n/a')
    """
    if interval is None:
        return "n/a"
    low, high = interval
    left = "(-inf" if low is None or math.isinf(low) else f"[{format_bound(low, digits)}"
    right = "inf)" if high is None or math.isinf(high) else f"{format_bound(high, digits)}]"
    return f"{left}, {right}"


def format_cosine(cosine: float | None) -> str:
    """A cosine similarity; as a distance from 1 where decimals would only show nines.

    >>> format_cosine(0.98765432), format_cosine(1 - 3e-9), format_cosine(1.0)
    ('0.987654', '1 - 3.0e-9', '1')
    """
    if cosine is None or not math.isfinite(cosine):
        return "n/a"
    distance = 1.0 - cosine
    # Below 4 units in the last place of float64 the distance is rounding, not information.
    if abs(distance) < 1e-15:
        return "1"
    if 0 < distance < 1e-5:
        return f"1 - {format_error(distance)}"
    return f"{cosine:.6f}"


def format_share(share: float | None) -> str:
    """A share between 0 and 1 as a percentage that is never rounded up to 100.

    >>> format_share(1.0), format_share(0.99996), format_share(0.5), format_share(None)
    ('100 %', '99.99 %', '50 %', 'n/a')
    """
    if share is None or not math.isfinite(share):
        return "n/a"
    return f"{math.floor(share * 10000 + 1e-9) / 100:g} %"


def headline_output(report: Report) -> str | None:
    """Name of the output with the largest final relative l2 error; None if nothing was measured."""
    measured = [report.total, *(record.cumulative for record in reversed(report.passes))]
    measured += [record.isolated for record in reversed(report.passes)]
    for outputs in measured:
        if outputs:
            return max(outputs, key=lambda name: _rank(outputs[name].relative_l2))
    return None


def headline_metrics(report: Report) -> Metrics | None:
    """Metrics of the headline output with all passes applied; None if nothing was measured."""
    name = headline_output(report)
    if name is None:
        return None
    return report.total.get(name) or (
        report.passes[-1].cumulative.get(name) if report.passes else None
    )


def approximants_by_key(report: Report) -> dict[str, ApproximantRecord]:
    """The approximants of a report by their key."""
    return {approximant.key: approximant for approximant in report.approximants}


def sites_of_pass(report: Report, record: PassRecord) -> list[SiteRecord]:
    """The sites that a pass replaced, in graph order."""
    return [site for site in report.sites if site.pass_name == record.name]


@dataclass(frozen=True)
class WorstError:
    """The largest errors in a group of sites, both of the same kind.

    Attributes:
        relative: True if the numbers are relative errors, False if they are absolute.
        declared: largest error that the approximants declare on their domains.
        certified: True if every declared error is a proven bound.
        observed: largest error seen at a site on the calibration data; None if nothing was seen.
    """

    relative: bool
    declared: float
    certified: bool
    observed: float | None

    @property
    def kind(self) -> str:
        """`rel` or `abs`."""
        return "rel" if self.relative else "abs"


def worst_error(
    sites: Iterable[SiteRecord], approximants: dict[str, ApproximantRecord]
) -> WorstError | None:
    """The worst declared and observed error of a group of sites.

    An expression is chosen by one kind of error: absolute for exp on [-40, 0], relative for rsqrt
    on [1e-6, 10]. That is the claim that is reported, named by its kind; a group that mixes the
    kinds reports absolute errors.

    Returns:
        None if no site of the group has a known approximant.
    """
    sites = [site for site in sites if site.approximant in approximants]
    used = [approximants[key] for key in dict.fromkeys(site.approximant for site in sites)]
    if not used:
        return None
    is_relative = all(record.relative for record in used)
    declared = [r.relative_error if is_relative else r.absolute_error for r in used]
    observed = [
        site.observed_relative_error if is_relative else site.observed_absolute_error
        for site in sites
    ]
    return WorstError(
        relative=is_relative,
        declared=max((math.inf if value is None else value for value in declared), key=_rank),
        certified=all(record.error_kind == "certified" for record in used),
        observed=max((value for value in observed if value is not None), default=None, key=_rank),
    )


@dataclass(frozen=True)
class SiteGroup:
    """The sites of one pass that share a function and a scheme.

    Attributes:
        pass_name: the pass as typed.
        function: the function that was replaced.
        scheme: the scheme that made the approximants.
        sites: the sites of the group.
        approximants: the distinct approximants they use.
    """

    pass_name: str
    function: str
    scheme: str
    sites: list[SiteRecord]
    approximants: list[ApproximantRecord]

    def operations(self) -> str:
        """Multiplications, additions and divisions per element: the range over the group.

        Written `9 mul 8 add 1 div`, or `7-9 mul ...` where the approximants differ.
        """
        return operation_counts(self.approximants)


def operation_counts(approximants: Sequence[ApproximantRecord]) -> str:
    """Multiplications, additions and divisions per element over some approximants."""
    words = []
    for word, counts in (
        ("mul", [record.multiplications for record in approximants]),
        ("add", [record.additions for record in approximants]),
        ("div", [record.divisions for record in approximants]),
    ):
        low, high = min(counts, default=0), max(counts, default=0)
        if high:
            words.append(f"{low} {word}" if low == high else f"{low}-{high} {word}")
    return " ".join(words) or "none"


def group_sites(report: Report) -> list[SiteGroup]:
    """The sites grouped by pass, function and scheme, passes in the order of application."""
    approximants = approximants_by_key(report)
    order = {record.name: position for position, record in enumerate(report.passes)}
    groups: dict[tuple[str, str, str], list[SiteRecord]] = {}
    for site in report.sites:
        approximant = approximants.get(site.approximant)
        scheme = approximant.scheme if approximant else "unknown"
        groups.setdefault((site.pass_name, site.function, scheme), []).append(site)
    return [
        SiteGroup(
            *key,
            sites=sites,
            approximants=[
                approximants[name]
                for name in dict.fromkeys(site.approximant for site in sites)
                if name in approximants
            ],
        )
        for key, sites in sorted(groups.items(), key=lambda item: order.get(item[0][0], len(order)))
    ]


def _rank(value: float) -> float:
    """Order of badness: nan is worse than anything."""
    return math.inf if math.isnan(value) else value
