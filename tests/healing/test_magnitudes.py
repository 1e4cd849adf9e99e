"""DoRA: one magnitude for each output of a layer, trained at a rate that is relative to it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from odp import OdpError
from odp.healing import attach_adapter, sharing_copy
from odp.healing.adapters import parameter_groups, trainable

from .rewritten_models import SETTINGS, coarse, heal
from .test_adapters import IDS, logits
from .test_training import Stopped, assert_same, numbers, stop_at
from .tiny_bitnet import bitnet

DORA = dataclasses.replace(SETTINGS, magnitudes=3.0, dropout=0.0)


def test_fresh_magnitudes_are_those_of_the_weights() -> None:
    model = coarse()
    made = attach_adapter(sharing_copy(model), DORA)
    torch.testing.assert_close(logits(made), logits(model), rtol=1e-4, atol=1e-5)
    names = [name for name in trainable(made) if "magnitude" in name]
    assert len(trainable(made)) == 24 and len(names) == 8
    made(input_ids=IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None for p in trainable(made).values())


def test_a_step_is_relative_to_the_size() -> None:
    made = attach_adapter(sharing_copy(coarse()), DORA)
    parameters = trainable(made)
    groups = parameter_groups(parameters, 3.0)
    assert sum(len(group["params"]) for group in groups) == len(parameters)
    for group in groups[1:]:
        (magnitude,) = group["params"]
        assert group["share"] == pytest.approx(3.0 * float(magnitude.detach().abs().mean()))
    assert parameter_groups({"lora_A": torch.nn.Parameter(torch.ones(2))}, 0.0)[0]["share"] == 1.0


def test_the_first_update_has_that_size(tmp_path: Path) -> None:
    settings = dataclasses.replace(DORA, steps=1, warm_up=0.0)
    fresh = numbers(attach_adapter(sharing_copy(coarse()), settings))
    trained, _ = heal(tmp_path, settings)
    for name, after in numbers(trained).items():
        if "magnitude" in name:
            # AdamW's first update is the rate, whatever the gradient, unless that is tiny.
            wanted = settings.learning_rate * 3.0 * float(fresh[name].abs().mean())
            largest = float((after - fresh[name]).abs().max())
            assert largest == pytest.approx(wanted, rel=1e-2)


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole, _ = heal(tmp_path / "whole", DORA)
    with pytest.raises(Stopped):
        heal(tmp_path / "parts", DORA, checkpoint_every=3, progress=stop_at(7))
    continued, record = heal(tmp_path / "parts", DORA, checkpoint_every=3)
    assert record.resumed_at == 6
    assert_same(whole, continued)


def test_layers_of_a_bitnet_have_none() -> None:
    with pytest.raises(OdpError, match="magnitudes"):
        attach_adapter(bitnet(), DORA)


def test_a_negative_rate_is_refused() -> None:
    with pytest.raises(OdpError, match="magnitudes must not be negative"):
        dataclasses.replace(SETTINGS, magnitudes=-1.0)
