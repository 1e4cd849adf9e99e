"""What is demanded of our operators, and whether it is met."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["DEMANDS", "Demand", "verdicts"]

Row = Mapping[str, Any]
BOTH = ("forward", "backward")


@dataclass(frozen=True)
class Demand:
    """A bound on one number of one operator.

    Attributes:
        operator: its name.
        number: ``ratio`` to the best of eager and compiled, ``ratio to eager``, or
            ``share of copy``.
        bound: largest ratio, what a ratio to eager has to be below, or smallest share.
        directions: where it has to hold.
    """

    operator: str
    number: str
    bound: float
    directions: tuple[str, ...] = ("forward",)

    def value(self, row: Row) -> float | None:
        """The number in a row of results; None where it was not measured."""
        timed = {n: c for n, c in row["contenders"].items() if "failure" not in c}
        if "ours" not in timed:
            return None
        if self.number == "share of copy":
            return float(timed["ours"]["share_of_copy"])
        if self.number == "ratio":
            found = row["ratio_to_best_native"]
            return None if found is None else float(found)
        if "eager" not in timed:
            return None
        return float(timed["ours"]["microseconds"] / timed["eager"]["microseconds"])

    def is_met(self, value: float | None) -> bool:
        """Whether a value keeps the bound; what was not measured does not."""
        if value is None:
            return False
        if self.number == "share of copy":
            return value >= self.bound
        return value < self.bound if self.number == "ratio to eager" else value <= self.bound


_LEVEL = ("silu", "swiglu", "rms_norm", "rope", "gelu")

DEMANDS: tuple[Demand, ...] = (
    *(Demand(name, "ratio", 1.00, BOTH) for name in _LEVEL),
    *(Demand(name, "share of copy", 0.90) for name in _LEVEL),
    Demand("softmax", "ratio", 1.05, BOTH),
    Demand("gelu", "ratio to eager", 1.00),
    # 0.9 of the speed of flash attention, which is its eager.
    Demand("attention", "ratio", 1 / 0.9),
    Demand("attention_causal", "ratio", 1 / 0.9),
)
"""At the two large sizes, in bfloat16."""


def verdicts(
    rows: Iterable[Row], large: Mapping[str, Sequence[Sequence[int]]], selected: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Each demand at each large size: its value, and whether it is met.

    Args:
        rows: results.
        large: sizes at which demands hold, by operator.
        selected: operators that were to be measured.
    """
    known = {(r["operator"], tuple(r["size"]), r["direction"]): r for r in rows}
    for demand in DEMANDS:
        if demand.operator not in selected:
            continue
        for size in large[demand.operator]:
            for direction in demand.directions:
                row = known.get((demand.operator, tuple(size), direction))
                value = None if row is None else demand.value(row)
                yield {
                    "operator": demand.operator,
                    "size": list(size),
                    "direction": direction,
                    "number": demand.number,
                    "bound": demand.bound,
                    "value": value,
                    "met": demand.is_met(value),
                }
