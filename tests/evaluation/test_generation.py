"""Greedy answers side by side, and their speed."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
import torch

from odp.approximations.errors import OdpError
from odp.evaluation import Evaluation, Text, evaluate
from odp.evaluation.generation import first_difference, generate_answers, read_prompt

from .tiny_models import POSITIONS, gpt2, llama, perturbed, prose, tokenizer


def answers(models: dict[str, Any], prompt: str, new_tokens: int) -> Any:
    words = tokenizer()
    asked = read_prompt(prompt, words, chat=False, new_tokens=new_tokens, positions=None)
    steps: list[tuple[str, int, int]] = []
    (found,) = generate_answers(
        models, words, [asked], new_tokens=new_tokens, progress=lambda *step: steps.append(step)
    )
    assert steps == [("generate", done, len(models)) for done in range(len(models) + 1)]
    return found


def by_hand(model: Any, ids: list[int], new_tokens: int) -> list[int]:
    """Greedy decoding without a cache; the end token ends it."""
    read = list(ids)
    for _ in range(new_tokens):
        with torch.no_grad():
            read.append(int(model(torch.tensor([read])).logits[0, -1].argmax()))
        if read[-1] == 1:
            break
    return read[len(ids) :]


@pytest.mark.parametrize("make", [llama, gpt2])
def test_answers_are_those_of_decoding_by_hand(make: Any) -> None:
    models = {"original": make(), "other": perturbed(make(), 0.3)}
    found = answers(models, "w5 w6 w7", 12)
    assert found.prompt == "w5 w6 w7" and found.chat is False
    expected = {name: by_hand(model, [8, 9, 10], 12) for name, model in models.items()}
    assert {name: answer.tokens for name, answer in found.answers.items()} == expected
    words = tokenizer()
    for answer in found.answers.values():
        assert answer.text == words.decode(answer.tokens, skip_special_tokens=True)
    assert found.answers["original"].is_identical
    assert not found.answers["other"].is_identical
    first = found.answers["other"].first_difference
    assert first == first_difference(expected["original"], expected["other"])


def test_the_same_model_gives_the_same_answer() -> None:
    original = llama()
    found = answers({"original": original, "copy": copy.deepcopy(original)}, "w1", 20)
    assert found.answers["copy"].is_identical
    assert found.answers["copy"].tokens == found.answers["original"].tokens


def test_an_answer_ends_with_the_end_token() -> None:
    model = llama()
    head = torch.nn.Linear(32, model.lm_head.out_features)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[1] = 1.0
    model.lm_head = head
    found = answers({"original": llama(), "ends": model}, "w1", 20)
    assert found.answers["ends"].tokens == [1] and found.answers["ends"].text == ""


def test_settings_of_a_model_do_not_make_it_anything_but_greedy() -> None:
    model = llama()
    plain = by_hand(model, [4], 15)
    settings = model.generation_config
    settings.do_sample, settings.temperature, settings.top_k = True, 5.0, 3
    settings.repetition_penalty, settings.num_beams = 5.0, 3
    assert answers({"original": model}, "w1", 15).answers["original"].tokens == plain


def test_the_chat_template_is_put_around_a_prompt() -> None:
    words = tokenizer(chat=True, adds_begin=True)
    free: Any = {"new_tokens": 5, "positions": None}
    chatting = read_prompt("w9", words, chat=True, **free)
    assert words.decode(chatting.tokens) == "w1 w9 w2 w3" and chatting.chat
    assert words.decode(read_prompt("w9", words, chat=False, **free).tokens) == "<s> w9"
    # Without a template a prompt stays as it is.
    plain = read_prompt("w9", tokenizer(), chat=True, **free)
    assert plain.tokens == [12] and not plain.chat


def test_prompts_that_cannot_be_answered() -> None:
    words = tokenizer(adds_begin=True)
    with pytest.raises(OdpError, match="a prompt is empty"):
        read_prompt("  ", words, chat=False, new_tokens=5, positions=None)
    with pytest.raises(OdpError, match="prompt 'w1 w2' has 3 tokens; with 6 new ones"):
        read_prompt("w1 w2", words, chat=False, new_tokens=6, positions=8)
    assert len(read_prompt("w1 w2", words, chat=False, new_tokens=5, positions=8).tokens) == 3


@pytest.mark.parametrize(
    ("reference", "tokens", "index"),
    [([], [], None), ([4], [4], None), ([4, 5], [4, 6], 1), ([4, 5], [4], 1), ([], [4], 0)],
)
def test_where_answers_part(reference: list[int], tokens: list[int], index: int | None) -> None:
    assert first_difference(reference, tokens) == index


def run(**options: Any) -> Evaluation:
    original = llama()
    return evaluate(
        original,
        {"other": perturbed(original)},
        tokenizer(),
        [Text("text", prose(80))],
        context=32,
        **options,
    )


def test_answers_are_part_of_an_evaluation() -> None:
    found = run(prompts=["w1 w2", "w3"], new_tokens=4, speed=False, chat=True)
    assert [generation.prompt for generation in found.generations] == ["w1 w2", "w3"]
    for generation in found.generations:
        assert list(generation.answers) == ["original", "other"]
        assert len(generation.answers["original"].tokens) <= 4
    assert found.warnings == ["the tokenizer has no chat template; prompts were plain"]


def test_speed_is_relative_to_the_original_of_the_same_run() -> None:
    steps: list[tuple[str, int, int]] = []
    found = run(progress=lambda *step: steps.append(step))
    original, other = found.original.speed, found.variants[0].speed
    assert original is not None and other is not None
    assert original.prefill > 0 and original.decode > 0
    assert original.prefill_ratio == original.decode_ratio == 1
    assert other.prefill_ratio == other.prefill / original.prefill
    assert other.decode_ratio == other.decode / original.decode
    assert steps[-1] == ("speed", 8, 8)


def test_speed_is_what_the_slowest_part_allows() -> None:
    slow = llama()
    seconds, passes = 0.01, 0

    def wait(module: Any, arguments: Any, output: Any) -> None:
        nonlocal passes
        passes += 1
        time.sleep(seconds)

    slow.model.layers[0].register_forward_hook(wait)
    found = evaluate(
        llama(), {"slow": slow}, tokenizer(), [Text("text", prose(POSITIONS))], layers=False
    )
    speed = found.variants[0].speed
    # Half of the 64 positions are for the prompt, and half for the answer.
    assert speed is not None
    assert 0 < speed.prefill <= 32 / seconds and 0 < speed.decode <= 1 / seconds
    # Scoring, a short run to warm up, and three that count.
    assert passes == 1 + 3 + 3 * 32
