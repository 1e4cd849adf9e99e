"""The `elu` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.exponential_unit import exponential_unit
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Elu"]


@dataclass(frozen=True, kw_only=True)
class Elu(Pass):
    """Replace ELU, alpha*(exp(x)-1) for negative x (Clevert et al., arXiv 1511.07289)."""

    name: ClassVar[str] = "elu"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {"elu": op("elu", variable("x"))}
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"elu": ("exp",)}
    anchors: ClassVar[frozenset[str]] = frozenset({"elu"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        alpha = match.root.attributes["alpha"]
        return exponential_unit(match["x"], build, gain=1.0, alpha=alpha, width=1.0)
