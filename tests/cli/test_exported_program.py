"""`odp-rewrite program.pt2` does for files of torch.export what it does for ONNX files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from odp.rewriter.fx_transcendental import is_transcendental

from ..torch.modules import Classifier, numbers

Command = Callable[..., Any]
PASSES = ("--passes", "layer_norm{error=1e-4},gelu{error=1e-4},softmax{error=1e-4}", "--no-measure")
X = numbers(3, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with any batch size up to 64, and arrays to calibrate it on."""
    folder = tmp_path_factory.mktemp("program")
    batch = {"x": {0: torch.export.Dim("batch", min=2, max=64)}}
    program = torch.export.export(Classifier().eval(), (X,), dynamic_shapes=batch, strict=False)
    torch.export.save(program, folder / "model.pt2")
    np.savez(folder / "data.npz", x=numbers(4, 3, 8).numpy())
    np.savez(folder / "other.npz", y=numbers(4, 3, 8).numpy())
    (folder / "text.pt2").write_text("no archive")
    return folder


def test_a_program_is_rewritten_and_saved(folder: Path, command: Command, tmp_path: Path) -> None:
    output, report = tmp_path / "rational.pt2", tmp_path / "report.json"
    done = command(
        *(folder / "model.pt2", "--calibrate", folder / "data.npz", *PASSES),
        *("--output", output, "--report", report),
    )
    assert done.code == 0, done.err
    assert f"wrote {output}" in done.out.replace("\n", "")
    program = torch.export.load(output)
    assert not [node for node in program.graph.nodes if is_transcendental(node)]
    for size in (2, 5, 64):
        x = numbers(size, 8, seed=size)
        found, wanted = program.module()(x), Classifier().eval()(x)
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)
    assert json.loads(report.read_text())["calibration"]["samples"] == 4


def test_the_default_name(folder: Path, command: Command, tmp_path: Path) -> None:
    copied = tmp_path / "model.pt2"
    copied.write_bytes((folder / "model.pt2").read_bytes())
    done = command(copied, *PASSES)
    assert done.code == 0 and (tmp_path / "model.rational.pt2").is_file()
    assert "calibrated on example inputs alone" in " ".join(done.out.split())


def test_inspection(folder: Path, command: Command) -> None:
    done = command("inspect", folder / "model.pt2", "--json", program="odp")
    found = json.loads(done.out)
    assert sorted(site["pattern"] for site in found["sites"]) == ["gelu", "layer_norm", "softmax"]
    assert {site["module_path"] for site in found["sites"]} == {"activation", "norm", ""}
    assert found["left"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.pt2",), "exported program 'nowhere.pt2' does not exist"),
        (("text.pt2",), "cannot read"),
        (("model.pt2", "--shape", "x=3,8"), "shapes is for ONNX models"),
        (("model.pt2", "--calibrate", "other.npz"), "'y' in other.npz is no input of the model"),
        (("model.pt2", "--calibrate", "text.pt2"), "is not an .npz archive"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    assert message in command(*arguments, *PASSES).error()
    assert not (folder / "model.rational.pt2").exists()
