"""The `rsqrt` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.approximations.interval import Interval
from odp.passes.spellings import inverse_root, root
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import ElementaryPass, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Rsqrt"]

_NON_NEGATIVE = Interval(0.0, float("inf"))


@dataclass(frozen=True, kw_only=True)
class Rsqrt(ElementaryPass):
    """Replace every 1/sqrt(x) and a/sqrt(x), also those inside norms."""

    name: ClassVar[str] = "rsqrt"
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "rsqrt": inverse_root(variable("x")),
        "division_by_sqrt": op("div", variable("a"), root(variable("x"))),
    }
    anchors: ClassVar[frozenset[str]] = frozenset({"rsqrt", "sqrt", "pow", "reciprocal"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        inverse = build.function("rsqrt", match["x"], domain=_NON_NEGATIVE)
        return build.mul(match["a"], inverse) if "a" in match else inverse
