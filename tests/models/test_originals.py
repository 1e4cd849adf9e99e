"""The fixtures are what they claim to be, and the judges in `examples/` can say no."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import numpy_helper


def operator_counts(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


def opset(path: Path) -> int:
    (default,) = (
        entry.version
        for entry in onnx.load(path, load_external_data=False).opset_import
        if entry.domain == ""
    )
    return int(default)


def run_on_random_input(path: Path, shape: tuple[int, ...]) -> list[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (declared,) = session.get_inputs()
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return list(session.run(None, {declared.name: data}))


def with_negated_matrix(path: Path, target: Path) -> Path:
    """Copy a model with the sign of its largest matrix flipped: a model that must be told apart."""
    model = onnx.load(path)
    # Paddle keeps weights in Constant nodes, torch in initializers.
    constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    largest = max(
        (tensor for tensor in [*model.graph.initializer, *constants] if len(tensor.dims) == 2),
        key=lambda tensor: int(np.prod(tensor.dims)),
    )
    largest.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(largest), largest.name))
    onnx.save(model, target)
    return target


def assert_data_fits(model: Path, data: Path) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(data) as arrays:
        assert set(arrays) == {declared.name for declared in session.get_inputs()}
        for declared in session.get_inputs():
            assert list(arrays[declared.name].shape[1:]) == declared.shape
            assert f"tensor({arrays[declared.name].dtype})" == declared.type.replace(
                "float", "float32"
            )


def test_minilm_agrees_with_sentence_transformers(minilm: ModuleType, minilm_onnx: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    _, queries = minilm.read_sentences()
    reference = library.SentenceTransformer(str(minilm.model_folder())).encode(
        [sentence.text for sentence in queries], normalize_embeddings=True
    )
    # Measured 1.8e-7: components of a unit vector, float32, summed in another order.
    np.testing.assert_allclose(minilm.embed(minilm_onnx, queries), reference, rtol=0, atol=2e-6)


def test_minilm_comes_in_both_spellings(minilm_onnx: Path, minilm_opset12_onnx: Path) -> None:
    assert (opset(minilm_onnx), opset(minilm_opset12_onnx)) == (20, 12)
    fused, spelled_out = operator_counts(minilm_onnx), operator_counts(minilm_opset12_onnx)
    assert (fused["LayerNormalization"], fused["Gelu"], fused["Softmax"]) == (13, 6, 6)
    assert fused["ReduceL2"] == 1
    assert spelled_out["LayerNormalization"] == spelled_out["Gelu"] == 0
    assert (spelled_out["Sqrt"], spelled_out["Erf"], spelled_out["Softmax"]) == (13, 6, 6)


def test_minilm_data_fits(minilm_onnx: Path, minilm_data: Path) -> None:
    assert_data_fits(minilm_onnx, minilm_data)


def test_calibration_sentences_are_never_queries(minilm: ModuleType) -> None:
    corpus, queries = minilm.read_sentences()
    assert not {sentence.text for sentence in corpus} & {sentence.text for sentence in queries}
    assert Counter(sentence.topic for sentence in queries) == dict.fromkeys(
        {sentence.topic for sentence in corpus}, 5
    )


def test_neighbours_stay_for_an_equal_model(
    minilm: ModuleType, minilm_onnx: Path, minilm_opset12_onnx: Path
) -> None:
    result = minilm.compare_neighbours(minilm_onnx, minilm_opset12_onnx, *minilm.read_sentences())
    assert result.same_top1 == result.same_top5 == 1.0
    # Eight topics, so chance is 0.125; measured 0.975.
    assert result.topic_accuracy_before > 0.9


def test_neighbours_notice_a_broken_model(
    minilm: ModuleType, minilm_onnx: Path, tmp_path: Path
) -> None:
    broken = with_negated_matrix(minilm_onnx, tmp_path / "broken.onnx")
    result = CliRunner().invoke(minilm.main, ["neighbours", str(minilm_onnx), str(broken)])
    assert result.exit_code == 1
    assert "40 queries" in result.output


def test_recogniser_reads_every_line(
    ocr: ModuleType, ocr_recogniser: Path, ocr_characters: list[str]
) -> None:
    session = ocr.open_session(ocr_recogniser)
    assert session.get_inputs()[0].shape == [1, 3, 48, 640]
    assert len(ocr_characters) == 6625
    lines = list(ocr.LINES_TO_READ)
    assert [ocr.read_line(session, line, ocr_characters) for line in lines] == lines


def test_recogniser_data_fits(ocr: ModuleType, ocr_recogniser: Path, ocr_data: Path) -> None:
    assert_data_fits(ocr_recogniser, ocr_data)
    assert not set(ocr.LINES_TO_READ) & set(ocr.LINES_TO_CALIBRATE)


def test_reading_notices_a_broken_model(
    ocr: ModuleType, ocr_recogniser: Path, tmp_path: Path
) -> None:
    broken = with_negated_matrix(ocr_recogniser, tmp_path / "broken.onnx")
    same = CliRunner().invoke(ocr.main, ["read", str(ocr_recogniser), str(ocr_recogniser)])
    assert (same.exit_code, "0.00% after" in same.output) == (0, True)
    different = CliRunner().invoke(ocr.main, ["read", str(ocr_recogniser), str(broken)])
    assert different.exit_code == 1


def test_character_error_rate_counts_edits(ocr: ModuleType) -> None:
    assert ocr.edit_distance("", "abc") == 3
    assert ocr.edit_distance("flaw", "lawn") == 2
    assert ocr.character_error_rate(["abcd", "efgh"], ["abcd", "fgh"]) == 1 / 8


def test_detector_is_static_with_80_sigmoids(detector: Path) -> None:
    assert operator_counts(detector)["Sigmoid"] == 80
    assert all(
        np.isfinite(output).all() for output in run_on_random_input(detector, (1, 3, 416, 416))
    )


def test_text_detector_and_orientation_run(text_detector: Path, text_orientation: Path) -> None:
    assert operator_counts(text_detector)["HardSigmoid"] == 10
    (map_of_text,) = run_on_random_input(text_detector, (1, 3, 64, 96))
    assert map_of_text.shape == (1, 1, 64, 96)
    (label,) = run_on_random_input(text_orientation, (1, 3, 48, 192))
    np.testing.assert_allclose(label.sum(axis=-1), 1, rtol=1e-6)


def test_speech_models_cover_log_recurrence_and_nothing(
    speechmos_models: dict[str, Path],
) -> None:
    counts = {name: operator_counts(path) for name, path in speechmos_models.items()}
    assert counts["pdnsmos/sig_bak_ovr"]["Log"] == 1
    assert counts["plcmos/plcmos_v2"]["GRU"] == 2
    for name in ("dnsmos/bak_ovr", "dnsmos/sig", "dnsmos/model_v8"):
        assert not counts[name].keys() & {"Log", "Exp", "Sqrt", "Sigmoid", "Tanh", "Softmax", "GRU"}


@pytest.mark.slow
def test_smollm2_is_the_model_it_should_be(
    smollm2: ModuleType, smollm2_onnx: Path, smollm2_weights: Path, smollm2_data: Path
) -> None:
    assert opset(smollm2_onnx) == 12
    counts = operator_counts(smollm2_onnx)
    expected = {"Sqrt": 61, "Softmax": 30, "Sigmoid": 30, "Cos": 1, "Sin": 1}
    assert {name: counts[name] for name in expected} == expected
    assert_data_fits(smollm2_onnx, smollm2_data)
    (row, *_) = smollm2.compare_perplexity(smollm2_onnx, smollm2_onnx, smollm2_weights, windows=4)
    assert (row.tokens, row.change, row.same_top1) == (4 * 63, 0.0, 1.0)
    # A model that only knew word frequencies would score in the hundreds.
    assert 5 < row.before < 100
    answer = smollm2.generate(smollm2_onnx, smollm2_weights, "What is gravity?")
    assert "gravity" in answer.lower()


@pytest.mark.slow
def test_smollm2_ignores_padding_on_the_right(smollm2: ModuleType, smollm2_onnx: Path) -> None:
    session = onnxruntime.InferenceSession(smollm2_onnx, providers=["CPUExecutionProvider"])
    tokens = np.random.default_rng(0).integers(3, 49152, (1, 64))
    other = tokens.copy()
    other[0, 20:] = 2
    first, second = (session.run(None, {"input_ids": ids})[0][0, :20] for ids in (tokens, other))
    np.testing.assert_array_equal(first, second)
