"""The result as JSON and back."""

from __future__ import annotations

import json

from odp.evaluation import Evaluation, Text, evaluate

from .sample_evaluation import sample
from .tiny_models import llama, perturbed, prose, tokenizer


def test_what_is_written_can_be_read_again() -> None:
    assert Evaluation.from_json(sample().to_json()) == sample()


def test_infinity_is_null_and_everything_else_is_what_it_is() -> None:
    tree = json.loads(sample().to_json(), parse_constant=lambda name: 1 / 0)
    broken = tree["variants"][1]
    assert broken["total"] == {"tokens": 120, "perplexity": None, "not_finite": 7}
    assert broken["layer_errors"] == [1e-3, None]
    assert tree["variants"][0]["difference"]["mean_kl"] == 2e-5
    assert tree["tasks"][0]["stderr"]["broken"] is None
    assert tree["generations"][0]["answers"]["broken"]["first_difference"] == 1


def test_a_real_evaluation_survives() -> None:
    original = llama()
    found = evaluate(
        original,
        {"other": perturbed(original)},
        tokenizer(),
        [Text("text", prose(80))],
        prompts=["w1"],
        new_tokens=3,
    )
    assert Evaluation.from_json(found.to_json()) == found
