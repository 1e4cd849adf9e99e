"""The `log_softmax` pass."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.approximations.interval import Interval
from odp.passes.softmax import shifted_exp
from odp.rewriter.graph import Value
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Refusal, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["LogSoftmax"]

_X = variable("x")


@dataclass(frozen=True, kw_only=True)
class LogSoftmax(Pass):
    """Replace x - max - log(sum(exp(x - max))); the sum lies between 1 and the number of classes.

    ReduceLogSumExp is the same without the subtraction.  Masks keep their values: the logarithm of
    a masked probability is the mask.
    """

    name: ClassVar[str] = "log_softmax"
    # Before the softmax pass, which would take the inside of log(softmax(x)) away.
    stage: ClassVar[int] = COMPOSITE - 1
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "log_softmax": op("log_softmax", _X) | op("log", op("softmax", _X, capture="softmax")),
        "log_sum_exp": op("reduce_log_sum_exp", _X),
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(patterns, ("exp", "log"))
    anchors: ClassVar[frozenset[str]] = frozenset({"log_softmax", "reduce_log_sum_exp"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        attributes = match.nodes.get("softmax", match.root).attributes
        axes = attributes["axes"]
        x = match["x"]
        if axes is None or x.shape is None:
            raise Refusal("the rank of the input or the axes are not known at rewriting time")
        x = build.widened(x)
        largest = build.reduce("max", x, axes)
        total = build.reduce("sum", shifted_exp(x, axes, build), axes)
        logarithm = build.function("log", total, domain=_sum_domain(x, axes))
        if match.root.op != "reduce_log_sum_exp":
            return build.sub(build.sub(x, largest), logarithm)
        result = build.add(logarithm, largest)
        keepdims = attributes["keepdims"]
        return result if keepdims else build.op("squeeze", result, axes=axes)


def _sum_domain(x: Value, axes: tuple[int, ...]) -> Interval:
    """The largest summand is exp(0) = 1 and none is larger; widened for the error of the exp."""
    assert x.shape is not None
    extents = [x.shape[axis] for axis in axes]
    count = math.inf if any(n is None for n in extents) else math.prod(n or 1 for n in extents)
    return Interval(1.0 - 2**-6, count * (1.0 + 2**-6))
