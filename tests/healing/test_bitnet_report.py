"""docs/bitnet.md says what benchmarks/results/bitnet_report.json says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script, which is no part of a package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield pytest.importorskip("bitnet_report")
    for name in ("bitnet_report", "bitnet_stages", "environment"):
        sys.modules.pop(name, None)


def test_the_page_is_made_of_the_numbers(report: Any) -> None:
    tree = json.loads((ROOT / "benchmarks" / "results" / "bitnet_report.json").read_text())
    page = (ROOT / "docs" / "bitnet.md").read_text(encoding="utf-8")
    assert page == report.render(tree)


def test_the_numbers_keep_what_was_promised() -> None:
    tree = json.loads((ROOT / "benchmarks" / "results" / "bitnet_report.json").read_text())
    ours, _, seeds = tree["perplexity"]["variants"]
    # At most 0.1 % by our choices, on every text; the seed's are far beyond.
    assert all(abs(d["perplexity_change"]) <= 1e-3 for d in ours["differences"].values())
    assert all(d["perplexity_change"] > 0.1 for d in seeds["differences"].values())
    for check in tree["merging"].values():
        assert check["is_equal"]
        ways = {way["name"]: way["layer"] for way in check["ways"]}
        assert ways["ours"] <= 1e-5 and ways["ours"] == min(ways.values())
    assert tree["circuit"]["proof"]["verified"] and tree["circuit"]["tables"] == 0
