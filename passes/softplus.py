"""The `softplus` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.approximations.interval import Interval
from odp.passes.sigmoid import sigmoid_of
from odp.rewriter.pattern import Match, Pattern, number, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Softplus", "softplus_of"]

_NON_NEGATIVE = Interval(0.0, float("inf"))


def softplus_of(x: Pattern) -> Pattern:
    """`log(1+exp(x))` as Softplus or spelled out."""
    return op("softplus", x) | op("log", op("add", op("exp", x), number(1.0)))


@dataclass(frozen=True, kw_only=True)
class Softplus(Pass):
    """Replace log(1+exp(x)), exactly relu(x) + log(1+exp(-|x|)), by approximating the tail.

    The tail decays to zero, so clipping its argument leaves the slope right on both sides.  The
    logarithm of a sigmoid is -softplus(-x) = min(x, 0) - log(1+exp(-|x|)); taken apart, a sigmoid
    of 1e-5 with an error of 1e-5 has no logarithm worth the name.
    """

    name: ClassVar[str] = "softplus"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "softplus": softplus_of(variable("x")),
        "log_sigmoid": op("log", sigmoid_of(variable("x")), capture="log_sigmoid"),
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(patterns, ("log",))
    anchors: ClassVar[frozenset[str]] = frozenset({"softplus", "log"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x = match["x"]
        tail = build.function(
            "softplus_tail", build.op("abs", x), domain=_NON_NEGATIVE, replaces="log"
        )
        if "log_sigmoid" in match.nodes:
            return build.sub(build.op("clip", x, high=0.0), tail)
        return build.add(build.op("relu", x), tail)
