"""The `mish` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.softplus import softplus_of
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Mish"]

_X = variable("x")


@dataclass(frozen=True, kw_only=True)
class Mish(Pass):
    """Replace x*tanh(softplus(x)) (Misra, arXiv 1908.08681) by approximating its gate."""

    name: ClassVar[str] = "mish"
    # Before the softplus pass, which would take the inside away.
    stage: ClassVar[int] = COMPOSITE - 1
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "mish": op("mish", _X) | op("mul", _X, op("tanh", softplus_of(_X)))
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"mish": ("tanh",)}
    anchors: ClassVar[frozenset[str]] = frozenset({"mish", "tanh"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x = match["x"]
        return build.mul(x, build.function("mish_gate", x, replaces="tanh"))
