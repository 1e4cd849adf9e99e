"""Settings: the schedule, the presets, and what they refuse."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest

from odp import OdpError
from odp.healing import PRESETS, HealingSettings, preset
from odp.healing.settings import UNKNOWN_OF_SEED


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    settings = HealingSettings(steps=100, warm_up=0.1, learning_rate=2.0, final_learning_rate=0.25)
    rates = [settings.rate(step) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(0.5 + 1.5 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert all(b < a for a, b in itertools.pairwise(rates[10:]))
    assert 0.5 < rates[-1] < 0.51


@pytest.mark.parametrize("warm_up", [0.0, 1.0])
def test_every_step_has_a_rate(warm_up: float) -> None:
    settings = HealingSettings(steps=7, warm_up=warm_up)
    assert all(0 < settings.rate(step) <= settings.learning_rate for step in range(1, 8))


def test_settings_survive_json() -> None:
    for settings in PRESETS.values():
        assert HealingSettings.from_dict(settings.to_dict()) == settings


def test_the_preset_of_the_seed_says_which_numbers_are_not_the_seeds() -> None:
    seed = preset("seed")
    # Known: LoRA, not DoRA, on these layers, and that nothing tied the model to the original.
    assert seed.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (seed.language_model, seed.kl, seed.features) == (1.0, 0.0, 0.0)
    names = {field.name for field in dataclasses.fields(seed)}
    assert names - set(UNKNOWN_OF_SEED) == {
        *("targets", "magnitudes", "language_model", "kl", "features")
    }
    assert seed.magnitudes == 0


def test_every_setting_is_documented() -> None:
    for field in dataclasses.fields(HealingSettings):
        assert f"        {field.name}: " in (HealingSettings.__doc__ or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"context": 1}, "context must be at least 2"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive number"),
        ({"learning_rate": 1e300}, "learning_rate must be a positive number up to"),
        ({"kl": -1.0}, "kl must not be negative"),
        ({"dropout": 1.0}, "dropout is a share"),
        ({"warm_up": 1.5}, "warm_up is a share"),
        ({"kl": 0.0}, "all losses have weight 0"),
        ({"targets": ()}, "name at least one layer"),
        ({"dtype": "int8"}, "dtype is float32, bfloat16, float16"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OdpError, match=message):
        HealingSettings(**options)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(OdpError, match="there are default, layerwise, seed"):
        preset("best")
