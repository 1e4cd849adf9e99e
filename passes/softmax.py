"""The `softmax` pass."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from odp.approximations.interval import Interval
from odp.passes.finite_mask import finite_mask, stored_mask
from odp.rewriter.graph import Value
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Refusal, Replacement
from odp.rewriter.site import EVERYWHERE, SiteBuilder

__all__ = ["Softmax", "shifted_exp"]

_NON_POSITIVE = Interval(float("-inf"), 0.0)
_X = variable("x")
_EXP = op("exp", _X)
_LONG_ROW = 1024
"""Length of a row whose length is not known when the graph is rewritten."""
_TOTAL = op("reduce_sum", _EXP, capture="total", keepdims=True)


@dataclass(frozen=True, kw_only=True)
class Softmax(Pass):
    """Replace the exp of a softmax, whose argument x - max(x) is never positive.

    Recognised fused, as Exp/ReduceSum/Div with or without the subtraction of the maximum, and as a
    lone exp(x - max(x)).  Attention masks of -1e4, -3.4e38 or -inf do not widen the domain, and
    masks stored in the model become small finite numbers.

    Attributes:
        mask: `add` (the default) leaves masks where they are; `multiply` takes a stored one out of
            the scores and multiplies the weights by 0 and 1 instead, so that no exp ever sees it:
            for circuits, whose integers have no room for it and whose clips are dear.
        shift: `max` (the default) subtracts the largest score of each row; `none` does not, and exp
            must hold on the whole range of scores: for targets without comparisons, where that
            range is small.
    """

    name: ClassVar[str] = "softmax"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "softmax": op("softmax", _X),
        "exp_of_shifted": op("exp", op("sub", _X, op("reduce_max", _X)), capture="exp"),
        "exp_over_sum": op("div", _EXP, _TOTAL),
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(patterns, ("exp",))
    anchors: ClassVar[frozenset[str]] = frozenset({"softmax", "exp"})

    mask: Literal["add", "multiply"] | None = None
    shift: Literal["max", "none"] | None = None

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        if match.root.op == "exp":
            shifted = match.root.inputs[0]
            assert shifted is not None
            finite = finite_mask(match["x"], build)
            return build.function(
                "exp", shifted, domain=_NON_POSITIVE, maskable=True, masks_finite=finite
            )
        axes = match.nodes.get("total", match.root).attributes["axes"]
        if axes is None:
            raise Refusal("the rank of the input or the axes are not known at rewriting time")
        x = match["x"]
        found = stored_mask(x) if self.mask == "multiply" else None
        finite = finite_mask(x, build)
        if found is None:
            x = build.widened(x)
            if self.shift == "none":
                weights = build.function("exp", x)
            else:
                weights = shifted_exp(x, axes, build, finite)
            return build.div(weights, build.reduce("sum", weights, axes))
        scores = build.widened(found[0])
        keep = build.constant(found[1], scores.dtype or "float32")
        if self.shift != "none":
            # The largest score that is kept; what is not kept becomes exp(0), times zero.
            largest = build.reduce("max", build.widened(x), axes)
            scores = build.mul(build.sub(scores, largest), keep)
        domain = EVERYWHERE if self.shift == "none" else _NON_POSITIVE
        weights = build.mul(build.function("exp", scores, domain=domain), keep)
        return build.div(weights, build.reduce("sum", weights, axes))


def shifted_exp(
    x: Value, axes: tuple[int, ...], build: SiteBuilder, masks_finite: bool = False
) -> Value:
    """Emit `exp(x - max(x))`; see `SiteBuilder.function` for `masks_finite`."""
    shifted = build.sub(x, build.reduce("max", x, axes))
    extents = [] if x.shape is None else [x.shape[axis] or _LONG_ROW for axis in axes]
    return build.function(
        "exp",
        shifted,
        domain=_NON_POSITIVE,
        maskable=True,
        masks_finite=masks_finite,
        summed=math.prod(extents),
    )
