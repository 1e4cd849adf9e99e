"""Audio models of old opsets: a logarithm, recurrent layers, and one with nothing to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import odp

from .rational_graphs import assert_rational, inputs_of, operator_counts, relative_l2, run

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]


def tones(samples: int, length: int) -> Array:
    """Mixtures of tones under a slow envelope, with a little noise: speech-like levels."""
    random = np.random.default_rng(0)
    time = np.arange(length) / 16000
    waves = []
    for _ in range(samples):
        partials = [np.sin(2 * np.pi * f * time) for f in random.uniform(90, 3000, 5)]
        envelope = 0.2 * (1 + np.sin(2 * np.pi * random.uniform(2, 5) * time))
        waves.append(envelope * np.mean(partials, axis=0) + 1e-3 * random.standard_normal(length))
    return np.stack(waves).astype(np.float32)


def rewrite(path: Path, target: Path, data: dict[str, Array], shapes: Shapes) -> odp.RewriteResult:
    result = odp.rewrite(path, "all", calibration=data, shapes=shapes, measure=False)
    result.save(target)
    return result


def test_log_of_a_spectrum(speechmos_models: dict[str, Path], tmp_path: Path) -> None:
    path, target = speechmos_models["pdnsmos/sig_bak_ovr"], tmp_path / "rational.onnx"
    (name,) = inputs_of(path)
    data = tones(2, 144160)[:, None]
    result = rewrite(path, target, {name: data[:1]}, {name: (1, 144160)})
    assert_rational(target)
    assert [site.function for site in result.report.sites] == ["log", "sqrt"]
    (before,), (after,) = run(path, {name: data[1]}), run(target, {name: data[1]})
    # Opinion scores between 1 and 5.
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("aecmos/Run_1663829550_Stage_0", {"input": (1, 3, 20, 160), "h0": (4, 1, 64)}),
        ("plcmos/plcmos_v2", {"degraded_audio": (1, 1, 20, 257), "rater_embed": (1, 64)}),
    ],
    ids=["aecmos", "plcmos"],
)
def test_recurrent_layers_are_unrolled(
    name: str, shapes: Shapes, speechmos_models: dict[str, Path], tmp_path: Path
) -> None:
    path, target = speechmos_models[name], tmp_path / "rational.onnx"
    random = np.random.default_rng(0)
    data: dict[str, Array] = {
        key: random.standard_normal((4, *shape)).astype(np.float32) for key, shape in shapes.items()
    }
    calibration = {key: array[:3] for key, array in data.items()}
    result = rewrite(path, target, calibration, shapes)
    assert_rational(target)
    patterns = {k: v for record in result.report.passes for k, v in record.patterns.items()}
    assert patterns["gru"] == operator_counts(path)["GRU"] == 2
    feed = {key: array[3] for key, array in data.items()}
    before, after = run(path, feed), run(target, feed)
    assert max(relative_l2(one, two) for one, two in zip(before, after, strict=True)) <= 1e-4


def test_model_with_nothing_to_do_is_bit_identical(
    speechmos_models: dict[str, Path], tmp_path: Path
) -> None:
    path, target = speechmos_models["dnsmos/model_v8"], tmp_path / "same.onnx"
    (name,) = inputs_of(path)
    data = np.random.default_rng(0).standard_normal((2, 1, 900, 120)).astype(np.float32)
    result = rewrite(path, target, {name: data[:1]}, {name: (1, 900, 120)})
    assert result.report.sites == [] and result.report.approximants == []
    assert all(record.patterns == {} for record in result.report.passes)
    assert result.report.model.transcendental_before == {}
    assert not any("odp.site" in node.metadata_props for node in result.model.graph)
    assert ir.to_proto(result.model).IsInitialized()
    for one, two in zip(run(path, {name: data[1]}), run(target, {name: data[1]}), strict=True):
        np.testing.assert_array_equal(one, two)
