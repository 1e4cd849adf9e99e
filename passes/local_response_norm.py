"""The `local_response_norm` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from odp.approximations.interval import Interval
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Refusal, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["LocalResponseNorm"]


@dataclass(frozen=True, kw_only=True)
class LocalResponseNorm(Pass):
    """Replace the power of local response norms (Krizhevsky et al., 2012).

    x * (bias + alpha/size * sum of x^2 over neighbouring channels)^-beta; the sum is a convolution
    along the channels.
    """

    name: ClassVar[str] = "local_response_norm"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "local_response_norm": op("local_response_norm", variable("x"))
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"local_response_norm": ("pow",)}
    anchors: ClassVar[frozenset[str]] = frozenset({"local_response_norm"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x, attributes = match["x"], match.root.attributes
        shape = x.shape
        if shape is None or sum(extent is None for extent in shape) > 1 or shape[1] is None:
            raise Refusal("the shape of the input is not static; give it with --shape")
        dtype, size, bias = x.dtype or "float32", int(attributes["size"]), attributes["bias"]
        before = (size - 1) // 2
        # (N, C, ...) becomes an image of height C, over which the kernel slides.
        squares = build.op("reshape", build.mul(x, x), shape=[0, 1, shape[1], -1])
        kernel = np.full((1, 1, size, 1), attributes["alpha"] / size)
        scale = build.op(
            "conv",
            squares,
            build.constant(kernel, dtype),
            build.constant([bias], dtype),
            pads=[before, 0, size - 1 - before, 0],
        )
        scale = build.op("reshape", scale, shape=[-1 if n is None else n for n in shape])
        power = -float(attributes["beta"])
        domain = Interval(bias, float("inf"))
        name = "rsqrt" if power == -0.5 else f"pow({power!r})"
        return build.mul(x, build.function(name, scale, domain=domain, replaces="pow"))
