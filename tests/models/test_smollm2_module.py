"""SmolLM2 as a torch module that keeps its class: no measurable loss, without healing."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import odp
from odp.evaluation import Text, evaluate, load_language_model
from odp.rewriter.statistics import statistics

pytestmark = pytest.mark.slow

PASSES = "rsqrt,exp,rope,sigmoid"
PROMPTS = ("The capital of France is", "Water boils at", "def fibonacci(n):", "Ice is less dense")


@pytest.fixture(scope="module")
def texts(smollm2: ModuleType) -> list[Text]:
    """What the example scores, none of which it calibrates on."""
    return [Text(name, text) for name, text in smollm2.held_out_texts().items()]


@pytest.fixture(scope="module")
def loaded(smollm2: ModuleType, smollm2_weights: Path) -> Any:
    return load_language_model(smollm2_weights, dtype="float32")


@pytest.fixture(scope="module")
def result(loaded: Any, smollm2: ModuleType) -> odp.RewriteResult:
    return odp.rewrite(
        loaded.model,
        PASSES,
        calibration=[smollm2.calibration_text()],
        tokenizer=loaded.tokenizer,
        context=512,
        samples=8,
        measure=False,
        share_parameters=True,
    )


def test_every_site_is_found_and_nothing_is_left(result: odp.RewriteResult) -> None:
    assert result.report.model.transcendental_after == {}
    found = statistics(result.report)
    assert (found.norms, found.softmaxes, found.activations) == (61, 30, 30)
    assert found.parts() == "61 norms, 30 softmaxes, 30 activations, 1 rotary embedding"


def test_no_measurable_loss(loaded: Any, result: odp.RewriteResult, texts: list[Text]) -> None:
    found = evaluate(
        loaded.model,
        {"rational": result.model},
        loaded.tokenizer,
        texts,
        context=512,
        stride=256,
        max_tokens=1024,
        prompts=PROMPTS,
        new_tokens=24,
        layers=False,
        speed=False,
    )
    for difference in found.variants[0].differences.values():
        assert abs(difference.perplexity_change) <= 5e-4
        assert difference.mean_kl <= 1e-5
        assert difference.top1 >= 0.999
    assert all(one.answers["rational"].is_identical for one in found.generations)


def test_masks_and_2048_tokens(loaded: Any, result: odp.RewriteResult, texts: list[Text]) -> None:
    """Domains were calibrated on windows of 512 tokens."""
    found = evaluate(
        loaded.model,
        {"rational": result.model},
        loaded.tokenizer,
        texts[:1],
        context=2048,
        stride=1024,
        max_tokens=2048,
        layers=False,
        speed=False,
    )
    assert found.variants[0].difference.mean_kl <= 1e-5
    assert found.variants[0].difference.top1 >= 0.999
