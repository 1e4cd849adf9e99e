"""The training: it heals, it can be stopped and continued, and it says what went wrong."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from odp import OdpError
from odp.backends import whole_files
from odp.healing import Checkpoints, attach_adapter, read_log, sharing_copy, train_adapter
from odp.healing.adapters import trainable

from ..evaluation.tiny_models import gpt2
from .rewritten_models import SETTINGS, coarse, heal, original, windows


class Stopped(Exception):
    pass


def stop_at(step: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done == step:
            raise Stopped

    return progress


def numbers(adapted: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainable(adapted).items()}


def assert_same(first: Any, second: Any) -> None:
    one, other = numbers(first), numbers(second)
    assert one.keys() == other.keys()
    for name in one:
        # The same operations in the same order; a library may still choose another kernel.
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def healed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    folder = tmp_path_factory.mktemp("healed")
    adapted, trained = heal(folder, checkpoint_every=5)
    return adapted, trained, folder


def test_it_heals_and_leaves_everything_but_the_adapter_alone(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=40, dropout=0.0)
    before = {name: p.clone() for name, p in original().named_parameters()}
    adapted, trained = heal(tmp_path, settings)
    entries = read_log(tmp_path / "log.jsonl")
    first, last = (sum(entry["kl"] for entry in part) / 5 for part in (entries[:5], entries[-5:]))
    assert last < 0.9 * first
    for name, parameter in original().named_parameters():
        assert torch.equal(parameter, before[name])
    assert trained.steps == 40 and trained.resumed_at is None
    assert trained.windows == 160 and trained.epochs is not None and trained.epochs > 3
    assert not any(module.training for module in adapted.modules())


def test_the_log_has_every_step_and_every_loss(healed: tuple[Any, Any, Path]) -> None:
    _, trained, folder = healed
    entries = read_log(folder / "log.jsonl")
    assert [entry["step"] for entry in entries] == list(range(1, 13))
    for entry in entries:
        assert entry["learning_rate"] == SETTINGS.rate(entry["step"])
        assert entry["loss"] == pytest.approx(entry["kl"])
        assert entry["tokens"] == entry["step"] * 4 * 32
        assert entry["gradient_norm"] > 0 and "features" not in entry
    assert (trained.first, trained.last) == (entries[0], entries[-1])


# 3: before the first checkpoint; 7: between two; 12: when all is done.
@pytest.mark.parametrize("stopped", [3, 7, 10, 12])
def test_a_stopped_run_ends_like_one_that_was_not(
    healed: tuple[Any, Any, Path], tmp_path: Path, stopped: int
) -> None:
    with pytest.raises(Stopped):
        heal(tmp_path, checkpoint_every=5, progress=stop_at(stopped))
    # Whatever is drawn in between is not the training's business.
    torch.manual_seed(99)
    adapted, trained = heal(tmp_path, checkpoint_every=5)
    assert trained.resumed_at == {3: None, 7: 5, 10: 10, 12: 12}[stopped]
    assert_same(adapted, healed[0])
    mine, theirs = (read_log(folder / "log.jsonl") for folder in (tmp_path, healed[2]))
    assert [entry["step"] for entry in mine] == [entry["step"] for entry in theirs]
    assert mine[-1]["loss"] == pytest.approx(theirs[-1]["loss"], rel=1e-5)


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(
    healed: tuple[Any, Any, Path], tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        heal(tmp_path, checkpoint_every=3, progress=stop_at(8))
    file = tmp_path / "checkpoints" / "step-00000006.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    adapted, trained = heal(tmp_path, checkpoint_every=3)
    assert trained.resumed_at == 3
    assert "step-00000006.json' is damaged" in trained.warnings[0]
    assert_same(adapted, healed[0])


def test_other_settings_are_refused(healed: tuple[Any, Any, Path]) -> None:
    settings = dataclasses.replace(SETTINGS, steps=24)
    with pytest.raises(OdpError, match="was begun with steps 12, and now it is 24"):
        heal(healed[2], settings)


def test_checkpoints_of_another_model_are_refused(healed: tuple[Any, Any, Path]) -> None:
    settings = dataclasses.replace(SETTINGS, targets=("c_attn",))
    adapted = attach_adapter(gpt2(), settings)
    file = max((healed[2] / "checkpoints").glob("*.json"))
    assert json.loads(file.read_text())["state"]["settings"]["rank"] == 4
    with pytest.raises(OdpError, match="begun with targets"):
        train_adapter(adapted, gpt2(), windows(), settings, healed[2], device="cpu")


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, dropout=0.0, steps=3)
    parts = dataclasses.replace(settings, batch_size=2, accumulation=2)
    whole, _ = heal(tmp_path / "whole", settings)
    split, _ = heal(tmp_path / "split", parts)
    # Sums of float32 in another order, through AdamW, which divides by small numbers at first.
    for name, number in numbers(whole).items():
        torch.testing.assert_close(numbers(split)[name], number, rtol=1e-2, atol=1e-4)


def test_all_losses_are_logged_and_add_up(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, language_model=0.5, kl=2.0, features=3.0, steps=2)
    heal(tmp_path, settings)
    for entry in read_log(tmp_path / "log.jsonl"):
        parts = 0.5 * entry["language_model"] + 2 * entry["kl"] + 3 * entry["features"]
        assert entry["loss"] == pytest.approx(parts, rel=1e-5)
        assert entry["features"] > 0


def test_the_text_alone_needs_no_original(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, language_model=1.0, kl=0.0, steps=2)
    heal(tmp_path, settings)
    assert all("kl" not in entry for entry in read_log(tmp_path / "log.jsonl"))


def test_an_original_has_nothing_to_heal(healed: tuple[Any, Any, Path], tmp_path: Path) -> None:
    _, trained = heal(tmp_path, dataclasses.replace(SETTINGS, dropout=0.0), original())
    assert trained.first["kl"] == pytest.approx(0, abs=1e-6)
    # AdamW makes steps of one length, also of gradients that are rounding only.
    assert trained.last["kl"] < 0.1 * healed[1].first["kl"]


@pytest.mark.parametrize(
    ("target", "dtype"), [("torch", "bfloat16"), ("torch", "float16"), ("triton", "bfloat16")]
)
def test_mixed_precision(tmp_path: Path, target: str, dtype: str) -> None:
    settings = dataclasses.replace(SETTINGS, dtype=dtype, steps=3)
    adapted, trained = heal(tmp_path, settings, coarse(target))
    assert all(p.dtype == torch.float32 for p in trainable(adapted).values())
    assert math.isfinite(trained.last["kl"])
    ids = torch.zeros(1, 4, dtype=torch.int64)
    # The model is given back as it came.
    assert adapted(input_ids=ids).logits.dtype == torch.float32


def test_gradient_checkpointing_computes_the_same(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, dropout=0.0, steps=3)
    less = dataclasses.replace(settings, gradient_checkpointing=True)
    plain, _ = heal(tmp_path / "plain", settings)
    again, _ = heal(tmp_path / "again", less)
    assert_same(again, plain)
    assert not again.get_input_embeddings()._forward_hooks


def broken_at(model: Any, call: int) -> Any:
    """A copy of a model that answers nan from some call on."""
    made = attach_adapter(sharing_copy(model), SETTINGS)
    calls = 0

    def hook(module: Any, arguments: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= call:
            output.logits = output.logits * math.nan
        return output

    made.register_forward_hook(hook)
    return made


def test_nan_stops_with_the_step_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    adapted = broken_at(coarse(), 6)
    with pytest.raises(OdpError) as raised:
        train_adapter(
            adapted,
            original(),
            windows(),
            SETTINGS,
            tmp_path,
            device="cpu",
            checkpoint_every=2,
        )
    message = str(raised.value)
    assert message.startswith("the loss is nan at step 6; the last good checkpoint is of step 4")
    assert str(tmp_path / "checkpoints") in message and "smaller learning rate" in message
    assert all(torch.isfinite(p).all() for p in trainable(adapted).values())
    assert [entry["step"] for entry in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5]
    # The checkpoint is good, and the training goes on from it.
    assert heal(tmp_path, checkpoint_every=2)[1].resumed_at == 4


def test_a_checkpoint_whose_numbers_give_nan_is_not_called_good(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, learning_rate=1e30, warm_up=0.0)
    with pytest.raises(OdpError) as raised:
        heal(tmp_path, settings, checkpoint_every=1)
    # The first update goes too far, and the second step is what notices.
    assert "at step 2; there is no good checkpoint before it; begin again" in str(raised.value)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [1]


def test_nan_before_any_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(OdpError, match="at step 1; there is no good checkpoint before it"):
        train_adapter(
            broken_at(coarse(), 1), original(), windows(), SETTINGS, tmp_path, device="cpu"
        )


def test_a_full_disk_stops_it_and_what_was_saved_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_at(done: int, total: int) -> None:
        if done == 4:
            monkeypatch.setattr(whole_files.tempfile, "NamedTemporaryFile", full)

    def full(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OdpError, match=r"step-00000006.safetensors': the disk is full"):
        heal(tmp_path, checkpoint_every=3, progress=full_at)
    monkeypatch.undo()
    assert heal(tmp_path, checkpoint_every=3)[1].resumed_at == 3


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(OdpError, match=r"cannot write '.*log.jsonl': is a directory"):
        heal(tmp_path)


def test_a_model_without_an_adapter_is_refused(tmp_path: Path) -> None:
    frozen = copy.deepcopy(original()).requires_grad_(False)
    with pytest.raises(OdpError, match="attach an adapter first"):
        train_adapter(frozen, original(), windows(), SETTINGS, tmp_path, device="cpu")
