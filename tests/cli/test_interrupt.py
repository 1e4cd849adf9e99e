"""Ctrl-C at any moment leaves nothing half-written; so does a reader that goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

# Runs the real entry point, and stops itself (as Ctrl-C would) inside the function that is named.
INTERRUPTED = """
import importlib, os, signal, sys, time
module, name = {place!r}.rsplit(".", 1)
holder = importlib.import_module(module)
genuine = getattr(holder, name)
def pressed(*arguments, **options):
    if {after}:
        result = genuine(*arguments, **options)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
setattr(holder, name, pressed)
from odp.cli import rewrite_main
rewrite_main(sys.argv[1:])
"""


@pytest.fixture
def model(tmp_path: Path, onnx_text: Callable[..., onnx.ModelProto]) -> Path:
    text = "(float[2,8] x) => (float[2,8] y) { s = Softmax<axis=-1>(x) y = Sigmoid(s) }"
    onnx.save(onnx_text(text), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize(
    ("place", "after"),
    [
        ("odp.rewriter.onnx_calibration.calibrate", False),
        ("odp.rewriter.measurement.compare", False),
        ("odp.backends.onnx.legalise.legalise", False),
        ("odp.backends.onnx.save._write_single", True),
        ("odp.backends.onnx.save._write_external", True),
    ],
)
def test_an_interrupt_leaves_no_partial_output(place: str, after: bool, model: Path) -> None:
    # The check of the finished model saves it elsewhere first; that save is not the one meant.
    data = ["--external-data"] if place.endswith("external") else []
    report = ["--report", str(model.with_suffix(".html"))]
    script = INTERRUPTED.format(place=place, after=after)
    done = subprocess.run(
        [sys.executable, "-c", script, str(model), *data, *report],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == "error: interrupted; no partial output was left"
    assert done.stdout == ""
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


def test_an_interrupt_keeps_what_was_there(model: Path) -> None:
    target = model.with_name("out.onnx")
    target.write_bytes(b"an earlier result")
    script = INTERRUPTED.format(place="odp.backends.onnx.save._write_single", after=True)
    command = [sys.executable, "-c", script, str(model), "-o", str(target)]
    done = subprocess.run(command, check=False, capture_output=True, timeout=50)
    assert done.returncode == 130
    assert target.read_bytes() == b"an earlier result"


def test_ctrl_c_from_outside(model: Path) -> None:
    """A real SIGINT of another process, while the model runs on data."""
    script = (
        "import sys, time\n"
        "from odp.rewriter import execution\n"
        "def run(self, feed):\n"
        "    print('running', file=sys.stderr, flush=True)\n"
        "    time.sleep(60)\n"
        "execution.Session.run = run\n"
        "from odp.cli import rewrite_main\nrewrite_main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(model)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == "error: interrupted; no partial output was left"
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    "arguments", [["--list-passes"], ["MODEL"], ["MODEL", "--json"]], ids="".join
)
def test_a_reader_that_goes_away(arguments: list[str], model: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    script = "import sys\nfrom odp.cli import rewrite_main\nrewrite_main(sys.argv[1:])"
    given = [str(model) if argument == "MODEL" else argument for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", script, *given],
        check=False,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    if "MODEL" in arguments:
        onnx.checker.check_model(str(model.with_name("model.rational.onnx")))
