"""Whatever the architecture: nothing transcendental is left, errors are within their bounds."""

from __future__ import annotations

from typing import Any

import pytest

from .configurations import ARCHITECTURES
from .measuring import Record, measure, original_in_onnx

STRUCTURES = ("graph", "modules")


def _cases() -> list[Any]:
    """Of the fast architectures one attention always runs; all else takes minutes."""
    return [
        pytest.param(
            (name, attention, structure),
            id=f"{name}-{attention}-{structure}",
            marks=[] if architecture.is_fast(attention) else pytest.mark.slow,
        )
        for name, architecture in ARCHITECTURES.items()
        for attention in architecture.attentions
        for structure in STRUCTURES
    ]


@pytest.fixture(scope="module", params=_cases())
def case(request: Any) -> tuple[str, str, str]:
    chosen: tuple[str, str, str] = request.param
    return chosen


@pytest.fixture(scope="module")
def record(case: tuple[str, str, str]) -> Record:
    return measure(*case)


def test_nothing_transcendental_is_left(record: Record) -> None:
    assert record.before and record.sites
    assert record.left == {}


def test_no_output_is_further_off_than_the_errors_of_the_sites_allow(record: Record) -> None:
    assert record.error > 0.0
    assert all(0.0 <= share <= 1.0 for share in record.shares)


def test_the_bounds_are_no_excuse(record: Record) -> None:
    """Rounding is a small part of what is allowed, and bounds are errors that would be good."""
    assert record.bound < 1e-3
    # Rounding is that of the worst element, bound and error are means.
    assert record.rounding_share < record.bound


def test_writes_the_same_text(case: tuple[str, str, str], record: Record) -> None:
    if not ARCHITECTURES[case[0]].generates or case[2] == "graph":
        # A graph has the length of its example.
        assert record.text is None
        return
    assert record.text is not None
    # One word over and over would be the same whatever was rewritten.
    assert len(set(record.text)) > 4
    assert record.rewritten_text == record.text


def test_goes_to_onnx(case: tuple[str, str, str], record: Record) -> None:
    if case[2] == "modules":
        assert record.onnx is None
        return
    route = record.onnx
    assert route is not None
    assert route.left == {}
    # Two evaluations of the same arithmetic in float32, each as far from float64 as the other.
    assert route.difference <= 2.0 * route.rounding


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "attention"),
    [(name, attention) for name, kind in ARCHITECTURES.items() for attention in kind.attentions],
)
def test_the_original_in_onnx_is_rewritten_alike(name: str, attention: str) -> None:
    found = original_in_onnx(name, attention)
    assert found.refused == ""
    assert found.left == {}
    # The exporter computes some functions of weights beforehand, so there may be fewer.
    assert 0 < found.sites <= sum(measure(name, attention, "graph").sites.values())
