"""A tiny language model, the same after a coarse surgery, and settings that heal it in seconds."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import odp
from odp.healing import (
    HealingSettings,
    TrainingWindows,
    attach_adapter,
    sharing_copy,
    train_adapter,
)
from odp.healing.training import Trained

from ..evaluation.tiny_models import VOCABULARY, llama, prose, tokenizer

__all__ = ["SETTINGS", "TEXT", "coarse", "heal", "original", "windows"]

TEXT = prose(1500)
SETTINGS = HealingSettings(
    rank=4,
    alpha=8.0,
    dropout=0.1,
    learning_rate=3e-3,
    steps=12,
    batch_size=4,
    context=32,
)


@functools.cache
def original() -> Any:
    """A Llama of two layers; not to be changed."""
    return llama(layers=2)


@functools.cache
def coarse(target: str = "torch") -> Any:
    """The original after a surgery that can be felt; not to be changed."""
    passes = "rsqrt,sigmoid" if target == "torch" else "rms_norm,silu"
    return odp.rewrite(
        original(),
        passes,
        calibration=[TEXT],
        tokenizer=tokenizer(),
        context=32,
        samples=4,
        error=0.2,
        target=target,  # type: ignore[arg-type]
        measure=False,
        share_parameters=True,
    ).model


def windows(settings: HealingSettings = SETTINGS, text: str | Path = TEXT) -> TrainingWindows:
    """Windows of a text of random words."""
    return TrainingWindows(
        [text],
        tokenizer(),
        context=settings.context,
        seed=settings.seed,
        vocabulary=VOCABULARY,
    )


def heal(
    folder: Path, settings: HealingSettings = SETTINGS, model: Any = None, **options: Any
) -> tuple[Any, Trained]:
    """A fresh adapter on the coarse model (or another), trained; and what the training says."""
    adapted = attach_adapter(sharing_copy(coarse() if model is None else model), settings)
    trained = train_adapter(
        adapted, original(), windows(settings), settings, folder, device="cpu", **options
    )
    return adapted, trained
