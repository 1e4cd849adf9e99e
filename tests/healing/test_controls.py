"""The four models side by side: the numbers are those of the formulas, the texts are kept apart."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from odp import OdpError
from odp.evaluation import Text
from odp.healing.controls import (
    CONTROL,
    HEALED,
    SURGERY,
    Controls,
    measure_controls,
    prompts_of,
)
from odp.healing.controls_table import render_controls
from odp.healing.diversity import diversity

from ..evaluation.tiny_models import perturbed, prose, tokenizer
from .rewritten_models import coarse, original

TRAINING, OTHER = Text("train", prose(120)), Text("other", prose(120, seed=1))


def test_repetition_and_distinct_runs() -> None:
    # Runs of 4: 1234 2341 3412 4123 1234; one of five came before.
    found = diversity([[1, 2, 3, 4, 1, 2, 3, 4], [5, 6, 7, 8]])
    assert found.repetition == pytest.approx((1 / 5 + 0) / 2)
    assert found.distinct == (8 / 12, 7 / 10, 6 / 8)
    assert (found.answers, found.tokens) == (2, 12)


def test_answers_too_short_to_repeat_anything() -> None:
    assert diversity([[1, 2], []]).repetition is None
    assert diversity([[1, 2], []]).distinct == (1.0, 1.0, None)
    assert diversity([]).distinct == (None, None, None)
    assert diversity([[7] * 20]).repetition == 1 - 1 / 17


@pytest.fixture(scope="module")
def controls() -> Controls:
    variants: dict[str, Any] = {
        CONTROL: perturbed(original(), 1e-3),
        SURGERY: coarse(),
        HEALED: perturbed(original(), 1e-2),
    }
    return measure_controls(
        original(),
        variants,
        tokenizer(),
        training=[TRAINING],
        held_out=[OTHER],
        prompts=["w1 w2 w3", "w4"],
        context=32,
        new_tokens=8,
    )


def test_every_model_is_scored_on_every_text(controls: Controls) -> None:
    assert [record.name for record in controls.models()] == ["original", CONTROL, SURGERY, HEALED]
    assert (controls.training, controls.held_out) == (["train"], ["other"])
    for record in controls.models():
        assert list(record.texts) == ["train", "other"]
    assert list(controls.diversity) == ["original", CONTROL, SURGERY, HEALED]
    assert all(found.answers == 2 for found in controls.diversity.values())


def test_recovered_is_a_share_of_the_loss(controls: Controls) -> None:
    for name, recovered in controls.recovered.items():
        start, _, broken, healed = (
            math.log(record.texts[name].perplexity) for record in controls.models()
        )
        if broken > start:
            assert recovered == pytest.approx((broken - healed) / (broken - start))
        else:
            assert recovered is None


def test_json_and_table(controls: Controls) -> None:
    tree = json.loads(controls.to_json())
    assert tree["held_out"] == ["other"]
    assert tree["evaluation"]["original"]["texts"]["train"]["tokens"] == 119
    assert len(tree["diversity"][SURGERY]["distinct"]) == 3
    console = Console(file=io.StringIO(), width=120)
    render_controls(controls, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "held out" in printed and "trained on" in printed and "distinct-3" in printed
    for record in controls.models():
        assert record.name in printed


def test_a_text_cannot_be_on_both_sides() -> None:
    with pytest.raises(OdpError, match="'copy' is held out and trained on"):
        measure_controls(
            original(),
            {SURGERY: coarse(), HEALED: coarse()},
            tokenizer(),
            training=[TRAINING],
            held_out=[Text("copy", TRAINING.text)],
        )


def test_prompts_are_beginnings_of_lines() -> None:
    lines = "\n".join(f"line {number} " + "word " * 20 for number in range(10))
    found = prompts_of([Text("a", lines), Text("b", "one endless line " * 40)], 4)
    assert len(found) == 4 and all(len(prompt.split()) == 12 for prompt in found)
    assert found[0].startswith("line 0 ") and found[1].startswith("line 5 ")
    assert found[2].startswith("one endless")
    assert prompts_of([Text("c", "short")], 4) == ["short"]
