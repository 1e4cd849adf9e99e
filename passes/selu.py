"""The `selu` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.exponential_unit import exponential_unit
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Selu"]


@dataclass(frozen=True, kw_only=True)
class Selu(Pass):
    """Replace SELU, a scaled ELU (Klambauer et al., arXiv 1706.02515)."""

    name: ClassVar[str] = "selu"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {"selu": op("selu", variable("x"))}
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"selu": ("exp",)}
    anchors: ClassVar[frozenset[str]] = frozenset({"selu"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        gain, alpha = match.root.attributes["gamma"], match.root.attributes["alpha"]
        return exponential_unit(match["x"], build, gain=gain, alpha=alpha, width=1.0)
