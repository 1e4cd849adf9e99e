"""The numbers of `evaluate` against a straightforward computation from all logits at once."""

from __future__ import annotations

import copy
import math
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from odp.evaluation import Evaluation, Text, evaluate

from .tiny_models import gpt2, llama, perturbed, prose, tokenizer

CONTEXT, STRIDE = 24, 10
TEXTS = [Text("first", prose(75, seed=1)), Text("second", prose(40, seed=2))]


@dataclass
class Straightforward:
    """Every scored position of one text: logits (positions, vocabulary), targets."""

    logits: Any
    targets: Any

    @classmethod
    def of(cls, model: Any, ids: list[int], begin: int | None) -> Straightforward:
        """One forward pass for each scored token, which sees what its window would show it."""
        rows, targets = [], []
        prefix = [] if begin is None else [begin]
        body = CONTEXT - len(prefix)
        for token in range(1 - len(prefix), len(ids)):
            # The first window ends at `body`, each later one STRIDE further.
            window = max(0, math.ceil((token + 1 - body) / STRIDE))
            seen = prefix + ids[window * STRIDE : token]
            with torch.no_grad():
                logits = model(torch.tensor([seen])).logits[0, -1].double().numpy()
            rows.append(logits)
            targets.append(ids[token])
        return cls(np.stack(rows), np.array(targets))

    @property
    def log_p(self) -> Any:
        below = self.logits - self.logits.max(-1, keepdims=True)
        return below - np.log(np.exp(below).sum(-1, keepdims=True))

    @property
    def loss(self) -> Any:
        return -self.log_p[np.arange(len(self.targets)), self.targets]


def run(original: Any, variants: dict[str, Any], **options: Any) -> Evaluation:
    settings = {"context": CONTEXT, "stride": STRIDE, "speed": False, **options}
    words = tokenizer(adds_begin=settings.pop("adds_begin", False))
    return evaluate(original, variants, words, TEXTS, **settings)


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("adds_begin", [False, True])
def test_numbers_are_those_of_all_logits(make: Any, adds_begin: bool) -> None:
    original = make()
    variant = perturbed(original, 0.1)
    found = run(original, {"variant": variant}, adds_begin=adds_begin)
    assert found.windows.begin_token == (0 if adds_begin else None)
    words, begin = tokenizer(), 0 if adds_begin else None
    exact = {}
    for text in TEXTS:
        ids = words(text.text)["input_ids"]
        exact[text.name] = [Straightforward.of(m, ids, begin) for m in (original, variant)]
    # The reference runs the models on other lengths, so its float32 matrix products round
    # otherwise.  A logit of these models (at most 10, of 32 products in each of 3 blocks) differs
    # by some 100 roundings of its size, a loss by at most twice as much, a divergence by less.
    allowed = 200 * 2.0**-24 * 10
    for name, (p, q) in {**exact, "all": exact["first"]}.items():
        if name == "all":
            p = Straightforward(*(np.concatenate(x) for x in _both(exact, 0)))
            q = Straightforward(*(np.concatenate(x) for x in _both(exact, 1)))
        before = found.original.total if name == "all" else found.original.texts[name]
        record = found.variants[0]
        after = record.total if name == "all" else record.texts[name]
        difference = record.difference if name == "all" else record.differences[name]
        assert before is not None and after is not None and difference is not None
        assert before.tokens == after.tokens == len(p.targets)
        assert before.perplexity == pytest.approx(math.exp(p.loss.mean()), rel=allowed)
        assert after.perplexity == pytest.approx(math.exp(q.loss.mean()), rel=allowed)
        change = math.expm1(q.loss.mean() - p.loss.mean())
        assert difference.perplexity_change == pytest.approx(change, abs=2 * allowed)
        kl = (np.exp(p.log_p) * (p.log_p - q.log_p)).sum(axis=-1)
        assert difference.mean_kl == pytest.approx(kl.mean(), abs=allowed)
        assert difference.max_kl == pytest.approx(kl.max(), abs=allowed)
        assert kl.mean() > 10 * allowed  # else nothing was tested
        best_p, best_q = (np.argsort(-x.log_p, axis=-1) for x in (p, q))
        assert difference.top1 == (best_p[:, 0] == best_q[:, 0]).mean()
        for k, share in ((5, difference.top5), (10, difference.top10)):
            shared = [len(set(a[:k]) & set(b[:k])) / k for a, b in zip(best_p, best_q, strict=True)]
            assert share == pytest.approx(np.mean(shared), abs=1e-12)
            assert 0 < share < 1
        norms = np.linalg.norm(p.logits, axis=-1), np.linalg.norm(q.logits, axis=-1)
        cosines = (p.logits * q.logits).sum(axis=-1) / (norms[0] * norms[1])
        # An error of the logits turns their direction by at most its norm over theirs.
        turned = 2 * allowed * math.sqrt(p.logits.shape[1]) / min(norm.min() for norm in norms)
        assert difference.cosine == pytest.approx(cosines.mean(), abs=turned)
        assert difference.min_cosine == pytest.approx(cosines.min(), abs=turned)
        assert 1 - cosines.mean() > 10 * turned


