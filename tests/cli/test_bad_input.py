"""Bad input: exit code 2, one line that says what, where and what to do, and nothing written."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MODEL = "(float[2,8] x) => (float[2,8] y) { [soft] s = Softmax<axis=-1>(x) [gate] y = Sigmoid(s) }"
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000")


@pytest.fixture
def folder(tmp_path: Path, onnx_text: Callable[..., onnx.ModelProto]) -> Iterator[Path]:
    """A folder with one good model; after the test it holds what it held before the command."""
    onnx.save(onnx_text(MODEL), tmp_path / "model.onnx")
    yield tmp_path


@pytest.fixture
def refused(folder: Path, command: Callable[..., Any]) -> Callable[..., str]:
    """Run `odp-rewrite` in the folder; it must fail with one line and leave no file behind."""

    def run(*arguments: str | Path) -> str:
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        line = command(*arguments).error()
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
        return str(line)

    return run


# The model file


def test_a_missing_file(folder: Path, refused: Callable[..., str]) -> None:
    line = refused(folder / "missing.onnx")
    assert "missing.onnx" in line and "no such" in line


def test_a_missing_file_in_a_missing_folder(folder: Path, refused: Callable[..., str]) -> None:
    line = refused(folder / "nowhere" / "model.onnx")
    assert "no such" in line and "cannot write" not in line


def test_no_model_at_all(refused: Callable[..., str]) -> None:
    assert "--help" in refused()


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_path_without_a_name(name: str, refused: Callable[..., str]) -> None:
    assert "directory" in refused(name)


def test_a_directory(folder: Path, refused: Callable[..., str]) -> None:
    assert "directory" in refused(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"This is a text file, not a model.\n" * 10, "not"),
        (PNG, "not"),
        (b"\x00" * 64, "not"),
        (b"PK\x03\x04" + b"\x00" * 60, "not"),
    ],
    ids=["empty", "text", "png", "zeros", "zip"],
)
def test_a_file_that_is_no_model(
    content: bytes, says: str, folder: Path, refused: Callable[..., str]
) -> None:
    (folder / "model.onnx").write_bytes(content)
    line = refused(folder / "model.onnx")
    assert "model.onnx" in line and says in line


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_model(share: float, folder: Path, refused: Callable[..., str]) -> None:
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: int(len(whole) * share)])
    assert "model.onnx" in refused(folder / "model.onnx")


def test_an_unknown_operator_domain_names_the_node(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    text = "(float[2] x) => (float[2] y) { [strange] y = my.company.Foo(x) }"
    onnx.save(onnx_text(text, domains={"my.company": 1}), folder / "model.onnx")
    line = refused(folder / "model.onnx")
    assert "'strange'" in line and "my.company" in line


def test_an_operator_that_does_not_exist_names_the_nearest(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    onnx.save(onnx_text("(float[2] x) => (float[2] y) { y = Sofmax(x) }"), folder / "model.onnx")
    assert "Softmax" in refused(folder / "model.onnx")


def test_a_model_of_the_future(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    model = onnx_text("(float[2] x) => (float[2] y) { y = Exp(x) }", opset=99)
    onnx.save(model, folder / "model.onnx")
    assert "opset 99" in refused(folder / "model.onnx")


def test_a_model_that_contradicts_itself(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    text = (
        "(float[2,3] x, float[4,5] z) => (float[2,5] y) { [product] m = MatMul(x, z) y = Exp(m) }"
    )
    onnx.save(onnx_text(text), folder / "model.onnx")
    refused(folder / "model.onnx")


def test_a_result_that_no_node_computes(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    text = "(float[2] x) => (float[2] y) { [product] m = Mul(x, lost) y = Exp(m) }"
    onnx.save(onnx_text(text), folder / "model.onnx")
    line = refused(folder / "model.onnx")
    assert "'product'" in line and "'lost'" in line


def test_nodes_out_of_order(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    text = "(float[2] x) => (float[2] y) { [first] y = Exp(m) m = Mul(x, x) }"
    onnx.save(onnx_text(text), folder / "model.onnx")
    assert "'first'" in refused(folder / "model.onnx")


def test_an_output_that_nothing_computes(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    text = "(float[2] x) => (float[2] y) { z = Exp(x) }"
    onnx.save(onnx_text(text), folder / "model.onnx")
    assert "'y'" in refused(folder / "model.onnx")


def test_an_operand_that_is_missing(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    text = "(float[2] x) => (float[2] y) { [power] y = Pow(x) }"
    onnx.save(onnx_text(text), folder / "model.onnx")
    assert "'power'" in refused(folder / "model.onnx")


def test_no_damage_to_a_file_gives_a_traceback(folder: Path, command: Callable[..., Any]) -> None:
    whole = (folder / "model.onnx").read_bytes()
    random = np.random.default_rng(3)
    for _ in range(60):
        damaged = bytearray(whole)
        for position in random.integers(0, len(whole), random.integers(1, 4)):
            damaged[position] ^= 1 << int(random.integers(8))
        (folder / "model.onnx").write_bytes(damaged)
        arguments = ["--quiet", "--samples=1", "--no-measure"]
        done = command(folder / "model.onnx", *arguments)
        # Some damage, such as to a name, makes another good model.
        if done.code != 0:
            assert done.error()


def test_missing_external_data(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    weights = np.ones((64, 64), np.float32)
    text = "(float[2,64] x) => (float[2,64] y) { m = MatMul(x, w) y = Exp(m) }"
    onnx.save(
        onnx_text(text, initializers={"w": weights}),
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    (folder / "weights.bin").unlink()
    assert "weights.bin" in refused(folder / "model.onnx")


# --passes and --explain


@pytest.mark.parametrize(
    ("passes", "says"),
    [
        ("rsqrtt", "did you mean 'rsqrt'?"),
        ("sotfmax", "did you mean 'softmax'?"),
        ("zzzzzz", "--list-passes"),
        ("", "empty"),
        ("   ", "empty"),
        (",", "cannot read --passes"),
        ("exp,,log", "cannot read --passes"),
        ("exp log", "comma"),
        ("exp{", "{"),
        ("exp}", "}"),
        ("exp{error}", "option=value"),
        ("exp{error=}", "option=value"),
        ("exp{=1e-5}", "option=value"),
        ("exp{error=small}", "takes a number, not 'small'"),
        ("exp{error=0}", "must be positive"),
        ("exp{error=-1e-3}", "must be positive"),
        ("exp{error=nan}", "must be positive"),
        ("exp{error=inf}", "must be positive"),
        ("exp{eror=1e-5}", "did you mean 'error'?"),
        ("exp{degree=2.5}", "a whole number"),
        ("exp{scheme=chebyshev,degree=-1}", "must be positive"),
        ("exp{relative=maybe}", "true or false"),
        ("exp{domain=5}", "an interval lo:hi"),
        ("exp{domain=5:1}", "an interval lo:hi"),
        ("exp{domain=a:b}", "an interval lo:hi"),
        ("exp{guard=clamp}", "clip, none"),
        ("exp{margin=-2}", "margin"),
        ("exp{scheme=chebishev}", "did you mean chebyshev"),
        ("exp{degree=5}", "needs a scheme"),
        ("exp{scheme=chebyshev,steps=3}", "'steps'"),
        ("exp{formula=}", "option=value"),
        ("exp{formula=exp(x)}", "exp is a function"),
        ("exp{formula=(1+x}", "'(' was never closed"),
        ("exp{formula=max(x,0)}", "option=value"),
        ("exp{formula=x;y}", "not used"),
        ("exp{formula=x,scheme=pade}", "without scheme"),
        ("exp{formula=x,degree=5}", "without degree"),
        ("all{formula=x}", "one function"),
        ("exp{positions=3}", "has no option 'positions'"),
        ("exp{error=1e-5,error=1e-6}", "option 'error' twice"),
        ("exp{error=1e-5},log,exp", "'exp' twice"),
        ("Exp", "did you mean 'exp'?"),
    ],
)
def test_passes_that_cannot_be_read(
    passes: str, says: str, folder: Path, refused: Callable[..., str]
) -> None:
    assert says in refused(folder / "model.onnx", "--passes", passes)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(max_size=24)
    | st.text(alphabet="explogrsqt{}=,-:.e15 _", max_size=24)
    | st.builds(
        "exp{{{}={}}}".format, st.sampled_from(["error", "degree", "domain", "formula"]), st.text()
    )
)
def test_no_text_of_passes_gives_a_traceback(text: str, command: Callable[..., Any]) -> None:
    # The model does not exist, so even passes that can be read end in one line.
    command("no-such-model.onnx", f"--passes={text}").error()


def test_explain_of_an_unknown_pass(folder: Path, refused: Callable[..., str]) -> None:
    assert "did you mean 'softmax'?" in refused(folder / "model.onnx", "--explain", "sofmax")


def test_an_unknown_option(folder: Path, refused: Callable[..., str]) -> None:
    assert "--shap" in refused(folder / "model.onnx", "--shap", "x=2,8")


def test_two_models(folder: Path, refused: Callable[..., str]) -> None:
    refused(folder / "model.onnx", folder / "model.onnx")


# Numbers


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--error", value) for value in ("-1e-5", "0", "nan", "inf", "tiny")),
        *(("--margin", value) for value in ("-0.1", "nan", "inf", "wide")),
        *(("--samples", value) for value in ("0", "-1", "2.5", "many")),
        *(("--seed", value) for value in ("-1", "x")),
        *(("--guard", value) for value in ("clamp", "")),
        *(("--opset", value) for value in ("3", "0", "-12", "twelve", "12.0", "")),
    ],
)
def test_numbers_out_of_range(
    option: str, value: str, folder: Path, refused: Callable[..., str]
) -> None:
    assert option in refused(folder / "model.onnx", f"{option}={value}")


def test_an_opset_that_the_model_cannot_reach(folder: Path, refused: Callable[..., str]) -> None:
    line = refused(folder / "model.onnx", "--opset", "14")
    assert "14" in line and "17" in line


# --shape


@pytest.fixture
def dynamic(folder: Path, onnx_text: Callable[..., onnx.ModelProto]) -> Path:
    inputs = "float[batch,8] x, float[batch,other] z"
    text = f"({inputs}) => (float[batch,8] y) {{ e = Exp(x) y = Add(e, x) }}"
    onnx.save(onnx_text(text), folder / "dynamic.onnx")
    return folder / "dynamic.onnx"


def test_a_dynamic_shape_names_the_inputs_and_what_to_add(
    dynamic: Path, refused: Callable[..., str]
) -> None:
    line = refused(dynamic)
    assert "--shape x=?,8" in line and "--shape z=?,?" in line


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("x", "NAME=1,32"),
        ("=2,8", "NAME=1,32"),
        ("x=two,8", "NAME=1,32"),
        ("x=2,,8", "NAME=1,32"),
        ("x=", "NAME=1,32"),
        ("x=0,8", "NAME=1,32"),
        ("x=-2,8", "NAME=1,32"),
        ("x=2", "dimensions"),
        ("x=2,8,1", "dimensions"),
        ("x=2,9", "9 cannot replace 8"),
        ("xx=2,8", "did you mean 'x'"),
        ("input=2,8", "inputs are x, z"),
    ],
)
def test_shapes_that_do_not_fit(
    shape: str, says: str, dynamic: Path, refused: Callable[..., str]
) -> None:
    line = refused(dynamic, "--shape", shape, "--shape", "z=2,3")
    assert says in line and shape.split("=")[0] in line


def test_one_symbol_with_two_sizes(dynamic: Path, refused: Callable[..., str]) -> None:
    assert "'batch'" in refused(dynamic, "--shape", "x=2,8", "--shape", "z=3,3")


def test_one_input_with_two_shapes(dynamic: Path, refused: Callable[..., str]) -> None:
    assert "twice" in refused(dynamic, "--shape", "x=2,8", "--shape", "x=3,8")


def test_a_shape_that_no_memory_holds(dynamic: Path, refused: Callable[..., str]) -> None:
    refused(dynamic, "--shape", "x=999999999999,8", "--shape", "z=999999999999,2")


# --calibrate


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "for input 'x'"),
        ({"X": np.zeros((2, 8), np.float32)}, "did you mean 'x'?"),
        ({"y": np.zeros((2, 8), np.float32)}, "no input of the model"),
        ({"x": np.zeros((2, 9), np.float32)}, "[2, 9]"),
        ({"x": np.zeros((3, 8), np.float32)}, "[3, 8]"),
        ({"x": np.float32(1.0)}, "[]"),
        ({"x": np.zeros((0, 2, 8), np.float32)}, "no samples"),
        ({"x": np.zeros((0, 8), np.float32)}, "no samples"),
        ({"x": np.zeros((2, 8), np.complex64)}, "complex64"),
        ({"x": np.array([["a"] * 8] * 2)}, "dtype"),
        ({"x": np.full((2, 8), np.nan, np.float32)}, "NaN"),
        ({"x": np.full((2, 8), np.inf, np.float32)}, "infinity"),
        ({"x": np.full((2, 8), 1e300)}, "float32"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_calibration_arrays_that_do_not_fit(
    arrays: dict[str, Any], says: str, folder: Path, refused: Callable[..., str]
) -> None:
    np.savez(folder / "data.npz", **arrays)
    line = refused(folder / "model.onnx", "--calibrate", folder / "data.npz")
    assert says in line and "data.npz" in line


def test_a_calibration_number_where_a_vector_is_wanted(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    onnx.save(onnx_text("(float[2] x) => (float[2] y) { y = Exp(x) }"), folder / "vector.onnx")
    np.savez(folder / "data.npz", x=np.float32(1.0))
    assert "[]" in refused(folder / "vector.onnx", "--calibrate", folder / "data.npz")


def test_calibration_arrays_of_different_counts(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    text = "(float[2] a, float[2] b) => (float[2] y) { s = Add(a, b) y = Exp(s) }"
    onnx.save(onnx_text(text), folder / "two.onnx")
    np.savez(folder / "data.npz", a=np.zeros((3, 2), "f4"), b=np.zeros((4, 2), "f4"))
    line = refused(folder / "two.onnx", "--calibrate", folder / "data.npz")
    assert "a: 3" in line and "b: 4" in line


def test_calibration_integers_that_the_input_cannot_hold(
    folder: Path, refused: Callable[..., str], onnx_text: Callable[..., onnx.ModelProto]
) -> None:
    text = "(int32[2] a) => (float[2] y) { f = Cast<to=1>(a) y = Exp(f) }"
    onnx.save(onnx_text(text), folder / "int.onnx")
    np.savez(folder / "data.npz", a=np.array([2**40, 1]))
    line = refused(folder / "int.onnx", "--calibrate", folder / "data.npz")
    assert "'a'" in line and "int32" in line


def _write_text(path: Path) -> None:
    path.write_text("not an archive")


def _write_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((2, 8), np.float32))


def _write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"x": [1.0]}))


def _write_objects(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _write_truncated(path: Path) -> None:
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(64, 2, 8)))
    path.write_bytes(path.read_bytes()[:1000])


def _write_corrupted(path: Path) -> None:
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(64, 2, 8)))
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write",
    [
        Path.touch,
        Path.mkdir,
        _write_text,
        _write_array,
        _write_pickle,
        _write_objects,
        _write_truncated,
        _write_corrupted,
    ],
    ids=lambda function: function.__name__.removeprefix("_write_"),
)
def test_a_calibration_file_that_is_no_archive(
    write: Callable[[Path], None], folder: Path, refused: Callable[..., str]
) -> None:
    write(folder / "data.npz")
    line = refused(folder / "model.onnx", "--calibrate", folder / "data.npz")
    assert "data.npz" in line
    # Advice of numpy to a programmer: the user cannot follow it, and should not.
    assert "pickle=" not in line


def test_a_missing_calibration_file(folder: Path, refused: Callable[..., str]) -> None:
    assert "does not exist" in refused(folder / "model.onnx", "-c", folder / "nothing.npz")


# Outputs


@pytest.mark.parametrize("name", ["report.txt", "report", "report.htm", ".json"])
def test_a_report_of_an_unknown_kind(name: str, folder: Path, refused: Callable[..., str]) -> None:
    assert ".json or .html" in refused(folder / "model.onnx", "--report", folder / name)


@pytest.mark.parametrize("option", ["--output", "--report"])
def test_an_output_in_a_folder_that_does_not_exist(
    option: str, folder: Path, refused: Callable[..., str]
) -> None:
    assert "nowhere" in refused(folder / "model.onnx", option, folder / "nowhere" / "a.json")


@pytest.mark.parametrize("option", ["--output", "--report"])
def test_an_output_under_a_file(option: str, folder: Path, refused: Callable[..., str]) -> None:
    assert "cannot write" in refused(
        folder / "model.onnx", option, folder / "model.onnx" / "a.json"
    )


@pytest.mark.parametrize("option", ["--output", "--report"])
def test_an_output_that_is_a_directory(
    option: str, folder: Path, refused: Callable[..., str]
) -> None:
    (folder / "target.json").mkdir()
    assert "directory" in refused(folder / "model.onnx", option, folder / "target.json")


def test_two_outputs_of_one_name(folder: Path, refused: Callable[..., str]) -> None:
    line = refused(folder / "model.onnx", "-o", folder / "a.json", "-r", folder / "a.json")
    assert "twice" in line


def _refusing(number: int, suffix: str) -> Callable[..., Any]:
    """`Path.replace` that fails with an errno for files of one kind."""
    genuine = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).suffix == suffix:
            raise OSError(number, os.strerror(number))
        return genuine(self, target)

    return replace


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_is_full_or_read_only_when_the_model_is_renamed(
    number: int, folder: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", _refusing(number, ".onnx"))
    # `check_model` saves to the system's folder first, so it may be what meets the error.
    assert "cannot write" in refused(folder / "model.onnx", "--report", folder / "report.json")


def test_a_disk_that_is_full_while_the_model_is_written(
    folder: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "disk is full" in refused(folder / "model.onnx")


def test_a_folder_that_cannot_be_written(
    folder: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    def forbidden(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", forbidden)
    line = refused(folder / "model.onnx")
    assert "model.rational.onnx" in line and "permission denied" in line


def test_control_characters_do_not_reach_the_terminal(
    folder: Path, refused: Callable[..., str]
) -> None:
    assert "\x1b" not in refused(folder / "a\x1b[31m\nb.onnx")
