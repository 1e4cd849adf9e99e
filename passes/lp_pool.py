"""The `lp_pool` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from odp.approximations.interval import Interval
from odp.rewriter.graph import Value
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Refusal, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["LpPool"]

_NON_NEGATIVE = Interval(0.0, float("inf"))
_WINDOW = ("kernel_shape", "strides", "pads", "auto_pad", "dilations")


@dataclass(frozen=True, kw_only=True)
class LpPool(Pass):
    """Replace the root of an lp pool, sum(|x|^p)^(1/p) over windows or over all positions.

    The sum over a window is a convolution with ones, one group for each channel.
    """

    name: ClassVar[str] = "lp_pool"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {
        kind: op(kind, variable("x"), p=lambda p: p > 1) for kind in ("lp_pool", "global_lp_pool")
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(patterns, ("sqrt", "pow"))
    anchors: ClassVar[frozenset[str]] = frozenset(patterns)

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x, attributes = match["x"], match.root.attributes
        p = int(attributes["p"])
        if x.rank is None:
            raise Refusal("the rank of the input is not known at rewriting time")
        power = build.mul(x, x)
        if p != 2:
            power = build.op("pow", build.op("abs", x), build.number(float(p), x))
        if match.root.op == "global_lp_pool":
            total = build.reduce("sum", power, tuple(range(2, x.rank)))
        else:
            total = _window_sum(x, power, match, build)
        if p == 2:
            return build.function("sqrt", total, domain=_NON_NEGATIVE)
        return build.function(f"pow({1 / p!r})", total, domain=_NON_NEGATIVE, replaces="pow")


def _window_sum(x: Value, power: Value, match: Match, build: SiteBuilder) -> Value:
    attributes = match.root.attributes
    channels = x.shape[1] if x.shape is not None else None
    if channels is None:
        raise Refusal("the number of channels is not static; give it with --shape")
    if attributes["ceil_mode"]:
        raise Refusal("ceil_mode = 1: a convolution has no windows that leave the input")
    ones = np.ones((channels, 1, *attributes["kernel_shape"]))
    window = {key: attributes[key] for key in _WINDOW if attributes[key] is not None}
    kernel = build.constant(ones, x.dtype or "float32")
    result: Value = build.op("conv", power, kernel, group=channels, **window)
    return result
