"""Bad input of `odp approximate`: exit code 2, one line that says what to do, nothing written."""

from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]
) -> Callable[..., str]:
    """Run `odp approximate` in an empty folder; it must fail with one line and write nothing."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        line = command("approximate", *arguments, program="odp").error()
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return str(line)

    return run


@pytest.mark.parametrize(
    ("function", "domain", "words"),
    [
        ("exp", "0:0", ["single point"]),
        ("exp", "0:-10", ["reversed"]),
        ("exp", "-inf:0", ["infinite bound"]),
        ("exp", "0:1e999", ["infinite bound"]),
        ("exp", "nan:0", ["not a number"]),
        ("exp", "0:800", ["overflows"]),
        ("rsqrt", "0:1", ["pole", "at 0"]),
        ("reciprocal", "-1:1", ["pole"]),
        ("1/(x-2)", "0:3", ["pole", "2"]),
        ("log", "-1:1", ["real only on"]),
        ("exp", "0", ["--domain '0'", "LO:HI"]),
        ("exp", "", ["LO:HI"]),
        ("exp", ":", ["LO:HI"]),
        ("exp", "0:1:2", ["LO:HI"]),
        ("exp", "a:1", ["'a'", "2**-10"]),
        ("exp", "0:x", ["'x'"]),
        ("exp", "0:__import__('os')", ["cannot read the bound"]),
        ("exp", "0:9**9**9**9", ["cannot read the bound"]),
        ("exp", "0:1/0", ["cannot read the bound"]),
        ("exp", "0:sqrt(-1)", ["cannot read the bound"]),
    ],
)
def test_domains(function: str, domain: str, words: list[str], refused: Callable[..., str]) -> None:
    line = refused(function, "--domain", domain)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("epx", ["exp"]),
        ("x*y", ["more than one variable", "x, y"]),
        ("x*exp(", ["never closed"]),
        ("foo(x)", ["unknown function", "foo"]),
        ("2", ["no variable"]),
        ("x", ["unknown function"]),
        ("1*x", ["nothing to approximate"]),
        ("", []),
        ("exp(x).real", ["attribute"]),
        ("__import__('os').system('touch hacked')", []),
        ("lambda x: x", []),
        ("-x*exp(x)", ["(-x*exp(x))", "parentheses"]),
    ],
)
def test_functions(function: str, words: list[str], refused: Callable[..., str]) -> None:
    line = refused(function, "--domain", "1:2")
    assert all(word in line for word in words), line


EXP = ("exp", "-d", "-1:0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--error", "-1"), ["positive"]),
        (("--error", "0"), ["positive"]),
        (("--error", "nan"), ["positive"]),
        (("--error", "small"), ["--error", "small"]),
        (("--error", "1e-30"), ["no expression reaches", "the best is"]),
        (("--error", "1e-3", "--operations", "4"), ["not both"]),
        (("--atol", "1e-3", "--operations", "4"), ["not both"]),
        (("--atol", "1e-3", "--error", "1e-3"), ["not both"]),
        (("--atol", "1e-3", "--relative"), ["--relative"]),
        (("--atol", "0"), ["zero"]),
        (("--atol", "1e-3", "--ulps", "-2"), ["ulps"]),
        (("--operations", "-1"), ["--operations"]),
        (("--operations", "nan"), ["--operations"]),
        (("--operations", "inf"), ["--operations"]),
        (("--target", "ekzl"), ["ekzl", "ezkl"]),
        (("--target", "fixed{scale=many}"), ["scale=S"]),
        (("--target", "fixed{scale=7}", "--error", "1e-4"), ["scale 7", "larger scale"]),
        (("--target", "fixed{scale=13}", "--emit", "triton"), ["triton", "integers"]),
        (("--scheme", "mimimax"), ["minimax"]),
        (("--scheme", "newton"), ["newton", "exp"]),
        (("--set", "degree=3"), ["needs a scheme"]),
        (("--scheme", "minimax", "--set", "degre=3"), ["'degre'", "degree"]),
        (("--scheme", "minimax", "--set", "degree"), ["NAME=VALUE"]),
        (("--scheme", "minimax", "--set", "degree=2", "--set", "degree=3"), ["twice"]),
        (("--scheme", "minimax", "--set", "degree=0"), ["degree=0"]),
        (("--scheme", "minimax", "--set", "degree=-1"), ["degree=-1"]),
        (("--scheme", "minimax", "--set", "degree=two"), ["degree=two"]),
        (("--formula", ""), ["empty"]),
        (("--formula", "1+t"), ["unknown name 't'", "column 3"]),
        (("--formula", "1+exp(x)"), ["exp is a function"]),
        (("--formula", "(1+x"), ["never closed"]),
        (("--formula", "__import__('os')"), ["no place here"]),
        (("--formula", "1/(2*x+1)"), ["divides by zero near x = -0.5"]),
        (("--formula", "1+x", "--error", "1e-3"), ["more than absolute error 0.001"]),
        (("--formula", "1+x", "--atol", "1e-3", "--rtol", "1e-3"), ["times the error allowed"]),
        (("--formula", "1+x", "--operations", "4"), ["leave out operations"]),
        (("--formula", "1+x", "--scheme", "minimax"), ["without scheme"]),
        (("--formula", "1+x", "--set", "degree=3"), ["without degree"]),
        (("--formula", "1+x/8", "--target", "fhe"), ["fhe cannot", "x*0.125"]),
        (("--formula",), ["--formula"]),
        (("--histogram", "missing.npy"), ["missing.npy", "no such file"]),
        (("--histogram", "."), ["--histogram"]),
        (("--emit", "fortran"), ["fortran", "python"]),
        (("--emit", "c", "--name", "a b"), ["a b"]),
        (("--emit", "c", "-o", "missing/exp.c"), ["missing", "does not exist"]),
        (("--emit", "c", "-o", "."), ["directory"]),
        (("--emit", "c", "--json"), ["standard output"]),
        (("--emit", "onnx", "-o", "a.onnx", "--shape", "0,3"), ["--shape"]),
        (("--emit", "c", "--shape", "3"), ["--emit onnx"]),
        (("--name", "f"), ["--name"]),
        (("-o", "exp.c"), ["--emit"]),
        (("--plot", "error.jpg"), ["error.jpg", ".png"]),
        (("--plot", "missing/error.png"), ["missing", "does not exist"]),
        (("--emit", "c", "-o", "same.svg", "--plot", "same.svg"), ["same.svg", "twice"]),
    ],
)
def test_options(arguments: tuple[str, ...], words: list[str], refused: Callable[..., str]) -> None:
    line = refused(*EXP, *arguments)
    assert all(word in line for word in words), line


def test_what_is_missing(refused: Callable[..., str]) -> None:
    assert "--list" in refused()
    assert "domain" in refused("exp")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no numbers", ["not an .npy or .npz file"]),
        (b"", ["--histogram"]),
        (np.array(["a", "b"]), ["not real numbers"]),
        (np.array([1 + 2j]), ["not real numbers"]),
        (np.array([{"a": 1}], dtype=object), ["numbers"]),
        (np.array([]), ["none of its 0 numbers"]),
        (np.array([5.0, 6.0]), ["none of its 2 numbers", "[-1, 0]"]),
        (np.array([-0.5, -0.5, np.nan]), ["-0.5", "two different"]),
        ({"a": np.zeros(3), "b": np.ones(3)}, ["2 arrays", "a, b"]),
        ({}, ["0 arrays"]),
    ],
)
def test_histograms(
    content: Any, words: list[str], tmp_path: Path, refused: Callable[..., str]
) -> None:
    path = tmp_path / "inputs.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        path = tmp_path / "inputs.npz"
        np.savez(path, **content)
    else:
        np.save(path, content)
    line = refused(*EXP, "--histogram", path)
    assert all(word in line for word in words), line


def test_a_histogram_beside_a_formula(tmp_path: Path, refused: Callable[..., str]) -> None:
    np.save(tmp_path / "inputs.npy", np.linspace(-1, 0, 50))
    line = refused(*EXP, "--formula", "1+x", "--histogram", tmp_path / "inputs.npy")
    assert "give an error" in line


def test_a_picture_without_matplotlib(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return genuine(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install" in refused(*EXP, "--plot", "error.png")


def test_a_model_is_not_printed_on_a_terminal(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("odp.cli.approximate.is_terminal", lambda: True)
    assert "-o" in refused(*EXP, "--emit", "onnx")


# Stops itself, as Ctrl-C would, inside the function that is named.
INTERRUPTED = """
import importlib, os, signal, sys, time
module, name = {place!r}.rsplit(".", 1)
holder = importlib.import_module(module)
genuine = getattr(holder, name)
def pressed(*arguments, **options):
    if {after}:
        genuine(*arguments, **options)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
setattr(holder, name, pressed)
from odp.cli import main
main(["approximate", "exp", "-d", "-1:0", "-e", "1e-2", *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("place", "after", "arguments"),
    [
        ("odp.approximations.pareto", False, ("--emit", "c", "-o", "exp.c")),
        ("odp.cli.approximate_plot._draw_error", True, ("--plot", "exp.png")),
        ("odp.backends.onnx.save._write_single", True, ("--emit", "onnx", "-o", "exp.onnx")),
        ("tempfile.NamedTemporaryFile", True, ("--emit", "python", "-o", "exp.py")),
    ],
)
def test_an_interrupt_leaves_no_partial_output(
    place: str, after: bool, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    script = INTERRUPTED.format(place=place, after=after)
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == "error: interrupted; no partial output was left"
    assert list(tmp_path.iterdir()) == []
