"""docs/architectures.md names the architectures that there are, and counts as they count now."""

from __future__ import annotations

import pytest

from .configurations import ARCHITECTURES
from .measuring import measure
from .page import PAGE, counts, head, rows_of

ROWS = [(name, attention) for name, kind in ARCHITECTURES.items() for attention in kind.attentions]


def test_every_architecture_has_its_row() -> None:
    assert [tuple(row[:2]) for row in rows_of(PAGE.read_text())] == ROWS


def test_what_the_page_says_is_current_and_nothing_failed() -> None:
    page = PAGE.read_text()
    assert page.startswith(head())
    assert "differs" not in page and "nan" not in page
    for row in rows_of(page):
        assert row[7].endswith("→ 0")
        assert all(int(share.removesuffix("%")) <= 100 for share in (row[9], row[11]))


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        pytest.param(*row, marks=[] if ARCHITECTURES[row[0]].is_fast(row[1]) else pytest.mark.slow)
        for row in ROWS
    ],
)
def test_counts_are_current(name: str, attention: str) -> None:
    expected = counts(name, attention, measure(name, attention, "graph"))
    (found,) = [row for row in rows_of(PAGE.read_text()) if row[:2] == [name, attention]]
    assert found[: len(expected)] == expected