def _both(exact: dict[str, list[Straightforward]], index: int) -> list[list[Any]]:
    both = [pair[index] for pair in exact.values()]
    return [[text.logits for text in both], [text.targets for text in both]]


def test_models_that_are_equal_are_equal_exactly() -> None:
    original = gpt2()
    # Dropout would make any two runs differ; it is off while models are compared, and on again.
    original.train()
    found = run(original, {"copy": copy.deepcopy(original), "itself": original})
    for record in found.variants:
        assert record.texts == found.original.texts
        assert record.layer_errors == [0.0, 0.0]
        for difference in (*record.differences.values(), record.difference):
            assert difference is not None
            assert difference.perplexity_change == difference.mean_kl == difference.max_kl == 0
            assert difference.top1 == difference.top5 == difference.top10 == 1
            assert difference.cosine == difference.min_cosine == 1
    assert all(module.training for module in original.modules())


def test_a_bias_on_one_token_has_the_divergence_that_it_must_have() -> None:
    original = llama()
    favoured, size = 17, 2.0
    variant = copy.deepcopy(original)
    head = torch.nn.Linear(32, original.lm_head.out_features)
    with torch.no_grad():
        head.weight.copy_(original.lm_head.weight)
        head.bias.zero_()
        head.bias[favoured] = size
    variant.lm_head = head
    found = run(original, {"biased": variant}).variants[0]
    divergences = []
    for text in TEXTS:
        p = Straightforward.of(original, tokenizer()(text.text)["input_ids"], None)
        share = np.exp(p.log_p[:, favoured])
        # q = p * exp(size if favoured) / Z with Z = 1 - share + share * exp(size).
        divergences.append(np.log1p(share * math.expm1(size)) - size * share)
    expected = np.concatenate(divergences)
    # As above; the derivative of a divergence by a logit is at most 1.
    allowed = 200 * 2.0**-24 * 10
    assert found.difference is not None
    assert found.difference.mean_kl == pytest.approx(expected.mean(), abs=allowed)
    assert found.difference.max_kl == pytest.approx(expected.max(), abs=allowed)
    assert expected.mean() > 10 * allowed


def test_only_the_first_tokens_count() -> None:
    found = run(llama(), {"same": llama()}, max_tokens=30)
    assert {name: score.tokens for name, score in found.original.texts.items()} == {
        "first": 29,
        "second": 29,
    }
    assert found.original.total is not None and found.original.total.tokens == 58
    assert found.windows.max_tokens == 30


def test_positions_that_are_not_finite_are_counted() -> None:
    original = llama()
    broken = copy.deepcopy(original)

    def spoil(module: Any, arguments: Any, logits: torch.Tensor) -> None:
        logits[:, 10:] = math.nan

    broken.lm_head.register_forward_hook(spoil)
    text = [Text("text", prose(20))]
    found = evaluate(
        original, {"broken": broken}, tokenizer(), text, context=20, stride=10, speed=False
    )
    record = found.variants[0]
    # One window; its positions 0 to 18 predict a token.
    assert record.total is not None and record.difference is not None
    assert record.total.not_finite == 9
    assert record.total.perplexity == record.difference.perplexity_change == math.inf
    assert record.difference.mean_kl == record.difference.max_kl == math.inf
    assert record.difference.top1 == record.difference.top5 == pytest.approx(10 / 19)
    assert found.original.total is not None and found.original.total.not_finite == 0


def test_half_precision_is_compared_with_single_precision() -> None:
    original = llama()
    half = copy.deepcopy(original).bfloat16()
    found = run(original, {"half": half}).variants[0]
    assert found.dtype == "bfloat16"
    assert found.difference is not None and found.layer_errors is not None
    # bfloat16 keeps 8 bits: an error of one rounding at least, and of 100 at most.
    assert all(2.0**-9 < error < 100 * 2.0**-9 for error in found.layer_errors)
    assert 0 < found.difference.mean_kl < math.log(100)


def test_progress_is_told_window_by_window() -> None:
    seen: list[tuple[str, int, int]] = []
    run(llama(), {"same": llama()}, progress=lambda *step: seen.append(step))
    # ceil((75 - 24) / 10) + 1 and ceil((40 - 24) / 10) + 1 windows.
    assert seen == [("score", done, 10) for done in range(11)]


def test_logits_are_gone_before_the_next_are_made() -> None:
    """Of earlier windows and earlier variants nothing is kept; only the original's stay."""
    made: list[weakref.ref[Any]] = []
    alive: dict[str, list[int]] = {}

    def watched(name: str) -> Any:
        model = llama()

        def begin(module: Any, arguments: Any) -> None:
            alive.setdefault(name, []).append(sum(logits() is not None for logits in made))

        def end(module: Any, arguments: Any, logits: torch.Tensor) -> torch.Tensor:
            array = logits.numpy().copy()
            made.append(weakref.ref(array))
            # A tensor of these very numbers, which live as long as anything looks at them.
            return torch.from_numpy(array)

        model.register_forward_pre_hook(begin)
        model.lm_head.register_forward_hook(end)
        return model

    run(watched("original"), {"first": watched("first"), "second": watched("second")})
    assert alive == {"original": [0] * 10, "first": [1] * 10, "second": [1] * 10}
