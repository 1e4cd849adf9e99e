"""Healing a BitNet trains the adapters that see quantised activations, and so can be merged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from odp.healing import (
    Identity,
    TrainingWindows,
    attach_adapter,
    load_adapter,
    save_adapter,
    sharing_copy,
    train_adapter,
)
from odp.healing.bit_linear import adapted_layers
from odp.healing.merging import merge_adapters

from .rewritten_models import SETTINGS
from .tiny_bitnet import KINDS, VOCABULARY, bitnet, logits, relative, tokenizer, tokens


@pytest.mark.parametrize("kind", KINDS)
def test_trained_saved_loaded_and_merged(kind: str, tmp_path: Path) -> None:
    model: Any = bitnet(kind)
    settings = dataclasses.replace(SETTINGS, steps=3, language_model=1.0, dropout=0.0)
    words = " ".join(f"w{number % 50}" for number in range(400))
    windows = TrainingWindows([words], tokenizer(), context=32, seed=0, vocabulary=VOCABULARY)
    adapted = attach_adapter(sharing_copy(model), settings)
    # Four layers of attention in each of two blocks.
    assert len(list(adapted_layers(adapted))) == 8
    with torch.compiler.set_stance("force_eager"):
        train_adapter(adapted, model, windows, settings, tmp_path / "run", device="cpu")
    ids = tokens()
    healed = logits(adapted, ids)
    assert relative(healed, logits(model, ids)) > 1e-4
    save_adapter(adapted, tmp_path / "adapter", Identity.of(model))
    loaded = load_adapter(sharing_copy(model), tmp_path / "adapter")
    assert torch.equal(logits(loaded, ids), healed)
    # Rounding of float32, as issue 7 demands of merging.
    assert relative(logits(merge_adapters(loaded), ids), healed) < 1e-5
