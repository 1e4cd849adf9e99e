"""Two processes with half of each batch do what one does with all of it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from odp.healing import read_log
from odp.healing.adapters import trainable

from .rewritten_models import SETTINGS, heal

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "several_processes.py"


@pytest.mark.slow
def test_two_processes_train_one_adapter(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    # For CPUs `accelerate launch` wants MPI; this sets the same variables.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launch, "--nproc_per_node", "2", str(SCRIPT), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    settings = dataclasses.replace(SETTINGS, dropout=0.0, batch_size=4, steps=4)
    whole, trained = heal(tmp_path / "one", settings, checkpoint_every=2)
    entries = read_log(folder / "log.jsonl")
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    assert entries[-1]["tokens"] == trained.last["tokens"]
    # The first loss is before any update; later ones are after updates by sums in another order.
    assert entries[0]["loss"] == pytest.approx(trained.first["loss"], rel=1e-5)
    assert entries[-1]["loss"] == pytest.approx(trained.last["loss"], rel=1e-2)
    # And one process goes on where two stopped, with the settings of the two.
    halves = dataclasses.replace(settings, batch_size=2)
    resumed, again = heal(folder, halves, checkpoint_every=2)
    assert again.resumed_at == 4
    for name, parameter in trainable(resumed).items():
        wanted = trainable(whole)[name]
        torch.testing.assert_close(parameter, wanted, rtol=1e-2, atol=1e-4)
