"""Saving: whole or not at all, streamed, and the same model afterwards."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from odp.backends.onnx import save
from odp.backends.onnx.check import check_model
from odp.backends.onnx.errors import OnnxError
from odp.backends.onnx.load import load_model
from odp.backends.onnx.save import save_model


@pytest.fixture
def model() -> ir.Model:
    generator = np.random.default_rng(0)
    arrays = {
        "w": generator.standard_normal((64, 64)).astype(np.float32),
        "v": generator.standard_normal((64, 65)).astype(np.float16),
        "small": np.arange(3, dtype=np.int64),
        "scalar": np.float32(2.5),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Cast", ["v"], ["b"], to=1),
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("Mul", ["c", "scalar"], ["y"]),
        helper.make_node("Identity", ["small"], ["z"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", 1, [2, 64])],
        [info("y", 1, [2, 65]), info("z", 7, [3])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="test")
    return ir.from_proto(proto)


@pytest.mark.parametrize("external", [False, True])
def test_round_trip(model, tmp_path, run_model, external) -> None:
    path = tmp_path / "m.onnx"
    before = list(model.graph.initializers)
    save_model(model, path, external_data=external)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == (["m.onnx", "m.onnx.data"] if external else ["m.onnx"])
    assert list(model.graph.initializers) == before
    check_model(path)
    onnx.load(path)  # a foreign reader accepts the file too
    loaded = load_model(path)
    assert loaded.producer_name == "test"
    feeds = {"x": np.ones((2, 64), np.float32)}
    for got, want in zip(run_model(loaded, feeds), run_model(model, feeds), strict=True):
        np.testing.assert_array_equal(got, want)
    for name, value in model.graph.initializers.items():
        stored = loaded.graph.initializers[name].const_value
        assert stored.dtype == value.const_value.dtype
        np.testing.assert_array_equal(stored.numpy(), value.const_value.numpy())


def test_threshold_decides_about_external_data(model, tmp_path, monkeypatch) -> None:
    save_model(model, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx.data").exists()
    monkeypatch.setattr(save, "EXTERNAL_DATA_THRESHOLD", 1000)
    save_model(model, tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx.data").stat().st_size > 64 * 64 * 4
    assert (tmp_path / "b.onnx").stat().st_size < 2000


def test_saving_over_the_file_that_is_mapped(model, tmp_path) -> None:
    path = tmp_path / "m.onnx"
    for external in (True, True, False, False):
        save_model(model, path, external_data=external)
        model = load_model(path)
    np.testing.assert_array_equal(
        model.graph.initializers["small"].const_value.numpy(), np.arange(3)
    )
    check_model(path)


class _Failing:
    """Stands for os.fsync or a rename, and fails at the n-th call."""

    def __init__(self, error: BaseException, calls: int) -> None:
        self.error, self.calls = error, calls

    def __call__(self, *_: object, **__: object) -> None:
        self.calls -= 1
        if self.calls == 0:
            raise self.error


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MemoryError(), MemoryError),
        (OSError(errno.ENOSPC, "No space left on device"), OnnxError),
    ],
    ids=["interrupt", "memory", "disk full"],
)
@pytest.mark.parametrize("place", ["stream 1", "stream 2", "flush 1"])
def test_failure_in_the_middle_leaves_everything_as_it_was(
    model, tmp_path, monkeypatch, external, existing, error, raised, place
) -> None:
    path = tmp_path / "m.onnx"
    if existing:
        path.write_bytes(b"old model")
        (tmp_path / "m.onnx.data").write_bytes(b"old data")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    name, calls = place.split()
    monkeypatch.setattr(save, f"_{name}", _Failing(error, int(calls)))
    with pytest.raises(raised) as caught:
        save_model(model, path, external_data=external)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    if raised is OnnxError:
        assert "the disk is full" in str(caught.value)


def test_failure_at_the_rename_removes_the_temporary_file(model, tmp_path, monkeypatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OnnxError, match="Permission denied"):
        save_model(model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_targets_that_cannot_be_written(model, tmp_path) -> None:
    with pytest.raises(OnnxError, match="is a directory"):
        save_model(model, tmp_path)
    with pytest.raises(OnnxError, match="does not exist"):
        save_model(model, tmp_path / "missing" / "m.onnx")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OnnxError, match="Not a directory"):
        save_model(model, tmp_path / "file" / "m.onnx")
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(OnnxError, match="exists already"):
        save_model(model, path, overwrite=False)
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(model, tmp_path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OnnxError, match="Permission denied"):
            save_model(model, tmp_path / "m.onnx")
    finally:
        tmp_path.chmod(0o700)


def test_weights_are_not_collected_in_memory(tmp_path) -> None:
    import tracemalloc

    weight = np.zeros((2048, 2048), np.float32)  # 16 MiB
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 2048])],
        [helper.make_tensor_value_info("y", 1, [1, 2048])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "a.onnx"
    )
    tracemalloc.start()
    try:
        save_model(load_model(tmp_path / "a.onnx"), tmp_path / "b.onnx")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < weight.nbytes / 4
