"""The `sigmoid` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.passes.spellings import negative
from odp.rewriter.pattern import Pattern, number, op, variable
from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Sigmoid", "sigmoid_of"]


def sigmoid_of(x: Pattern) -> Pattern:
    """`1/(1+exp(-x))` as Sigmoid or spelled out."""
    denominator = op("add", op("exp", negative(x)), number(1.0))
    return op("sigmoid", x) | op("reciprocal", denominator) | op("div", number(1.0), denominator)


@dataclass(frozen=True, kw_only=True)
class Sigmoid(ElementaryPass):
    """Replace sigmoids, also those inside SiLU and recurrent layers."""

    name: ClassVar[str] = "sigmoid"
    patterns: ClassVar[Mapping[str, Pattern]] = {"sigmoid": sigmoid_of(variable("x"))}
