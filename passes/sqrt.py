"""The `sqrt` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.approximations.interval import Interval
from odp.passes.reduction_axes import reduction_axes
from odp.passes.spellings import root
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import ElementaryPass, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Sqrt"]

_NON_NEGATIVE = Interval(0.0, float("inf"))


@dataclass(frozen=True, kw_only=True)
class Sqrt(ElementaryPass):
    """Replace square roots that are not the denominator of a norm, l2 norms included."""

    name: ClassVar[str] = "sqrt"
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "sqrt": root(variable("x")),
        "reduce_l2": op("reduce_l2", variable("x")),
    }
    anchors: ClassVar[frozenset[str]] = frozenset({"sqrt", "reduce_l2"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x, attributes = match["x"], match.root.attributes
        if match.root.op == "reduce_l2":
            axes = reduction_axes(match.root)
            x = build.widened(x)
            x = build.reduce("sum", build.mul(x, x), axes, attributes["keepdims"])
        return build.function("sqrt", x, domain=_NON_NEGATIVE)
