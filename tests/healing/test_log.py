"""The log: every step once, also after a kill, and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from odp import OdpError
from odp.healing import plot_logs, read_log
from odp.healing.log import TrainingLog, check_plot

ENTRIES = [
    {"step": step, "loss": 1 / step, "kl": 0.5 / step, "language_model": 3.0, "learning_rate": 0.1}
    for step in range(1, 6)
]


def write(path: Path) -> TrainingLog:
    log = TrainingLog(path)
    for entry in ENTRIES:
        log.append(entry)
    return log


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read_log(write(tmp_path / "log.jsonl").path) == ENTRIES


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl")
    log.path.write_text(log.path.read_text()[:-9])
    assert read_log(log.path) == ENTRIES[:-1]
    log.keep_until(3)
    log.append(ENTRIES[3])
    assert read_log(log.path) == ENTRIES[:4]


def test_what_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(OdpError, match="cannot read log"):
        read_log(tmp_path / "missing")
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"loss": 1}) + "\n" + json.dumps(ENTRIES[0]) + "\n")
    with pytest.raises(OdpError, match=r"line 1 of .* is not of a log of healing"):
        read_log(other)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_pictures(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"losses.{ending}"
    plot_logs({"surgery": ENTRIES, "control": [], "other": ENTRIES[:2]}, path)
    begin = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(begin)


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(OdpError, match="no step has been logged"):
        plot_logs({"surgery": []}, tmp_path / "losses.png")
    with pytest.raises(OdpError, match="must end in"):
        check_plot(tmp_path / "losses.gif")
