"""What the search for fewer rows found: rungs, the front of rows against quality, a verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CircuitCost", "HeldOut", "Point", "RowsSearch", "Rung"]


@dataclass(frozen=True)
class CircuitCost:
    """The circuits of all decoder layers together, as predicted.

    Attributes:
        rows: at two inner columns, by which circuits of other widths compare.
        rescaled: elements that are divided by a power of two, which is what most rows are.
        products: elements of products of two variables.
        logrows: log2 of the rows of each circuit, in the columns that are best for it.
        proving_key: bytes of all keys.
        peak_memory: bytes that the largest circuit takes to prove.
        price: predicted seconds of setup and proof times bytes of memory, summed.
        errors: of each circuit's integers beside the same circuit in real numbers, largest relative
            l2 error on up to four calibration windows.
        expressions: distinct expressions, and at how many sites each stands.
    """

    rows: float
    rescaled: int
    products: int
    logrows: list[int]
    proving_key: int
    peak_memory: int
    price: float
    errors: list[float]
    expressions: dict[str, int]


@dataclass(frozen=True)
class HeldOut:
    """Predictions on windows of text that no training saw.

    Attributes:
        windows: that were scored, those refused included.
        refused: of them, those in which a tensor leaves its range in any circuit: the prover would
            refuse them.  They are not in the numbers below.
        tokens: that were predicted.
        perplexity: of the model with circuits.
        original: perplexity of the original on the same windows.
        kl: mean of KL(original || circuits), nats a token.
        top1: share of the tokens for which both find the same one most likely.
    """

    windows: int
    refused: int
    tokens: int
    perplexity: float
    original: float
    kl: float
    top1: float

    @property
    def change(self) -> float:
        """Of the perplexity on this text, as a share."""
        return self.perplexity / self.original - 1.0

    @property
    def loss(self) -> float:
        """What the circuits cost: exp(KL) - 1, the expected change of the perplexity, as a share.

        Expected of text that the original itself would write.  On some thousand tokens of another
        text the change itself is mostly chance, and it rewards what was learned of a text.
        """
        return math.expm1(self.kl) if self.kl < 700 else math.inf


@dataclass(frozen=True)
class Point:
    """Circuits and what the model predicts with them."""

    cost: CircuitCost
    held_out: HeldOut


@dataclass(frozen=True)
class Rung:
    """One error, and what became of it.

    Attributes:
        error: that `compile_circuit` was asked for, of every layer.
        unhealed: circuits as they are compiled; None where none keep the error.
        healed: circuits with the healed weights; None where nothing was healed.
        training: steps, numbers that train, KL of the first and the last step, seconds.
        failure: why there are no circuits.
        seconds: to compile.
    """

    error: float
    unhealed: Point | None
    healed: Point | None
    training: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; what is not finite as null."""
        tree = dataclasses.asdict(self)
        for name in ("unhealed", "healed"):
            point = getattr(self, name)
            if point is not None:
                found = point.held_out
                tree[name]["held_out"] |= {"change": found.change, "loss": found.loss}
        plain: dict[str, Any] = _finite(tree)
        return plain

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Rung:
        """What `to_dict` wrote."""
        return cls(
            **(tree | {name: _point(tree[name]) for name in ("unhealed", "healed")}),
        )


@dataclass(frozen=True)
class RowsSearch:
    """All rungs of a search.

    Attributes:
        rungs: from fine to coarse.
        quality: largest `HeldOut.loss` that is still the same quality.
        tokens: of a circuit's window.
        train: what was trained.
    """

    rungs: Sequence[Rung]
    quality: float
    tokens: int
    train: Sequence[str]

    def points(self, healed: bool) -> dict[float, Point]:
        """Circuits by the error of their rung."""
        found = {rung.error: rung.healed if healed else rung.unhealed for rung in self.rungs}
        return {error: point for error, point in found.items() if point is not None}

    def front(self, healed: bool) -> list[float]:
        """Errors of the rungs that no other one beats in rows and in loss."""
        points = self.points(healed)

        def place(point: Point) -> tuple[float, float]:
            return point.cost.rows, _ranked(point.held_out.loss)

        return [
            error
            for error, point in points.items()
            if not any(_beats(place(other), place(point)) for other in points.values())
        ]

    def cheapest(self, healed: bool) -> tuple[float, Point] | None:
        """The rung with the fewest rows at the same quality; None where no rung has it.

        Args:
            healed: whether circuits may be healed ones.
        """
        points = [*self.points(False).items(), *(self.points(True).items() if healed else ())]
        good = [one for one in points if _ranked(one[1].held_out.loss) <= self.quality]
        return min(good, key=lambda one: one[1].cost.rows, default=None)

    @property
    def saving(self) -> float | None:
        """Share of the rows that healing saves at the same quality; None if it cannot be said."""
        before, after = self.cheapest(False), self.cheapest(True)
        if before is None or after is None:
            return None
        return 1.0 - after[1].cost.rows / before[1].cost.rows

    def verdict(self) -> str:
        """What a user wants to know, in one or two sentences."""
        before, after = self.cheapest(False), self.cheapest(True)
        wanted = f"expected perplexity within {self.quality:+.1%} of the original's, held out"
        if after is None:
            return f"No rung keeps the {wanted}, healed or not: begin with smaller errors."
        if before is None:
            return (
                f"Only healed circuits keep the {wanted}: {after[1].cost.rows:,.0f} rows at an "
                f"error of {after[0]:g}. Begin with smaller errors to know what healing saves."
            )
        saving = 1.0 - after[1].cost.rows / before[1].cost.rows
        if saving <= 0:
            return (
                f"Healing buys no rows at the same quality ({wanted}): {before[1].cost.rows:,.0f} "
                f"rows at an error of {before[0]:g} without it are the fewest."
            )
        return (
            f"Healing buys {saving:.0%} of the rows at the same quality ({wanted}): "
            f"{before[1].cost.rows:,.0f} rows without it (error {before[0]:g}), "
            f"{after[1].cost.rows:,.0f} with it (error {after[0]:g})."
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "tokens": self.tokens,
            "quality": self.quality,
            "train": list(self.train),
            "verdict": self.verdict(),
            "saving": self.saving,
            "front": {"unhealed": self.front(False), "healed": self.front(True)},
            "rungs": [rung.to_dict() for rung in self.rungs],
        }


def _ranked(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def _point(tree: dict[str, Any] | None) -> Point | None:
    if tree is None:
        return None
    names = {one.name for one in dataclasses.fields(HeldOut)}
    numbers = {key: value for key, value in tree["held_out"].items() if key in names}
    known: dict[str, Any] = {k: math.inf if v is None else v for k, v in numbers.items()}
    errors = [math.inf if error is None else error for error in tree["cost"]["errors"]]
    return Point(CircuitCost(**(tree["cost"] | {"errors": errors})), HeldOut(**known))


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
