"""The three models of PP-OCRv4 and the detector of ddddocr: the same text, the same boxes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import odp

from .rational_graphs import assert_rational, operator_counts, relative_l2, run

Array = NDArray[Any]


def test_recogniser_reads_the_same_characters(
    ocr: ModuleType,
    ocr_recogniser: Path,
    ocr_data: Path,
    ocr_characters: list[str],
    tmp_path: Path,
) -> None:
    path = tmp_path / "rational.onnx"
    result = odp.rewrite(ocr_recogniser, "all", calibration=ocr_data, samples=4, measure=False)
    result.save(path)
    assert_rational(path)
    patterns = {k: v for record in result.report.passes for k, v in record.patterns.items()}
    assert patterns == {"layer_norm_spelled_out": 5, "swish": 7, "softmax": 3}
    before, after = ocr.open_session(ocr_recogniser), ocr.open_session(path)
    for line in ocr.LINES_TO_READ:
        assert ocr.read_line(after, line, ocr_characters) == line
    (name,) = [value.name for value in before.get_inputs()]
    feed = {name: ocr.render(ocr.LINES_TO_READ[0])}
    one, two = before.run(None, feed)[0], after.run(None, feed)[0]
    # Measured 9e-5, most of it in the softmax over 6,625 characters.
    assert relative_l2(one, two) <= 5e-4
    np.testing.assert_array_equal(one.argmax(-1), two.argmax(-1))


def pages(ocr: ModuleType, count: int, height: int, width: int) -> Array:
    """Rendered lines stacked to pages, in the normalisation of the models."""
    lines = [ocr.render(line)[0] for line in ocr.LINES_TO_CALIBRATE]
    rows = -(-height // lines[0].shape[1])
    stacks = [
        np.concatenate([lines[(index + row) % len(lines)] for row in range(rows)], axis=1)
        for index in range(count)
    ]
    return np.stack([stack[:, :height, :width] for stack in stacks])[:, None]


def test_text_detector_marks_the_same_pixels(
    ocr: ModuleType, text_detector: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rational.onnx"
    data = pages(ocr, 3, 96, 320)
    result = odp.rewrite(
        text_detector, "all", calibration={"x": data[:2]}, shapes={"x": (1, 3, 96, 320)}
    )
    result.save(path)
    assert_rational(path)
    # HardSigmoid is a clip of a line already.
    assert operator_counts(path)["HardSigmoid"] == operator_counts(text_detector)["HardSigmoid"]
    (before,), (after,) = run(text_detector, {"x": data[2]}), run(path, {"x": data[2]})
    (site,) = result.report.sites
    (approximant,) = result.report.approximants
    assert site.function == "sigmoid"
    # The sigmoid is the last node, so its error is that of the output; what is clipped is as near
    # to 0 as the lower end of the domain, or to 1 as the upper one.
    low, high = (1.0 / (1.0 + np.exp(-bound)) for bound in site.domain)
    declared = max(approximant.absolute_error, approximant.float32_error)
    # The native sigmoid that is compared with is itself a float32, right to one unit beside 1.
    native = np.finfo(np.float32).eps
    assert np.abs(after - before).max() <= declared + max(low, 1.0 - high) + native
    assert before.max() > 0.5
    np.testing.assert_array_equal(before > 0.3, after > 0.3)


def test_text_orientation_agrees(ocr: ModuleType, text_orientation: Path, tmp_path: Path) -> None:
    path = tmp_path / "rational.onnx"
    data = np.concatenate([pages(ocr, 4, 48, 192), pages(ocr, 4, 48, 192)[..., ::-1, ::-1]])
    data = np.ascontiguousarray(data)
    result = odp.rewrite(
        text_orientation, "all", calibration={"x": data}, shapes={"x": (1, 3, 48, 192)}
    )
    result.save(path)
    assert_rational(path)
    for sample in data:
        (before,), (after,) = run(text_orientation, {"x": sample}), run(path, {"x": sample})
        assert before.argmax() == after.argmax()
        np.testing.assert_allclose(after, before, rtol=0, atol=5e-5)


def photograph(seed: int) -> Array:
    """A grey image with rectangles and letters-like blobs, in the detector's range of 0 to 255."""
    random = np.random.default_rng(seed)
    image = np.full((1, 3, 416, 416), 114.0, np.float32)
    for _ in range(6):
        top, left = random.integers(20, 330, 2)
        height, width = random.integers(20, 80, 2)
        image[..., top : top + height, left : left + width] = random.uniform(0, 255, (3, 1, 1))
    return image


def test_detector_finds_the_same_boxes(detector: Path, tmp_path: Path) -> None:
    path = tmp_path / "rational.onnx"
    images = np.stack([photograph(seed) for seed in range(2)])
    result = odp.rewrite(detector, "all", calibration={"images": images}, measure=False)
    result.save(path)
    assert_rational(path)
    assert len(result.report.sites) == 80
    assert {record.name for record in result.report.passes if record.sites} == {"sigmoid", "silu"}
    held_out = {"images": photograph(7)}
    (before,), (after,) = run(detector, held_out), run(path, held_out)
    assert relative_l2(before, after) <= 1e-4
    # Boxes in units of their grid cell, and scores: objectness times class.
    scores_before, scores_after = (o[0, :, 4] * o[0, :, 5:].max(-1) for o in (before, after))
    np.testing.assert_allclose(scores_after, scores_before, rtol=0, atol=1e-3)
    best = np.argsort(-scores_before)[:20]
    np.testing.assert_allclose(after[0, best, :4], before[0, best, :4], rtol=0, atol=1e-3)


def test_guarded_detector_survives_an_image_that_calibration_did_not_foresee(
    detector: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rational.onnx"
    dull = np.full((1, 1, 3, 416, 416), 114.0, np.float32)
    odp.rewrite(detector, "all", calibration={"images": dull}, measure=False).save(path)
    noise = np.random.default_rng(0).uniform(0, 255, (1, 3, 416, 416)).astype(np.float32)
    (before,), (after,) = run(detector, {"images": noise}), run(path, {"images": noise})
    assert np.isfinite(after).all()
    # Clipped gates are wrong, but not by more than the size of what they gate.
    assert np.abs(after).max() <= 10 * np.abs(before).max()
