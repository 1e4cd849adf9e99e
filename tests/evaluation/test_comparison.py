"""What `evaluate` refuses, each in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from odp.approximations.errors import OdpError
from odp.evaluation import Text, evaluate

from .tiny_models import POSITIONS, llama, prose, tokenizer

TEXT = Text("text", prose(100))


def error(variants: Any = None, texts: Any = None, words: Any = None, **options: Any) -> str:
    with pytest.raises(OdpError) as caught:
        evaluate(
            llama(),
            {"v": llama()} if variants is None else variants,
            words or tokenizer(),
            [TEXT] if texts is None else texts,
            **options,
        )
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names() -> None:
    assert error({}) == "give at least one variant to compare with the original"
    assert error({"original": llama()}) == "a variant cannot be named 'original'"
    assert error({"": llama()}) == "a variant cannot be named ''"


def test_windows() -> None:
    assert error(context=POSITIONS + 1).endswith("the models know only 64 positions")
    assert "the stride must be between 1 and 63" in error(context=64, stride=64)
    assert "the context must be at least 2" in error(context=1)
    assert "10 tokens of a text are less than one window" in error(max_tokens=10)
    assert "give at least one text" in error(texts=[])
    assert "has 9 tokens, but one window needs 64" in error(texts=[Text("short", prose(9))])


def test_prompts() -> None:
    assert error(new_tokens=0) == "an answer needs at least 1 new token, not 0"
    assert error(prompts=["w1", " "], new_tokens=5) == "a prompt is empty"
    assert "has 60 tokens; with 5 new ones that is more than the 64 positions" in error(
        prompts=[prose(59), prose(60)], new_tokens=5
    )


def test_a_variant_with_another_vocabulary() -> None:
    larger = llama(vocabulary=120)
    assert error({"large": larger}).startswith(
        "'large' gives 120 logits for each position, the original 100"
    )


def test_a_tokenizer_of_another_model() -> None:
    small = llama(vocabulary=50)
    message = error({"small": small})
    assert "is not in the vocabulary of 'small', which has 50 tokens" in message


def test_a_tokenizer_without_begin_token() -> None:
    words = tokenizer()
    words.bos_token = None
    assert "no begin token" in error(words=words, begin_token=True)


def test_memory_of_a_device_that_runs_out() -> None:
    large = llama()

    def fail(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 TiB\n…")

    large.register_forward_pre_hook(fail)
    assert error({"large": large}).startswith(
        "'large': out of memory on cpu with a context of 64 tokens"
    )


def test_without_a_wish_the_context_is_what_the_models_know() -> None:
    found = evaluate(llama(), {"v": llama()}, tokenizer(), [TEXT], speed=False)
    assert (found.windows.context, found.windows.stride) == (POSITIONS, POSITIONS // 2)
    assert found.original.architecture == "LlamaForCausalLM"
    assert found.original.parameters == sum(p.numel() for p in llama().parameters())
    assert (found.original.dtype, found.original.device) == ("float32", "cpu")


def test_the_begin_token_follows_the_tokenizer_or_the_user() -> None:
    def begin(words: Any, wanted: bool | None) -> int | None:
        found = evaluate(
            llama(), {"v": llama()}, words, [TEXT], begin_token=wanted, speed=False, layers=False
        )
        assert found.original.total is not None
        assert found.original.total.tokens == (99 if found.windows.begin_token is None else 100)
        return found.windows.begin_token

    assert begin(tokenizer(), None) is None
    assert begin(tokenizer(), True) == 0
    assert begin(tokenizer(adds_begin=True), None) == 0
    assert begin(tokenizer(adds_begin=True), False) is None
