"""The `rms_norm` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.norm_patterns import inverse_deviation, normalise, rewrite_normalise
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Refusal, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["RmsNorm"]

_X = variable("x")


@dataclass(frozen=True, kw_only=True)
class RmsNorm(Pass):
    """Replace the rsqrt of root-mean-square norms (Zhang and Sennrich, arXiv 1910.07467)."""

    name: ClassVar[str] = "rms_norm"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "rms_norm": op("rms_norm", _X),
        "skip_rms_norm": op("skip_rms_norm", _X, variable("skip")),
        "rms_norm_spelled_out": normalise(_X, _X),
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(patterns, ("rsqrt",))
    anchors: ClassVar[frozenset[str]] = frozenset({"rms_norm", "skip_rms_norm", "rsqrt", "sqrt"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x, root = match["x"], match.root
        if root.op not in ("rms_norm", "skip_rms_norm"):
            return rewrite_normalise(match, x, build)
        operands = [*root.inputs, None, None, None, None]
        if root.op == "skip_rms_norm":
            x = build.add(x, match["skip"])
            scale, bias = operands[2], operands[3]
            x = x if bias is None else build.add(x, bias)
            axes: tuple[int, ...] | None = (-1 if x.rank is None else x.rank - 1,)
        else:
            scale, axes = operands[1], root.attributes["axes"]
        if axes is None:
            raise Refusal("the rank of the input is not known at rewriting time")
        x = build.widened(x)
        variance = build.reduce("mean", build.mul(x, x), axes)
        inverse = inverse_deviation(variance, root.attributes["epsilon"], build)
        normalised = build.mul(x, inverse)
        result = normalised if scale is None else build.mul(normalised, scale)
        if root.op == "rms_norm":
            return result
        return [result, None, inverse, x][: len(root.outputs)]
