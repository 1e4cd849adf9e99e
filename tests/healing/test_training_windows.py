"""Windows: full, shuffled, endless, and the same ones after a restart."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from odp import OdpError
from odp.healing import TrainingWindows

from ..evaluation.tiny_models import prose, tokenizer


def windows(text: str | Path, seed: int = 0, begin: bool = True) -> TrainingWindows:
    return TrainingWindows([text], tokenizer(adds_begin=begin), context=8, seed=seed)


def taken(windows: TrainingWindows, count: int, position: int = 0) -> list[list[int]]:
    drawn = windows.drawn_from(position)
    return [window.tolist() for window in itertools.islice(drawn, count)]


def test_an_epoch_has_every_window_once_and_the_next_one_in_another_order() -> None:
    source = windows(prose(70))
    assert source.count is None
    drawn = taken(source, 31)
    assert source.count == 10
    first, second = drawn[:10], drawn[10:20]
    assert sorted(first) == sorted(second) and first != second
    ids = tokenizer()(prose(70))["input_ids"]
    assert sorted(first) == sorted([0, *ids[i : i + 7]] for i in range(0, 70, 7))


def test_without_a_begin_token_there_is_none() -> None:
    (window,) = taken(windows(prose(8), begin=False), 1)
    assert window == tokenizer()(prose(8))["input_ids"]


@pytest.mark.parametrize("position", [0, 3, 10, 17, 45])
def test_a_restart_draws_what_would_have_come(position: int) -> None:
    whole = taken(windows(prose(70)), position + 15)
    assert taken(windows(prose(70)), 15, position) == whole[position:]
    used = windows(prose(70))
    taken(used, 12)
    assert taken(used, 15, position) == whole[position:]


def test_the_seed_decides_the_order() -> None:
    assert taken(windows(prose(70)), 10) != taken(windows(prose(70), seed=1), 10)


def test_a_long_file_is_shuffled_within_a_buffer(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("\n".join(prose(70, seed=seed) for seed in range(60)))
    drawn = taken(windows(file), 600)
    ids = tokenizer()(file.read_text())["input_ids"]
    assert sorted(drawn) == sorted([0, *ids[i : i + 7]] for i in range(0, 4200, 7))
    assert drawn[0][0] == 0 and isinstance(drawn[0], list)


def test_windows_are_of_int64() -> None:
    assert next(windows(prose(9)).drawn_from(0)).dtype == torch.int64


def test_bad_texts(tmp_path: Path) -> None:
    with pytest.raises(OdpError, match=r"training text .* has 5 tokens, and one window needs 8"):
        windows(prose(5)).check()
    with pytest.raises(OdpError, match="is empty"):
        windows(" ").check()
    with pytest.raises(OdpError, match="cannot read text"):
        windows(tmp_path / "missing.txt").check()
    (tmp_path / "latin").write_bytes(b"caf\xe9 " * 9)
    with pytest.raises(OdpError, match="not UTF-8"):
        windows(tmp_path / "latin").check()
    with pytest.raises(OdpError, match="at least one text"):
        TrainingWindows([], tokenizer(), context=8, seed=0)


def test_the_tokenizer_of_another_model_is_noticed() -> None:
    source = TrainingWindows([prose(70)], tokenizer(), context=8, seed=0, vocabulary=20)
    with pytest.raises(OdpError, match="the tokenizer is not that of this model"):
        source.check()
