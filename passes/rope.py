"""The `rope` pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from odp.approximations.interval import Interval
from odp.rewriter.graph import Value
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import COMPOSITE, Pass, Refusal, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Rope"]

_ANGLE = variable("angle")
_MOVES = frozenset(
    {"concat", "unsqueeze", "squeeze", "reshape", "transpose", "cast", "identity", "expand"}
)


@dataclass(frozen=True, kw_only=True)
class Rope(Pass):
    """Replace the sine and cosine of rotary position embeddings (Su et al., arXiv 2104.09864).

    Positions that are known when the model is exported give exact constant tables.  Dynamic
    positions get an approximation on the angles from zero to `positions` times the largest
    frequency, or on the calibrated range if `positions` is not set.

    Attributes:
        positions: number of positions that the model must support.
    """

    name: ClassVar[str] = "rope"
    stage: ClassVar[int] = COMPOSITE
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "rope_sin": op("sin", _ANGLE),
        "rope_cos": op("cos", _ANGLE),
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"rope_sin": ("sin",), "rope_cos": ("cos",)}
    anchors: ClassVar[frozenset[str]] = frozenset({"sin", "cos"})

    positions: int | None = None

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        folded = build.fold(match.root.output)
        if folded is not None:
            build.note("positions are known: sine and cosine became exact constant tables")
            return folded
        frequencies = _frequencies(match["angle"])
        if frequencies is None:
            raise Refusal("the angle is not a product of positions and constant frequencies")
        cover = None
        if self.positions is not None:
            cover = Interval(0.0, self.positions * frequencies)
        build.note("positions are dynamic: sine and cosine are approximated on a range of angles")
        return build.function(match.root.op, match["angle"], cover=cover)


def _frequencies(angle: Value) -> float | None:
    """Largest constant factor of the angle, or None if it is no product with a constant."""
    pending = [angle]
    for _ in range(16):
        node = pending.pop().producer if pending else None
        if node is None:
            return None
        operands = [operand for operand in node.inputs if operand is not None]
        if node.op in ("mul", "matmul"):
            arrays = [array for o in operands if (array := o.constant) is not None]
            if arrays:
                return float(abs(arrays[0]).max())
            pending = operands
        elif node.op in _MOVES:
            pending = operands[:1]
        else:
            return None
    return None
