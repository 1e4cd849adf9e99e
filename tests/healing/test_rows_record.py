"""Fronts, the cheapest circuits at the same quality, and what is said of them."""

from __future__ import annotations

import json
import math

import pytest

from odp.healing.rows_record import CircuitCost, HeldOut, Point, RowsSearch, Rung


def point(rows: float, loss: float) -> Point:
    cost = CircuitCost(rows, 10, 20, [15, 16], 10**9, 10**9, 1e10, [0.1, math.inf], {"exp": 2})
    return Point(cost, HeldOut(100, 3, 600, 50.2, 50.0, math.log1p(loss), 0.9))


def search(*rungs: tuple[float, Point | None, Point | None], quality: float = 0.01) -> RowsSearch:
    return RowsSearch([Rung(*rung) for rung in rungs], quality, 8, ("norms",))


def test_the_saving_is_between_the_cheapest_of_each_at_the_same_quality() -> None:
    found = search(
        (0.05, point(1000, 0.004), point(1000, 0.001)),
        (0.1, point(900, 0.02), point(900, 0.003)),
        (0.2, point(700, 0.2), point(700, 0.009)),
        (0.3, point(500, 0.9), point(500, 0.05)),
    )
    assert found.cheapest(healed=False) == (0.05, point(1000, 0.004))
    assert found.cheapest(healed=True) == (0.2, point(700, 0.009))
    assert found.saving == pytest.approx(0.3)
    assert "Healing buys 30% of the rows" in found.verdict()
    assert "1,000 rows without it (error 0.05), 700 with it (error 0.2)" in found.verdict()


def test_healing_that_costs_rows_buys_nothing() -> None:
    """A dense circuit has more rows; the circuits as compiled are still there to be taken."""
    found = search((0.05, point(1000, 0.005), point(1200, 0.001)))
    assert found.saving == 0.0
    assert "Healing buys no rows" in found.verdict()


def test_what_cannot_be_said_is_said_so() -> None:
    assert "No rung keeps" in search((0.1, point(10, 0.5), point(10, 0.2))).verdict()
    only = search((0.1, point(10, 0.5), point(10, 0.002)))
    assert only.saving is None and "Only healed circuits" in only.verdict()
    broken = search((0.1, point(10, math.nan), None), (0.2, None, None))
    assert broken.cheapest(healed=True) is None
    assert "No rung keeps" in broken.verdict()


def test_a_rung_that_another_beats_is_not_on_the_front() -> None:
    found = search(
        (0.05, point(1000, 0.004), None),
        (0.1, point(1100, 0.02), None),
        (0.2, point(700, 0.2), None),
        (0.3, point(700, math.inf), None),
    )
    assert found.front(healed=False) == [0.05, 0.2]
    assert found.front(healed=True) == []


def test_a_rung_survives_json() -> None:
    rung = Rung(0.1, point(10, 0.5), point(10, math.nan), {"steps": 3}, "", 2.0)
    text = json.dumps(rung.to_dict(), allow_nan=False)
    again = Rung.from_dict(json.loads(text))
    assert again.unhealed == rung.unhealed and again.training == rung.training
    assert again.healed is not None and not math.isfinite(again.healed.held_out.loss)
    failed = Rung(0.4, None, None, failure="layer 0: no schedule fits")
    assert Rung.from_dict(json.loads(json.dumps(failed.to_dict()))) == failed
