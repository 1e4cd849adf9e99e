"""What `odp-rewrite` prints and writes when all is well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from odp.passes import registry

MODEL = "(float[2,8] x) => (float[2,8] y) { [soft] s = Softmax<axis=-1>(x) [gate] y = Sigmoid(s) }"


@pytest.fixture
def model(tmp_path: Path, onnx_text: Callable[..., onnx.ModelProto]) -> Path:
    onnx.save(onnx_text(MODEL), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def data(model: Path) -> Path:
    x = np.random.default_rng(1).normal(size=(3, 2, 8)).astype(np.float32)
    np.savez(model.with_name("data.npz"), x=x)
    return model.with_name("data.npz")


def test_the_default_output_stands_beside_the_model(
    model: Path, data: Path, command: Callable[..., Any]
) -> None:
    done = command(model, "--calibrate", data)
    assert done.code == 0 and done.err == ""
    target = model.with_name("model.rational.onnx")
    assert f"wrote {target}" in done.out
    rewritten = onnx.load(target)
    assert {entry.version for entry in rewritten.opset_import} == {12}
    assert not {node.op_type for node in rewritten.graph.node} & {"Softmax", "Sigmoid", "Exp"}
    x = np.load(data)["x"][0]
    before, after = (
        onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0] for path in (model, target)
    )
    assert np.abs(before - after).max() <= 2e-5  # two sites with an error of 1e-5 each


def test_json_is_all_that_stands_on_standard_output(
    model: Path, command: Callable[..., Any]
) -> None:
    done = command(model, "--json")
    assert done.code == 0
    report = json.loads(done.out)
    assert report["model"]["transcendental_before"] == {"Sigmoid": 1, "Softmax": 1}
    assert report["model"]["transcendental_after"] == {}
    assert done.err.startswith("warning: ") and "RANDOM" in done.err


def test_quiet_prints_warnings_alone(model: Path, data: Path, command: Callable[..., Any]) -> None:
    done = command(model, "--quiet")
    assert (done.code, done.out) == (0, "")
    assert all(line.startswith("warning: ") for line in done.err.splitlines())
    done = command(model, "--quiet", "--calibrate", data)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_generated_inputs_are_warned_about(model: Path, command: Callable[..., Any]) -> None:
    done = command(model)
    assert "RANDOM" in done.out + done.err and "--calibrate" in done.out + done.err


def test_reports_are_written_as_their_names_say(
    model: Path, data: Path, command: Callable[..., Any]
) -> None:
    as_json, as_html = model.with_name("r.json"), model.with_name("r.html")
    done = command(model, "-c", data, "-r", as_json, "-r", as_html)
    assert done.code == 0
    assert json.loads(as_json.read_text())["calibration"]["source"] == "data.npz"
    assert as_html.read_text().lstrip().lower().startswith("<!doctype html>")
    assert not [path for path in model.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("measured", [True, False])
def test_a_model_with_nothing_to_do(
    measured: bool, tmp_path: Path, onnx_text: Callable[..., onnx.ModelProto], command: Any
) -> None:
    text = "(float[2] x) => (float[2] y) { s = Add(x, x) y = Relu(s) }"
    onnx.save(onnx_text(text), tmp_path / "plain.onnx")
    done = command(tmp_path / "plain.onnx", *([] if measured else ["--no-measure"]))
    assert done.code == 0
    assert "Nothing to do" in done.out
    onnx.checker.check_model(str(tmp_path / "plain.rational.onnx"))


def test_a_pass_that_finds_nothing_says_so(model: Path, command: Callable[..., Any]) -> None:
    done = command(model, "--passes", "erf")
    assert done.code == 0
    assert "Nothing to do" in done.out


def test_list_passes_lists_the_registry(command: Callable[..., Any]) -> None:
    done = command("--list-passes")
    assert done.code == 0 and done.err == ""
    first = [line.split()[0] for line in done.out.splitlines() if line.strip()]
    assert [name for name in first if name in registry()] == list(registry())


def test_a_formula_of_the_users_own(model: Path, data: Path, command: Callable[..., Any]) -> None:
    passes = "exp{formula=(1+x/64)**64, domain=-32:0},sigmoid"
    done = command(model, "-c", data, "--passes", passes, "--json")
    assert done.code == 0 and done.err == ""
    report = json.loads(done.out)
    assert report["passes"][0]["options"]["formula"] == "(1+x/64)**64"
    schemes = {record["function"]: record["scheme"] for record in report["approximants"]}
    assert schemes["exp"] == "formula" and schemes["sigmoid"] != "formula"
    assert report["model"]["transcendental_after"] == {}
    table = command(model, "-c", data, "--passes", passes).out
    assert "formula" in table


def test_list_passes_says_what_a_formula_is(command: Callable[..., Any]) -> None:
    assert "formula=(1+x/8)**8" in command("--list-passes").out


def test_help_shows_a_newcomer_how_to_start(command: Callable[..., Any]) -> None:
    done = command("--help")
    assert done.code == 0
    for word in ("--passes", "--calibrate", "--shape", "--report", "--list-passes", "Exit code"):
        assert word in done.out
    assert "odp-rewrite model.onnx --passes rsqrt,exp,rope" in done.out


def test_version(command: Callable[..., Any]) -> None:
    done = command("--version")
    assert done.code == 0 and "0.1.0" in done.out


@pytest.mark.parametrize(
    ("text", "name", "node", "reason"),
    [
        ("(float[4] x) => (float[4] y) { [root] y = Pow(x, p) }", "rsqrt", "root", "-0.5"),
        (
            "(float[2,4] x) => (float[2,4] y) { m = ReduceMean<axes=[1]>(x) c = Sub(x, m) "
            "q = Mul(x, x) v = ReduceMean<axes=[1]>(q) e = Add(v, eps) [deviation] s = Sqrt(e) "
            "y = Div(c, s) }",
            "layer_norm",
            "deviation",
            "expected sub",
        ),
        (
            "(float[2,4] x) => (float[2,4] y) { [power] e = Exp(x) "
            "[total] s = ReduceSum<keepdims=0>(e) y = Sub(e, s) }",
            "softmax",
            "power",
            "sub",
        ),
    ],
    ids=["pow_of_three", "mean_square_for_a_variance", "sum_without_division"],
)
def test_explain_names_the_node_and_the_reason(
    text: str,
    name: str,
    node: str,
    reason: str,
    tmp_path: Path,
    onnx_text: Callable[..., onnx.ModelProto],
    command: Callable[..., Any],
) -> None:
    constants = {"p": np.float32(3.0), "eps": np.float32(1e-5)}
    used = {key: value for key, value in constants.items() if f" {key})" in text}
    onnx.save(onnx_text(text, initializers=used), tmp_path / "model.onnx")
    done = command(tmp_path / "model.onnx", "--passes", name, "--explain", name)
    assert done.code == 0, done.err
    told = done.out.split(f"Near misses of {name}")[1]
    assert node in told and reason in " ".join(told.split())


def test_explain_of_a_pass_that_nothing_resembles(model: Path, command: Callable[..., Any]) -> None:
    done = command(model, "--passes", "erf", "--explain", "erf")
    assert "in the model resembles" in done.out


def test_the_shape_of_a_dynamic_input(
    tmp_path: Path, onnx_text: Callable[..., onnx.ModelProto], command: Callable[..., Any]
) -> None:
    text = "(float[batch,8] x) => (float[batch,8] y) { y = Exp(x) }"
    onnx.save(onnx_text(text), tmp_path / "model.onnx")
    assert command(tmp_path / "model.onnx", "--shape", "x=3,8").code == 0
    rewritten = onnx.load(tmp_path / "model.rational.onnx")
    shape = rewritten.graph.input[0].type.tensor_type.shape
    assert [extent.dim_value for extent in shape.dim] == [3, 8]


def test_keep_keeps_the_opset(model: Path, command: Callable[..., Any]) -> None:
    assert command(model, "--opset", "keep").code == 0
    rewritten = onnx.load(model.with_name("model.rational.onnx"))
    assert {entry.domain: entry.version for entry in rewritten.opset_import}[""] == 17


def test_external_data_beside_the_model(
    tmp_path: Path, onnx_text: Callable[..., onnx.ModelProto], command: Callable[..., Any]
) -> None:
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    text = "(float[2,64] x) => (float[2,64] y) { m = MatMul(x, w) y = Exp(m) }"
    onnx.save(onnx_text(text, initializers={"w": weights}), tmp_path / "model.onnx")
    assert command(tmp_path / "model.onnx", "--external-data").code == 0
    assert (tmp_path / "model.rational.onnx.data").stat().st_size >= weights.nbytes
    onnx.checker.check_model(str(tmp_path / "model.rational.onnx"), full_check=True)


def test_a_model_may_be_rewritten_in_place(model: Path, command: Callable[..., Any]) -> None:
    assert command(model, "-o", model).code == 0
    assert "Softmax" not in {node.op_type for node in onnx.load(model).graph.node}


def test_inspect_lists_sites(model: Path, command: Callable[..., Any]) -> None:
    done = command("inspect", model, program="odp")
    assert done.code == 0 and "2 sites" in done.out
    done = command("inspect", model, "--json", program="odp")
    found = json.loads(done.out)
    assert [site["node"] for site in found["sites"]] == ["soft", "gate"]
    assert found["left"] == {}


def test_inspect_of_bad_input(model: Path, command: Callable[..., Any]) -> None:
    assert "no such" in command("inspect", model.with_name("a.onnx"), program="odp").error()
    assert "NAME=1,32" in command("inspect", model, "--shape", "x", program="odp").error()


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_every_terminal_encoding_is_served(encoding: str, model: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    script = "import sys\nfrom odp.cli import rewrite_main\nrewrite_main(sys.argv[1:])"
    command = [sys.executable, "-c", script, str(model)]
    done = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert done.stderr == b""
    done.stdout.decode(encoding)


def test_libraries_stay_silent(
    tmp_path: Path, onnx_text: Callable[..., onnx.ModelProto], command: Callable[..., Any]
) -> None:
    """A model that ONNX Runtime, onnxscript and numpy all have something to say about."""
    text = (
        "(float[2,4] x, float[2,4] unused) => (float[2,4] y) "
        "{ z = Sub(x, x) l = Log(z) e = Exp(big) p = Mul(x, e) q = Add(p, l) y = Exp(q) }"
    )
    arrays = {"big": np.float32(1e4), "never_read": np.ones(3, np.float32)}
    onnx.save(onnx_text(text, initializers=arrays), tmp_path / "model.onnx")
    done = command(tmp_path / "model.onnx", "--quiet")
    foreign = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    assert foreign == [] or (done.code == 2 and len(foreign) == 1)
