"""Kill -9 in the middle of a training, and go on: the same adapter as without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from odp.healing import read_log
from odp.healing.adapters import trainable

from .rewritten_models import heal

ROOT = Path(__file__).parents[2]


def test_killed_and_continued(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.healing.killed_training", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])},
    )
    log = folder / "log.jsonl"
    limit = time.monotonic() + 300
    while time.monotonic() < limit and process.poll() is None:
        if log.is_file() and log.read_text().count("\n") >= 4:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    killed_after = len(read_log(log))
    assert 3 <= killed_after < 12

    adapted, trained = heal(folder)
    assert trained.resumed_at is not None and trained.resumed_at >= killed_after - 1
    whole, uninterrupted = heal(tmp_path / "whole")
    assert trained.last["loss"] == pytest.approx(uninterrupted.last["loss"], rel=1e-5)
    found, wanted = trainable(adapted), trainable(whole)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-7)
    steps = [entry["step"] for entry in read_log(log)]
    assert steps == list(range(1, 13))
    assert not list(folder.rglob(".odp-*"))
