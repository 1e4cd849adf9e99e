"""Greedy answers of several models to the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.evaluation.record import Answer, Generation

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Prompt", "first_difference", "generate_answers", "greedy", "read_prompt"]


@dataclass(frozen=True)
class Prompt:
    """What a model is to answer.

    Attributes:
        text: as the user wrote it.
        tokens: ids of what the model reads.
        chat: whether the chat template is around the text.
    """

    text: str
    tokens: list[int]
    chat: bool


def read_prompt(
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    chat: bool,
    new_tokens: int,
    positions: int | None,
) -> Prompt:
    """Turn a prompt into tokens.

    Args:
        text: as the user wrote it.
        tokenizer: the tokenizer of all models.
        chat: whether to put the chat template around it; without a template it stays as it is.
        new_tokens: number of tokens that the answer may have.
        positions: number of tokens, prompt and answer, that the models can read; None for any.

    Raises:
        OdpError: the prompt is empty or too long.
    """
    if chat and tokenizer.chat_template:
        message = [{"role": "user", "content": text}]
        filled = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        # The template writes the begin token itself.
        tokens: list[int] = tokenizer(str(filled), add_special_tokens=False)["input_ids"]
    else:
        chat = False
        tokens = tokenizer(text)["input_ids"]
    if not tokens or not text.strip():
        raise OdpError("a prompt is empty")
    if positions is not None and len(tokens) + new_tokens > positions:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise OdpError(
            f"prompt '{shown}' has {len(tokens)} tokens; with {new_tokens} new ones that is more "
            f"than the {positions} positions that the models know"
        )
    return Prompt(text, tokens, chat)


def generate_answers(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    new_tokens: int,
    progress: Callable[[str, int, int], None],
) -> list[Generation]:
    """Let every model answer every prompt.

    Args:
        models: by name; the first is the one that the others are compared with.
        tokenizer: the tokenizer of all models.
        prompts: what to answer or to continue.
        new_tokens: largest number of tokens of an answer, at least 1.
        progress: called as `progress("generate", answers done, answers in all)`.
    """
    generations = []
    done, total = 0, len(prompts) * len(models)
    progress("generate", 0, total)
    for prompt in prompts:
        answers: dict[str, Answer] = {}
        reference: list[int] | None = None
        for name, model in models.items():
            tokens = _answer(model, tokenizer, prompt.tokens, new_tokens)
            reference = tokens if reference is None else reference
            text = str(tokenizer.decode(tokens, skip_special_tokens=True))
            answers[name] = Answer(tokens, text, first_difference(reference, tokens))
            done += 1
            progress("generate", done, total)
        generations.append(Generation(prompt.text, prompt.chat, answers))
    return generations


def first_difference(reference: Sequence[int], tokens: Sequence[int]) -> int | None:
    """Index of the first token that differs; the shorter length if one continues the other.

    >>> first_difference([1, 2, 3], [1, 5, 3]), first_difference([1, 2], [1, 2, 3])
    (1, 2)
    >>> first_difference([1, 2], [1, 2]) is None
    True
    """
    for index, (expected, found) in enumerate(zip(reference, tokens, strict=False)):
        if expected != found:
            return index
    return None if len(reference) == len(tokens) else min(len(reference), len(tokens))


def greedy(model: PreTrainedModel, pad_token: int | None, **options: Any) -> GenerationConfig:
    """The most likely token at every step, whatever else the model's own settings ask for.

    Args:
        model: the model; what is not set here, such as its end tokens, comes from its settings.
        pad_token: id of a token for padding, which a single prompt does not need.
        options: further fields of `transformers.GenerationConfig`.
    """
    import transformers

    make: Any = transformers.GenerationConfig
    config: GenerationConfig = make(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        # Neutral values; None would mean those of the model.
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        pad_token_id=pad_token if pad_token is not None else _first_end_token(model),
        **options,
    )
    return config


def _first_end_token(model: PreTrainedModel) -> int:
    end: int | list[int] | None = model.generation_config.eos_token_id
    if isinstance(end, list):
        return end[0]
    return 0 if end is None else end


def _answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[int], new_tokens: int
) -> list[int]:
    import torch

    inputs = torch.tensor([ids], device=model.device)
    config = greedy(model, tokenizer.pad_token_id, max_new_tokens=new_tokens)
    generate: Any = model.generate
    with torch.no_grad():
        output = generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
    tokens: list[int] = output[0, len(ids) :].tolist()
    return tokens
