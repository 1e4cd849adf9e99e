"""The `silu` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.sigmoid import sigmoid_of
from odp.passes.spellings import negative
from odp.rewriter.pattern import Match, Pattern, number, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Silu"]

_X = variable("x")
_DENOMINATOR = op("add", op("exp", negative(_X)), number(1.0))


@dataclass(frozen=True, kw_only=True)
class Silu(Pass):
    """Replace x*sigmoid(x) and x*sigmoid(alpha*x), with alpha = 1.702 the quick GELU.

    The gate alone is approximated: x*gate(x) keeps the right slope on both sides even where the
    gate is clipped.
    """

    name: ClassVar[str] = "silu"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "silu": op("silu", _X) | op("mul", _X, sigmoid_of(_X)) | op("div", _X, _DENOMINATOR),
        "swish": op("mul", _X, sigmoid_of(op("mul", _X, number(name="alpha")))),
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(patterns, ("sigmoid",))
    anchors: ClassVar[frozenset[str]] = frozenset({"silu", "sigmoid"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x = match["x"]
        alpha = match.number("alpha") if "alpha" in match else 1.0
        alpha = match.root.attributes.get("alpha", alpha)
        scaled = x if alpha == 1.0 else build.mul(x, alpha)
        return build.mul(x, build.function("sigmoid", scaled))
