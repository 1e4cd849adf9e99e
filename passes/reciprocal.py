"""The `reciprocal` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.graph import Value
from odp.rewriter.pattern import Match, Pattern, number, op, variable
from odp.rewriter.rewrite_pass import ElementaryPass, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Reciprocal"]


def _is_variable_divisor(value: Value) -> bool:
    return value.is_floating and value.constant is None


@dataclass(frozen=True, kw_only=True)
class Reciprocal(ElementaryPass):
    """Replace 1/x and division by a variable, for targets that cannot divide.

    Not part of `--passes all`: a rational expression may divide.  The replacement is Newton's
    iteration, which has no division except in its seed.
    """

    name: ClassVar[str] = "reciprocal"
    in_all: ClassVar[bool] = False
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "reciprocal": op("reciprocal", variable("x")),
        "inverse": op("div", number(1.0), variable("x", _is_variable_divisor, "a variable")),
        "division": op("div", variable("a"), variable("x", _is_variable_divisor, "a variable")),
    }
    anchors: ClassVar[frozenset[str]] = frozenset({"reciprocal", "div"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        inverse = build.function("reciprocal", match["x"])
        return build.mul(match["a"], inverse) if "a" in match else inverse
