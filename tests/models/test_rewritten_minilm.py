"""The sentence encoder without a transcendental operation: the same neighbours, a known error."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import onnx
import pytest

import odp
from odp.cli import rewrite_main

from .rational_graphs import assert_rational, operator_counts, relative_l2


@pytest.fixture(scope="module")
def rewritten(
    minilm_onnx: Path, minilm_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("minilm") / "rational.onnx"
    result = odp.rewrite(minilm_onnx, "all", calibration=minilm_data, samples=32, measure=False)
    result.save(path)
    path.with_suffix(".json").write_text(result.report.to_json())
    return path


def test_nothing_transcendental_is_left(rewritten: Path) -> None:
    assert_rational(rewritten)


def test_error_on_sentences_that_calibration_never_saw(
    minilm: ModuleType, minilm_onnx: Path, rewritten: Path
) -> None:
    _, queries = minilm.read_sentences()
    before, after = minilm.embed(minilm_onnx, queries), minilm.embed(rewritten, queries)
    # Measured 5e-5 at the default settings.
    assert relative_l2(before, after) <= 1e-4


def test_nearest_neighbours_stay_the_same(
    minilm: ModuleType, minilm_onnx: Path, rewritten: Path
) -> None:
    result = minilm.compare_neighbours(minilm_onnx, rewritten, *minilm.read_sentences())
    assert result.same_top1 == result.same_top5 == 1.0
    assert result.topic_accuracy_after == result.topic_accuracy_before
    assert result.largest_difference <= 1e-4


def test_report_names_every_composite_once(rewritten: Path) -> None:
    report = json.loads(rewritten.with_suffix(".json").read_text())
    patterns = {name: n for record in report["passes"] for name, n in record["patterns"].items()}
    assert patterns == {"layer_norm": 13, "gelu": 6, "softmax": 6, "reduce_l2": 1}
    assert report["model"]["transcendental_after"] == {}
    assert report["warnings"] == []
    assert {a["error_kind"] for a in report["approximants"]} == {"certified"}
    assert all(site["observed"] is not None for site in report["sites"])
    # torch writes down which module a node came from; every site keeps it.
    softmaxes = [site for site in report["sites"] if site["pattern"] == "softmax"]
    assert all("layer" in site["module_path"] for site in softmaxes)


def test_new_nodes_say_which_pass_and_site_they_came_from(rewritten: Path) -> None:
    report = json.loads(rewritten.with_suffix(".json").read_text())
    nodes = onnx.load(rewritten, load_external_data=False).graph.node
    tags = [{entry.key: entry.value for entry in node.metadata_props} for node in nodes]
    named = {tag["odp.site"] for tag in tags if "odp.function" in tag}
    assert named == {site["id"] for site in report["sites"]}


def test_both_exports_give_the_same_sites(
    minilm: ModuleType, minilm_opset12_onnx: Path, minilm_data: Path, tmp_path: Path
) -> None:
    """The spelled-out export loses the same functions at the same places as the fused one."""
    path = tmp_path / "rational.onnx"
    result = odp.rewrite(
        minilm_opset12_onnx, "all", calibration=minilm_data, samples=8, measure=False
    )
    result.save(path)
    assert_rational(path)
    counts: dict[str, int] = {}
    for site in result.report.sites:
        counts[site.function] = counts.get(site.function, 0) + 1
    assert counts == {"rsqrt": 13, "normal_cdf": 6, "exp": 6, "sqrt": 1}
    _, queries = minilm.read_sentences()
    before, after = minilm.embed(minilm_opset12_onnx, queries), minilm.embed(path, queries)
    assert relative_l2(before, after) <= 1e-4


def test_one_pass_leaves_the_others_alone(
    minilm_onnx: Path, minilm_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`rsqrt` reaches into layer norms and nothing else, on the command line too."""
    path = tmp_path / "rational.onnx"
    options = ["--passes", "rsqrt", "--calibrate", str(minilm_data), "--samples", "4"]
    with pytest.raises(SystemExit) as exit_:
        rewrite_main([str(minilm_onnx), *options, "--opset", "20", "-o", str(path)])
    assert exit_.value.code == 0
    counts = operator_counts(path)
    assert (counts["Softmax"], counts["Gelu"], counts["ReduceL2"]) == (6, 6, 1)
    assert "LayerNormalization" not in counts and "Sqrt" not in counts
    assert "rsqrt" in capsys.readouterr().out
