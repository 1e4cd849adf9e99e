"""The `pow` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.approximations.interval import Interval
from odp.rewriter.graph import Value
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import ElementaryPass, Refusal, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Pow"]

_POSITIVE = Interval(0.0, float("inf"))


def _is_not_integral(exponent: Value) -> bool:
    array = exponent.constant
    return array is None or bool((array != array.round()).any())


@dataclass(frozen=True, kw_only=True)
class Pow(ElementaryPass):
    """Replace x**p for a fixed p that is no integer, and x**y as exp(y*log(x)).

    Integer exponents are left: they are multiplications already.
    """

    name: ClassVar[str] = "pow"
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "pow": op("pow", variable("x"), variable("p", _is_not_integral, "a fractional exponent"))
    }

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        x, exponent = match["x"], match["p"]
        if exponent.scalar is not None:
            power = exponent.scalar
            if power in (0.5, -0.5):
                name = "sqrt" if power > 0 else "rsqrt"
                return build.function(name, x, domain=_POSITIVE, replaces="pow")
            return build.function(f"pow({power!r})", x, domain=_POSITIVE, replaces="pow")
        if not x.is_floating:
            raise Refusal("an integer base with an exponent that is not constant")
        if exponent.dtype != x.dtype:
            exponent = build.op("cast", exponent, dtype=x.dtype or "float32")
        logarithm = build.function("log", x, domain=_POSITIVE, replaces="pow")
        return build.function("exp", build.mul(exponent, logarithm), replaces="pow")
