"""The language model without a transcendental operation: the same perplexity, the same answers."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

import odp

from .rational_graphs import assert_rational

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rewritten(
    smollm2_onnx: Path, smollm2_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, odp.Report]:
    path = tmp_path_factory.mktemp("smollm2") / "rational.onnx"
    result = odp.rewrite(smollm2_onnx, "all", calibration=smollm2_data, samples=8, measure=False)
    result.save(path)
    return path, result.report


def test_nothing_transcendental_is_left(rewritten: tuple[Path, odp.Report]) -> None:
    path, report = rewritten
    assert_rational(path)
    patterns = {k: v for record in report.passes for k, v in record.patterns.items()}
    assert patterns == {
        "rms_norm_spelled_out": 61,
        "softmax": 30,
        "silu": 30,
        "rope_sin": 1,
        "rope_cos": 1,
    }
    (rope,) = [record for record in report.passes if record.name == "rope"]
    assert rope.folded == 2 and rope.sites == 0
    assert any("exact constant tables" in note for note in rope.notes)
    assert report.warnings == []
    assert {record.error_kind for record in report.approximants} == {"certified"}


def test_causal_mask_is_small(rewritten: tuple[Path, odp.Report]) -> None:
    _, report = rewritten
    (softmax,) = [record for record in report.passes if record.name == "softmax"]
    assert any("masks became" in note for note in softmax.notes)
    assert all(site.domain[0] >= -4096 for site in report.sites if site.function == "exp")


def test_perplexity_changes_by_at_most_a_tenth_of_a_percent(
    smollm2: ModuleType,
    smollm2_onnx: Path,
    smollm2_weights: Path,
    rewritten: tuple[Path, odp.Report],
) -> None:
    rows = smollm2.compare_perplexity(smollm2_onnx, rewritten[0], smollm2_weights, windows=8)
    for row in rows:
        assert abs(row.change) <= 0.001
        assert row.same_top1 >= 0.999


def test_answer_stays_the_same(
    smollm2: ModuleType,
    smollm2_onnx: Path,
    smollm2_weights: Path,
    rewritten: tuple[Path, odp.Report],
) -> None:
    question = "What is gravity?"
    before = smollm2.generate(smollm2_onnx, smollm2_weights, question)
    assert smollm2.generate(rewritten[0], smollm2_weights, question) == before
