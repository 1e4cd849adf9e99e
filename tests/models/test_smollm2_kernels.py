"""SmolLM2 with fused operators: the quality bars of the torch target, and the same counts."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import odp
from odp.backends.torch.discovery import Operations
from odp.evaluation import Text, evaluate, load_language_model
from odp.rewriter.statistics import statistics

pytestmark = pytest.mark.slow

PROMPTS = ("The capital of France is", "Water boils at", "def fibonacci(n):", "Ice is less dense")
OPERATORS = {"rms_norm": 61, "swiglu": 30, "attention": 30, "rope": 30}


@pytest.fixture(scope="module")
def loaded(smollm2_weights: Path) -> Any:
    return load_language_model(smollm2_weights, dtype="float32")


@pytest.fixture(scope="module")
def result(loaded: Any, smollm2: ModuleType) -> odp.RewriteResult:
    return odp.rewrite(
        loaded.model,
        "rsqrt,exp,rope,sigmoid",
        target="triton",
        calibration=[smollm2.calibration_text()],
        tokenizer=loaded.tokenizer,
        context=64,
        samples=1,
        measure=False,
        share_parameters=True,
    )


def test_every_site_is_an_operator(result: odp.RewriteResult, loaded: Any) -> None:
    assert result.report.model.transcendental_after == {}
    ids = loaded.tokenizer("Ice is less dense", return_tensors="pt").input_ids
    with Operations() as operations:
        result.model(ids)
    ran = {k.removeprefix("odp::"): n for k, n in operations.all.items() if k.startswith("odp::")}
    assert ran == OPERATORS
    assert operations.transcendental == {}
    found = statistics(result.report)
    assert found.parts() == "61 norms, 30 softmaxes, 30 activations, 1 rotary embedding"


def test_no_measurable_loss(loaded: Any, result: odp.RewriteResult, smollm2: ModuleType) -> None:
    texts = [Text(name, text) for name, text in smollm2.held_out_texts().items()]
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
