"""The `instance_norm` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.norm_patterns import inverse_deviation
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Refusal, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["InstanceNorm"]


@dataclass(frozen=True, kw_only=True)
class InstanceNorm(Pass):
    """Replace the rsqrt of instance norms, one per channel (Ulyanov et al., arXiv 1607.08022)."""

    name: ClassVar[str] = "instance_norm"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "instance_norm": op("instance_norm", variable("x"))
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"instance_norm": ("rsqrt",)}
    anchors: ClassVar[frozenset[str]] = frozenset({"instance_norm"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x = build.widened(match["x"])
        if x.rank is None:
            raise Refusal("the rank of the input is not known at rewriting time")
        axes = tuple(range(2, x.rank))
        centred = build.sub(x, build.reduce("mean", x, axes))
        variance = build.reduce("mean", build.mul(centred, centred), axes)
        inverse = inverse_deviation(variance, match.root.attributes["epsilon"], build)
        # Scale and bias have one entry a channel: (C,) becomes (C, 1, ..., 1).
        trailing = tuple(range(1, x.rank - 1))
        scale, bias = (
            build.op("unsqueeze", given, axes=trailing) if trailing and given is not None else given
            for given in (*match.root.inputs, None, None)[1:3]
        )
        result = build.mul(centred, inverse)
        result = result if scale is None else build.mul(result, scale)
        return result if bias is None else build.add(result, bias)
