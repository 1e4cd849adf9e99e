"""The report: what was rewritten, with which expression, and what it cost in accuracy.

One tree of plain dataclasses.  The terminal table (`report_table`), the JSON file and the HTML page
(`report_html`) are three views of it; none of them computes a number of its own.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "ApproximantRecord",
    "Histogram",
    "Metrics",
    "ModelRecord",
    "PassRecord",
    "Report",
    "SiteRecord",
    "Skipped",
]

ErrorKind = Literal["certified", "measured"]


@dataclass
class Histogram:
    """Counts of the values a site saw during calibration.

    Attributes:
        edges: bin edges, ascending, one more than `counts`.
        counts: number of elements per bin.
    """

    edges: list[float]
    counts: list[int]


@dataclass
class Metrics:
    """Distance between the outputs of two models on the calibration data.

    Attributes:
        max_abs: largest absolute difference of any element.
        rmse: root of the mean squared difference.
        relative_l2: l2 norm of the difference over the l2 norm of the original.
        cosine: cosine similarity of the flattened outputs.
        kl: mean Kullback-Leibler divergence (nats) of the original from the rewritten
            distribution over the last axis; None where the output is neither logits nor a
            distribution.
        top1: share of positions whose largest entry is the same; None likewise.
    """

    max_abs: float
    rmse: float
    relative_l2: float
    cosine: float
    kl: float | None = None
    top1: float | None = None


@dataclass
class ApproximantRecord:
    """One expression that stands in for a function on a domain; shared by all sites that use it.

    Attributes:
        key: unique within the report, for example `exp-1`.
        function: name of the function, for example `exp` or `rsqrt`.
        scheme: name of the scheme that made it, for example `pade`.
        description: the scheme with its parameters, for a person.
        latex: the expression in LaTeX, or an empty string where it would be too long to read.
        domain: the interval on which the errors below hold.
        absolute_error: largest absolute error on `domain`, in real arithmetic.
        relative_error: likewise relative; None where the function has a zero on `domain`.
        relative: whether it was chosen by relative error; the other error is then a by-product.
        error_kind: `certified` (proven bound) or `measured` (maximum over a dense grid).
        float32_error: largest absolute error on the grid when evaluated in float32.
        safe_interval: the interval on which the expression stays sane, a superset of `domain`;
            None bounds are infinite.
        multiplications: multiplications, by constants included.
        divisions: divisions.
        additions: additions and subtractions.
        curve_x: points across the domain, for plots.
        curve_exact: the function at `curve_x`.
        curve_approximate: the expression at `curve_x`, in float64.
    """

    key: str
    function: str
    scheme: str
    description: str
    latex: str
    domain: tuple[float, float]
    absolute_error: float
    relative_error: float | None
    error_kind: ErrorKind
    float32_error: float
    safe_interval: tuple[float | None, float | None]
    multiplications: int
    divisions: int
    additions: int
    curve_x: list[float] = field(default_factory=list)
    curve_exact: list[float] = field(default_factory=list)
    curve_approximate: list[float] = field(default_factory=list)
    relative: bool = False


@dataclass
class SiteRecord:
    """One place of one graph where a function was replaced.

    Attributes:
        id: stable id: pass, number and function, for example `softmax/3/exp`.
        pass_name: the pass as the user asked for it.
        pattern: name of the composite or operation that was recognised, for example `layer_norm`.
        function: the function that was replaced, for example `rsqrt`.
        node: name of the node at the root of the match.
        module_path: dotted path of the torch module it came from, or an empty string.
        graph: path of the subgraph (`If_3/then_branch`), or an empty string for the main graph.
        elements: number of elements the function is applied to in one run, when known.
        observed: smallest and largest input seen during calibration; None if nothing was seen.
        domain: the interval the approximant was made for.
        guard: `clip` if inputs are clipped to `domain`, else `none`.
        approximant: key of the `ApproximantRecord`.
        observed_absolute_error: largest absolute error at this site on the calibration data.
        observed_relative_error: likewise relative, or None.
        histogram: of the inputs seen.
        module_type: class of the torch module it came from, or an empty string.
    """

    id: str
    pass_name: str
    pattern: str
    function: str
    node: str
    module_path: str
    graph: str
    elements: int | None
    observed: tuple[float, float] | None
    domain: tuple[float, float]
    guard: Literal["clip", "none"]
    approximant: str
    observed_absolute_error: float | None
    observed_relative_error: float | None
    histogram: Histogram | None = None
    module_type: str = ""


@dataclass
class Skipped:
    """A node that a pass looked at and left alone, with the reason."""

    node: str
    op: str
    reason: str


@dataclass
class PassRecord:
    """What one pass did.

    Attributes:
        name: as typed.
        options: the options that were in force.
        patterns: how often each pattern matched, for example `{"layer_norm": 13}`.
        sites: number of function sites that were replaced.
        folded: number of nodes replaced by exact constants (rope at known positions).
        skipped: near misses and refusals.
        isolated: output name to metrics when only this pass is applied.
        cumulative: output name to metrics when this pass and all before it are applied.
        seconds: time spent matching and rewriting.
        notes: one line each, for a person.
    """

    name: str
    options: dict[str, Any]
    patterns: dict[str, int] = field(default_factory=dict)
    sites: int = 0
    folded: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    isolated: dict[str, Metrics] = field(default_factory=dict)
    cumulative: dict[str, Metrics] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass
class ModelRecord:
    """The model before and after.

    Attributes:
        path: the file it came from, or an empty string.
        opset_before: version of the default operator set; None for a torch module.
        opset_after: likewise after rewriting.
        nodes_before: nodes, subgraphs included.
        nodes_after: likewise.
        parameters: number of initializer elements.
        inputs: input name to shape, as run.
        ops_before: operator type to count, contrib operators as `com.microsoft::Gelu`.
        ops_after: likewise.
        transcendental_before: the part of `ops_before` that is transcendental.
        transcendental_after: likewise; empty when everything was replaced.
    """

    path: str
    opset_before: int | None
    opset_after: int | None
    nodes_before: int
    nodes_after: int
    parameters: int
    inputs: dict[str, list[int]]
    ops_before: dict[str, int]
    ops_after: dict[str, int]
    transcendental_before: dict[str, int]
    transcendental_after: dict[str, int]


@dataclass
class Report:
    """Everything that is known about one rewrite.

    Attributes:
        version: version of ODP.
        model: the model before and after.
        calibration: `source` (file name or `generated`), `samples`, `margin`.
        passes: in the order in which they were applied.
        sites: every function that was replaced.
        approximants: every expression that was used.
        total: output name to metrics, all passes applied and lowered to the final opset.
        warnings: one line each.
        near_misses: pass name to the nodes that nearly matched, for passes that were explained.
        statistics: the counts of `odp.rewriter.statistics.Statistics` by name.
    """

    version: str
    model: ModelRecord
    calibration: dict[str, Any]
    passes: list[PassRecord] = field(default_factory=list)
    sites: list[SiteRecord] = field(default_factory=list)
    approximants: list[ApproximantRecord] = field(default_factory=list)
    total: dict[str, Metrics] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    near_misses: dict[str, list[Skipped]] = field(default_factory=dict)
    statistics: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain lists, dicts, strings and numbers."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The report as JSON; numbers that JSON lacks (nan, inf) become null."""
        return json.dumps(_finite(self.to_dict()), indent=1)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
