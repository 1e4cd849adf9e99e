"""The `celu` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.exponential_unit import exponential_unit
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Celu"]


@dataclass(frozen=True, kw_only=True)
class Celu(Pass):
    """Replace CELU, alpha*(exp(x/alpha)-1) for negative x (Barron, arXiv 1704.07483)."""

    name: ClassVar[str] = "celu"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {"celu": op("celu", variable("x"))}
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"celu": ("exp",)}
    anchors: ClassVar[frozenset[str]] = frozenset({"celu"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        alpha = match.root.attributes["alpha"]
        return exponential_unit(match["x"], build, gain=1.0, alpha=alpha, width=alpha)
