"""The `gelu` pass."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.spellings import product_of_three
from odp.rewriter.graph import Value
from odp.rewriter.pattern import Match, Pattern, number, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Gelu"]

_X = variable("x")
_ROOT_TWO = math.sqrt(2)
_SCALED = op("div", _X, number(_ROOT_TWO, "divisor")) | op(
    "mul", _X, number(1 / _ROOT_TWO, "factor")
)
_ERF_GATE = op("add", op("erf", _SCALED), number(1.0))
_TANH_GATE = op("add", op("tanh", variable("argument")), number(1.0))
_HALF = number(0.5)


def _gated(gate: Pattern) -> Pattern:
    halved = op("mul", _X, op("div", gate, number(2.0))) | op(
        "div", op("mul", _X, gate), number(2.0)
    )
    return product_of_three(_X, _HALF, gate) | halved


@dataclass(frozen=True, kw_only=True)
class Gelu(Pass):
    """Replace GELU in its erf and tanh forms, fused or spelled out.

    The erf form is x*Phi(x) with Phi the normal distribution; the tanh form is exactly
    x*sigmoid(2u), since (1 + tanh(u))/2 = sigmoid(2u) (Hendrycks and Gimpel, arXiv 1606.08415).
    """

    name: ClassVar[str] = "gelu"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "gelu": op("gelu", _X, approximate="none") | _gated(_ERF_GATE),
        "gelu_tanh": op("gelu", _X, approximate="tanh") | _gated(_TANH_GATE),
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"gelu": ("erf",), "gelu_tanh": ("tanh",)}
    anchors: ClassVar[frozenset[str]] = frozenset({"gelu", "erf", "tanh"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x = match["x"]
        if match.root.op == "gelu":
            bias = match.root.inputs[1] if len(match.root.inputs) > 1 else None
            x = x if bias is None else build.add(x, bias)
            if match.root.attributes["approximate"] == "none":
                return build.mul(x, build.function("normal_cdf", x, replaces="erf"))
            argument = _tanh_argument(x, build)
        elif "argument" not in match:
            scaled = _rescaled(match, build)
            return build.mul(x, build.function("normal_cdf", scaled, replaces="erf"))
        else:
            argument = match["argument"]
        gate = build.function("sigmoid", build.mul(argument, 2.0), replaces="tanh")
        return build.mul(x, gate)


def _rescaled(match: Match, build: SiteBuilder) -> Value:
    """The argument of the normal distribution; not quite x where the model rounds sqrt(2)."""
    divisor = match.number("divisor") if "divisor" in match else 1 / match.number("factor")
    ratio = _ROOT_TWO / divisor
    return match["x"] if abs(ratio - 1.0) < 1e-6 else build.mul(match["x"], ratio)


def _tanh_argument(x: Value, build: SiteBuilder) -> Value:
    """`sqrt(2/pi) * (x + 0.044715 x^3)`."""
    cubic = build.add(build.mul(build.mul(x, x), 0.044715), 1.0)
    return build.mul(build.mul(x, cubic), math.sqrt(2 / math.pi))
