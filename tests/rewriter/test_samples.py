"""Inputs to calibrate on: the user's arrays split into runs, or generated ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from odp.approximations.errors import OdpError
from odp.rewriter.samples import generate_samples, load_samples, split_samples

Texts = Callable[..., onnx.ModelProto]


@pytest.fixture
def model(onnx_text: Texts) -> ir.Model:
    text = "(float[2,3] x, int64[2,1] k) => (float[2,3] y) { f = Cast<to=1>(k) y = Mul(x, f) }"
    return ir.from_proto(onnx_text(text))


@pytest.mark.parametrize(
    ("x", "k", "count"),
    [
        ((2, 3), (2, 1), 1),
        ((1, 2, 3), (1, 2, 1), 1),
        ((5, 2, 3), (5, 2, 1), 5),
        ((6, 3), (6, 1), 3),
        ((6, 3), (3, 2, 1), 3),
    ],
)
def test_arrays_are_split_into_runs(
    x: tuple[int, ...], k: tuple[int, ...], count: int, model: ir.Model
) -> None:
    arrays = {
        "x": np.arange(np.prod(x), dtype=np.float32).reshape(x),
        "k": np.arange(np.prod(k)).reshape(k),
    }
    samples = split_samples(arrays, model, "data.npz")
    assert len(samples) == count
    assert all(feed["x"].shape == (2, 3) and feed["k"].shape == (2, 1) for feed in samples)
    joined = np.concatenate([feed["x"].ravel() for feed in samples])
    assert np.array_equal(joined, np.arange(6 * count))


def test_scalar_inputs_are_split_too(onnx_text: Texts) -> None:
    model = ir.from_proto(onnx_text("(float x) => (float y) { y = Exp(x) }"))
    samples = split_samples({"x": np.arange(3, dtype=np.float32)}, model, "data.npz")
    assert [feed["x"].shape for feed in samples] == [(), (), ()]
    assert all(isinstance(feed["x"], np.ndarray) for feed in samples)
    assert len(split_samples({"x": np.float32(1.0)}, model, "data.npz")) == 1


def test_a_limit_takes_the_first_samples(model: ir.Model) -> None:
    arrays = {"x": np.zeros((9, 2, 3), np.float32), "k": np.zeros((9, 2, 1), np.int64)}
    assert len(split_samples(arrays, model, "data.npz", 4)) == 4
    assert len(split_samples(arrays, model, "data.npz", 99)) == 9


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("float64", "float"), ("float16", "float"), ("int32", "float"), ("float32", "double")],
)
def test_numbers_are_converted_to_the_type_of_the_input(
    given: str, wanted: str, onnx_text: Texts
) -> None:
    model = ir.from_proto(onnx_text(f"({wanted}[2] x) => ({wanted}[2] y) {{ y = Exp(x) }}"))
    (feed,) = split_samples({"x": np.array([1, 2], given)}, model, "data.npz")
    assert feed["x"].dtype == {"float": np.float32, "double": np.float64}[wanted]
    assert feed["x"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        (np.array([1, 2], np.int64), True),
        (np.array([-1, 2], np.int64), True),
        (np.array([2**31, 0], np.int64), False),
        (np.array([2**32 + 1, 0], np.uint64), False),
        (np.array([1.0, 2.0], np.float32), False),
        (np.array([True, False]), True),
    ],
)
def test_integers_are_converted_only_if_they_fit(given: Any, fits: bool, onnx_text: Texts) -> None:
    model = ir.from_proto(onnx_text("(int32[2] x) => (int32[2] y) { y = Neg(x) }"))
    if fits:
        (feed,) = split_samples({"x": given}, model, "data.npz")
        assert feed["x"].dtype == np.int32 and feed["x"].tolist() == given.tolist()
    else:
        with pytest.raises(OdpError, match=r"'x' in data\.npz"):
            split_samples({"x": given}, model, "data.npz")


def test_initializers_that_are_inputs_have_a_default(onnx_text: Texts) -> None:
    text = "(float[2] x, float[2] w) => (float[2] y) { y = Mul(x, w) }"
    proto = onnx_text(text, initializers={"w": np.ones(2, np.float32)})
    model = ir.from_proto(proto)
    samples = split_samples({"x": np.zeros((3, 2), np.float32)}, model, "data.npz")
    assert [set(feed) for feed in samples] == [{"x"}] * 3


def test_files(tmp_path: Path, model: ir.Model) -> None:
    arrays = {"x": np.zeros((4, 2, 3), np.float32), "k": np.zeros((4, 2, 1), np.int64)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "data.npz", **arrays)
        samples = load_samples(tmp_path / "data.npz", model)
        assert (samples.source, len(samples)) == ("data.npz", 4)


def test_random_damage_to_an_archive_is_one_error_or_none(tmp_path: Path, model: ir.Model) -> None:
    path = tmp_path / "data.npz"
    random = np.random.default_rng(0)
    np.savez_compressed(
        path, x=random.normal(size=(4, 2, 3)).astype("f4"), k=np.ones((4, 2, 1), int)
    )
    whole = path.read_bytes()
    failures = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for position in random.integers(0, len(whole), 3):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged[: random.integers(1, len(whole) + 1)])
        try:
            load_samples(path, model)
        except OdpError as error:
            failures += 1
            assert "\n" not in str(error) and "data.npz" in str(error)
    assert failures > 100


# Generated inputs


def test_generated_inputs_are_repeatable_and_differ(model: ir.Model) -> None:
    first, again, other = (generate_samples(model, 3, seed) for seed in (0, 0, 1))
    assert first.source == "generated" and len(first) == 3
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one["x"], two["x"]) and one["x"].dtype == np.float32
    assert not np.array_equal(first.feeds[0]["x"], first.feeds[1]["x"])
    assert not np.array_equal(first.feeds[0]["x"], other.feeds[0]["x"])


def test_indices_stay_inside_their_table(onnx_text: Texts) -> None:
    text = (
        "(int64[1,50] ids) => (float[1,50,2] y) "
        "{ i = Cast<to=6>(ids) e = Gather(table, i) y = Exp(e) }"
    )
    model = ir.from_proto(onnx_text(text, initializers={"table": np.zeros((7, 2), np.float32)}))
    values = np.concatenate([feed["ids"].ravel() for feed in generate_samples(model, 4)])
    assert values.min() >= 0 and values.max() <= 6 and len(set(values.tolist())) == 7


@pytest.mark.parametrize(
    ("name", "expected"),
    [("attention_mask", [[1, 1, 1, 1]]), ("position_ids", [[0, 1, 2, 3]])],
)
def test_masks_and_positions(name: str, expected: list[list[int]], onnx_text: Texts) -> None:
    text = f"(int64[1,4] {name}) => (float[1,4] y) {{ y = Cast<to=1>({name}) }}"
    (feed,) = generate_samples(ir.from_proto(onnx_text(text)), 1)
    assert feed[name].tolist() == expected


def test_an_input_of_strings_is_asked_for(onnx_text: Texts) -> None:
    model = ir.from_proto(onnx_text("(string[2] s) => (string[2] y) { y = Identity(s) }"))
    with pytest.raises(OdpError, match=r"'s'.*--calibrate"):
        generate_samples(model)
