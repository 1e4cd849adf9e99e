"""The `log` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.reduction_axes import reduction_axes
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import ElementaryPass, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Log"]


@dataclass(frozen=True, kw_only=True)
class Log(ElementaryPass):
    """Replace natural logarithms, ReduceLogSum included."""

    name: ClassVar[str] = "log"
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "log": op("log", variable("x")),
        "reduce_log_sum": op("reduce_log_sum", variable("x")),
    }
    anchors: ClassVar[frozenset[str]] = frozenset({"log", "reduce_log_sum"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x, attributes = match["x"], match.root.attributes
        if match.root.op == "reduce_log_sum":
            x = build.reduce(
                "sum", build.widened(x), reduction_axes(match.root), attributes["keepdims"]
            )
        return build.function("log", x)
