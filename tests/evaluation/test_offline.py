"""Offline and quiet within, and everything as before afterwards."""

from __future__ import annotations

import os
import subprocess
import sys

import datasets.config
import huggingface_hub.constants
import pytest
import tqdm
from transformers.utils import logging

from odp.evaluation.offline import offline


def state() -> tuple[object, ...]:
    return (
        os.environ.get("HF_HUB_OFFLINE"),
        os.environ.get("HF_DATASETS_OFFLINE"),
        huggingface_hub.constants.HF_HUB_OFFLINE,
        datasets.config.HF_HUB_OFFLINE,
        logging.get_verbosity(),
        tqdm.tqdm.__init__,
    )


def test_everything_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    before = state()
    with pytest.raises(ZeroDivisionError), offline():
        assert state()[:4] == ("1", "1", True, True)
        raise ZeroDivisionError
    assert state() == before


def test_there_are_no_progress_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with offline():
        # Not even those that are asked for.
        assert list(tqdm.tqdm(range(3), disable=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    assert list(tqdm.tqdm(range(3))) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err


def test_the_room_is_entered_without_torch() -> None:
    code = "import sys, odp.evaluation; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "odp" in loaded
    assert not loaded & {"torch", "transformers", "lm_eval", "datasets", "gguf", "onnx"}
