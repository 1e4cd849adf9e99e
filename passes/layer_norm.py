"""The `layer_norm` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.norm_patterns import inverse_deviation, normalise, rewrite_normalise
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Refusal, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["LayerNorm"]

_X = variable("x")
_CENTRED = op("sub", _X, op("reduce_mean", _X), capture="centred")


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Pass):
    """Replace the rsqrt of layer norms (Ba et al., arXiv 1607.06450), fused or spelled out."""

    name: ClassVar[str] = "layer_norm"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "layer_norm": op("layer_norm", _X),
        "skip_layer_norm": op("skip_layer_norm", _X, variable("skip")),
        "layer_norm_spelled_out": normalise(_CENTRED, _CENTRED),
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(patterns, ("rsqrt",))
    anchors: ClassVar[frozenset[str]] = frozenset(
        {"layer_norm", "skip_layer_norm", "rsqrt", "sqrt"}
    )

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x, root = match["x"], match.root
        if root.op not in ("layer_norm", "skip_layer_norm"):
            return rewrite_normalise(match, match.nodes["centred"].output, build)
        operands = [*root.inputs, None, None, None, None]
        if root.op == "skip_layer_norm":
            x = build.add(x, match["skip"])
            x = x if operands[4] is None else build.add(x, operands[4])
            scale, bias = operands[2], operands[3]
            axes: tuple[int, ...] | None = (-1 if x.rank is None else x.rank - 1,)
        else:
            scale, bias, axes = operands[1], operands[2], root.attributes["axes"]
        if axes is None:
            raise Refusal("the rank of the input is not known at rewriting time")
        x = build.widened(x)
        mean = build.reduce("mean", x, axes)
        centred = build.sub(x, mean)
        variance = build.reduce("mean", build.mul(centred, centred), axes)
        inverse = inverse_deviation(variance, root.attributes["epsilon"], build)
        result = build.mul(centred, inverse)
        result = result if scale is None else build.mul(result, scale)
        result = result if bias is None else build.add(result, bias)
        return [result, mean, inverse, x][: len(root.outputs)]
