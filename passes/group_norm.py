"""The `group_norm` pass."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.norm_patterns import inverse_deviation
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Refusal, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["GroupNorm"]


@dataclass(frozen=True, kw_only=True)
class GroupNorm(Pass):
    """Replace the rsqrt of group norms (Wu and He, arXiv 1803.08494)."""

    name: ClassVar[str] = "group_norm"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {"group_norm": op("group_norm", variable("x"))}
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"group_norm": ("rsqrt",)}
    anchors: ClassVar[frozenset[str]] = frozenset({"group_norm"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x, attributes = match["x"], match.root.attributes
        if x.shape is None or any(extent is None for extent in x.shape):
            raise Refusal("the shape of the input is not static; give it with --shape")
        shape = [extent or 1 for extent in x.shape]
        groups, channels = attributes["groups"], shape[1]
        grouped = build.op(
            "reshape", build.widened(x), shape=[shape[0], groups, math.prod(shape[1:]) // groups]
        )
        centred = build.sub(grouped, build.reduce("mean", grouped, (2,)))
        variance = build.reduce("mean", build.mul(centred, centred), (2,))
        inverse = inverse_deviation(variance, attributes["epsilon"], build)
        normalised = build.mul(centred, inverse)
        if attributes["per_channel"]:
            normalised = build.op("reshape", normalised, shape=shape)
            extents = [1, channels, *([1] * (len(shape) - 2))]
        else:
            extents = [1, groups, 1]
        _, scale, bias = (*match.root.inputs, None, None)[:3]
        result = normalised
        if scale is not None:
            result = build.mul(result, build.op("reshape", scale, shape=extents))
        if bias is not None:
            result = build.add(result, build.op("reshape", bias, shape=extents))
        return result if attributes["per_channel"] else build.op("reshape", result, shape=shape)
