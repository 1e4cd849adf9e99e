"""The `lp_norm` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.approximations.interval import Interval
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Refusal, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["LpNorm"]

_NON_NEGATIVE = Interval(0.0, float("inf"))


@dataclass(frozen=True, kw_only=True)
class LpNorm(Pass):
    """Replace the rsqrt of vectors that are scaled to length one, x / sqrt(sum(x^2)).

    A vector of zeros stays zero, as the standard asks for.
    """

    name: ClassVar[str] = "lp_norm"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {"lp_norm": op("lp_norm", variable("x"), p=2)}
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"lp_norm": ("rsqrt",)}
    anchors: ClassVar[frozenset[str]] = frozenset({"lp_norm"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x, axes = build.widened(match["x"]), match.root.attributes["axes"]
        if axes is None:
            raise Refusal("the rank of the input is not known at rewriting time")
        total = build.reduce("sum", build.mul(x, x), axes)
        # 0 * rsqrt(1) is the 0 that is wanted, and 0 * rsqrt(0) is not a number.
        positive = build.op("greater", total, build.number(0.0, total))
        safe = build.op("where", positive, total, build.number(1.0, total))
        return build.mul(x, build.function("rsqrt", safe, domain=_NON_NEGATIVE))
