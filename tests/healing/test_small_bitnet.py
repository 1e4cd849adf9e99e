"""The BitNet that is trained here: reproducible, learns, and is an ordinary folder of a model."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from transformers.integrations.bitnet import AutoBitLinear

from odp.evaluation import load_language_model

EXAMPLES = Path(__file__).parents[2] / "examples"
PROSE = "The quick brown fox jumps over the lazy dog, and the dog does not mind. " * 60


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("small_bitnet", EXAMPLES / "small_bitnet.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclass looks itself up there.
    sys.modules["small_bitnet"] = module
    spec.loader.exec_module(module)
    return module


def recipe(example: ModuleType, **changes: Any) -> Any:
    tiny = {"steps": 25, "batch": 4, "context": 32, "vocabulary": 270, "hidden": 32}
    tiny |= {"intermediate": 64, "layers": 2, "heads": 2, "key_value_heads": 1}
    return example.Recipe(**{**tiny, **changes})


def test_the_same_seed_gives_the_same_weights_and_the_loss_falls(example: ModuleType) -> None:
    first, tokenizer, losses = example.train(recipe(example), PROSE)
    second, _, again = example.train(recipe(example), PROSE)
    other, _, _ = example.train(recipe(example, seed=1), PROSE)
    assert example.digest(first) == example.digest(second) and losses == again
    assert example.digest(first) != example.digest(other)
    assert losses[-1] < losses[0] - 1
    text = "Ünïcode, and <b>bytes</b>\n"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert sum(isinstance(m, AutoBitLinear) for m in first.modules()) == 14


def test_what_is_saved_is_loaded_again(example: ModuleType, tmp_path: Path) -> None:
    model, tokenizer, _ = example.train(recipe(example, steps=2), PROSE)
    example.save(tmp_path / "model", model, tokenizer, {"steps": 2})
    assert json.loads((tmp_path / "model" / "training.json").read_text()) == {"steps": 2}
    loaded = load_language_model(tmp_path / "model")
    assert example.digest(loaded.model) == example.digest(model)
    layers = [m for m in loaded.model.modules() if isinstance(m, AutoBitLinear)]
    assert layers and all(one.online_quant for one in layers)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_exists_is_not_overwritten(example: ModuleType, tmp_path: Path) -> None:
    outcome = CliRunner().invoke(example.main, ["train", str(tmp_path)])
    assert outcome.exit_code == 1 and "exists; name a new folder" in outcome.output


def test_short_texts_are_refused(example: ModuleType) -> None:
    with pytest.raises(click.ClickException, match="one window needs 33"):
        example.train(recipe(example), "Short.")
    assert torch.get_num_threads() == 1
