"""Checkpoints are whole or do not exist, and damage is noticed."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from odp import OdpError
from odp.backends import whole_files
from odp.healing import Checkpoints

STATE = {"position": 7, "settings": {"rank": 4}}


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"a": torch.full((3, 2), float(step)), "b": torch.tensor(step, dtype=torch.bfloat16)}


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    found = Checkpoints(tmp_path / "checkpoints")
    for step in (10, 20, 30):
        found.save(step, tensors(step), STATE)
    return found


def test_the_last_one_comes_back_and_old_ones_go(saved: Checkpoints) -> None:
    assert saved.steps() == [20, 30]
    names = sorted(file.name for file in saved.folder.iterdir())
    assert names == [
        f"step-000000{step}.{ending}" for step in (20, 30) for ending in ("json", "safetensors")
    ]
    found = saved.latest()
    assert found is not None and (found.step, found.state) == (30, STATE)
    for name, tensor in tensors(30).items():
        assert (
            torch.equal(found.tensors[name], tensor) and found.tensors[name].dtype == tensor.dtype
        )
    assert saved.damaged == []


def test_nothing_was_ever_saved(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").latest() is None


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def change(file: Path) -> None:
    file.write_text(file.read_text().replace('"position": 7', '"position": 8'))


def remove(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("damage", "ending"),
    [
        (flip, "safetensors"),
        (cut, "safetensors"),
        (remove, "safetensors"),
        (cut, "json"),
        (change, "json"),
        (lambda file: file.write_text("[]"), "json"),
        (lambda file: file.write_bytes(b"\xff\xfe"), "json"),
    ],
)
def test_a_damaged_one_is_noticed_and_the_one_before_is_used(
    saved: Checkpoints, damage: Callable[[Path], Any], ending: str
) -> None:
    damage(saved.folder / f"step-00000030.{ending}")
    found = saved.latest()
    assert found is not None and found.step == 20
    (warning,) = saved.damaged
    assert "step-00000030.json' is damaged: " in warning


def test_tensors_without_their_json_are_no_checkpoint(saved: Checkpoints) -> None:
    # What a kill between the two files leaves.
    (saved.folder / "step-00000030.json").unlink()
    found = saved.latest()
    assert found is not None and found.step == 20 and saved.damaged == []


def test_all_damaged_is_an_error_that_says_what_to_do(saved: Checkpoints) -> None:
    for file in saved.folder.glob("*.safetensors"):
        flip(file)
    with pytest.raises(OdpError, match=r"no checkpoint .* can be used; .*remove the folder"):
        saved.latest()


def test_another_format_is_not_read(saved: Checkpoints) -> None:
    file = saved.folder / "step-00000030.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    assert (found := saved.latest()) is not None and found.step == 20


def test_leftovers_of_a_kill_are_removed(saved: Checkpoints) -> None:
    (saved.folder / ".odp-abc").write_text("half")
    saved.remove_leftovers()
    assert not list(saved.folder.glob(".odp-*")) and saved.steps() == [20, 30]


def test_a_full_disk_is_one_line_and_harms_nothing(
    saved: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(whole_files.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(OdpError, match="the disk is full"):
        saved.save(40, tensors(40), STATE)
    monkeypatch.undo()
    assert (found := saved.latest()) is not None and found.step == 30
