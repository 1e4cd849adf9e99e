"""The allocation against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.approximations.errors import OdpError
from odp.evaluation.allocation import Candidate, allocate

# An allocation never looks into the expression.
CHOICE: Any = None


def front(*pairs: tuple[float, float]) -> list[Candidate]:
    return [Candidate(CHOICE, error, operations) for operations, error in pairs]


fronts = st.lists(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 7)), min_size=1, max_size=4, unique=True),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(
    fronts,
    st.lists(st.integers(-4, 6), min_size=5, max_size=5),
    st.lists(st.integers(1, 50), min_size=5, max_size=5),
    st.floats(0.0, 1.0),
)
def test_no_other_allocation_is_better(
    pairs: list[list[tuple[int, int]]], powers: list[int], per_token: list[int], share: float
) -> None:
    sites = {
        f"site{i}": front(*((float(c), 10.0**-e) for c, e in options))
        for i, options in enumerate(pairs)
    }
    coefficients = {s: 10.0 ** powers[i] for i, s in enumerate(sites)}
    counts = {s: float(per_token[i]) for i, s in enumerate(sites)}

    def price(choice: tuple[Candidate, ...]) -> float:
        return sum(counts[s] * c.operations for s, c in zip(sites, choice, strict=True))

    def divergence(choice: tuple[Candidate, ...]) -> float:
        return sum(coefficients[s] * c.error**2 for s, c in zip(sites, choice, strict=True))

    every = list(itertools.product(*sites.values()))
    cheapest, dearest = min(map(price, every)), max(map(price, every))
    budget = cheapest + share * (dearest - cheapest)
    found = allocate(sites, coefficients, counts, budget)
    assert found.operations <= budget * (1 + 1e-9)
    best = min(divergence(choice) for choice in every if price(choice) <= budget)
    # The solver stops within a thousandth of the best.
    assert found.predicted_kl <= best * 1.002


def test_a_budget_below_the_cheapest_expressions_is_refused() -> None:
    sites = {"a": front((3, 1e-1), (9, 1e-5)), "b": front((2, 1e-2))}
    with pytest.raises(OdpError, match=r"10 operations a token is too small.* take 16"):
        allocate(sites, {"a": 1.0, "b": 1.0}, {"a": 4.0, "b": 2.0}, 10)


def test_operations_go_where_the_sensitivity_is() -> None:
    sites = {s: front((1, 1e-1), (5, 1e-4)) for s in ("loud", "quiet")}
    found = allocate(sites, {"loud": 1e3, "quiet": 1e-3}, {"loud": 1.0, "quiet": 1.0}, 6)
    assert found.chosen["loud"].error == 1e-4 and found.chosen["quiet"].error == 1e-1
