"""`odp.evaluation.evaluate`: the whole comparison of language models with their original."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.evaluation.generation import Prompt, generate_answers, read_prompt
from odp.evaluation.offline import offline
from odp.evaluation.record import Evaluation, ModelRecord, WindowRecord
from odp.evaluation.scoring import Scores, score_texts
from odp.evaluation.speed import measure_speed
from odp.evaluation.texts import Text, TokenisedText, adds_begin_token, tokenise
from odp.evaluation.variant_names import ORIGINAL, check_names
from odp.evaluation.windows import check_windows, tokens_per_window

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Progress = Callable[[str, int, int], None]

__all__ = ["Plan", "evaluate", "plan_evaluation"]

# Without a wish of the user: what most evaluations of perplexity use, if the model can.
_CONTEXT = 1024
# Of the measurement of speed: enough to average over, and still some seconds on two cores.
_SPEED_PROMPT, _SPEED_NEW_TOKENS = 512, 33


def evaluate(
    original: PreTrainedModel,
    variants: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    *,
    context: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
    begin_token: bool | None = None,
    prompts: Sequence[str] = (),
    new_tokens: int = 64,
    chat: bool = False,
    layers: bool = True,
    speed: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Evaluation:
    """Compare language models with the one they were made from.

    The models run one after another on every window of text, each on its own device and in its own
    type of numbers, in evaluation mode; logits of at most two models for one window are in memory.

    Args:
        original: a causal language model.
        variants: models with the same vocabulary, by name.
        tokenizer: the tokenizer of all of them.
        texts: what to score; see `odp.evaluation.read_texts`.
        context: tokens that a model sees at once, the begin token included; None is 1024, or what
            the models know if that is less.
        stride: tokens by which windows advance, less than `context`; None is half the context.
        max_tokens: largest number of tokens of each text to use; None for all.
        begin_token: whether every window starts with the tokenizer's begin token; None does as the
            tokenizer does.
        prompts: what to let every model answer, greedily.
        new_tokens: largest number of tokens of an answer.
        chat: whether to put the tokenizer's chat template, if it has one, around each prompt.
        layers: whether to measure the hidden states after each decoder block.
        speed: whether to measure tokens per second.
        progress: called as `progress(what, done, total)`, where `what` is `score`, `generate` or
            `speed`.

    Returns:
        Everything measured.

    Raises:
        OdpError: bad input; one line that says what, where and what to do.
    """
    check_names(variants)
    models = {ORIGINAL: original, **variants}
    plan = plan_evaluation(
        models,
        tokenizer,
        texts,
        context=context,
        stride=stride,
        max_tokens=max_tokens,
        begin_token=begin_token,
        prompts=prompts,
        new_tokens=new_tokens,
        chat=chat,
    )
    with offline(), _evaluating(models.values()):
        scores = score_texts(
            original,
            variants,
            plan.texts,
            context=plan.windows.context,
            stride=plan.windows.stride,
            begin_token=plan.windows.begin_token,
            layers=layers,
            progress=progress,
        )
        evaluation = _evaluation(models, scores, plan.windows)
        if plan.prompts:
            evaluation.generations = generate_answers(
                models, tokenizer, plan.prompts, new_tokens=new_tokens, progress=progress
            )
        if chat and not tokenizer.chat_template:
            evaluation.warnings.append("the tokenizer has no chat template; prompts were plain")
        if speed:
            known = _known_positions(models)
            _add_speed(evaluation, models, tokenizer, plan.texts[0], known, progress)
    return evaluation


@dataclass(frozen=True)
class Plan:
    """What an evaluation will do, after its input has been found good.

    Attributes:
        texts: what is scored, as tokens.
        windows: how.
        prompts: what is answered.
    """

    texts: list[TokenisedText]
    windows: WindowRecord
    prompts: list[Prompt]


def plan_evaluation(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    *,
    context: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
    begin_token: bool | None = None,
    prompts: Sequence[str] = (),
    new_tokens: int = 64,
    chat: bool = False,
) -> Plan:
    """Read texts and prompts and check all options of `evaluate`, in a second.

    Who has to make the variants first asks with the original alone.

    Raises:
        OdpError: what `evaluate` says of bad input.
    """
    known = _known_positions(models)
    if context is None:
        context = _CONTEXT if known is None else min(_CONTEXT, known)
    if known is not None and context > known:
        raise OdpError(
            f"the context is {context} tokens, but the models know only {known} positions"
        )
    if stride is None:
        stride = max(1, context // 2)
    check_windows(context, stride)
    if new_tokens < 1:
        raise OdpError(f"an answer needs at least 1 new token, not {new_tokens}")
    begin = _begin_token(tokenizer, begin_token)
    least = tokens_per_window(context, begin is not None)
    tokenised = tokenise(texts, tokenizer, least=least, most=max_tokens)
    asked = [
        read_prompt(text, tokenizer, chat=chat, new_tokens=new_tokens, positions=known)
        for text in prompts
    ]
    _check_vocabulary(models, tokenised, asked)
    return Plan(tokenised, WindowRecord(context, stride, begin, max_tokens), asked)


def _known_positions(models: Mapping[str, PreTrainedModel]) -> int | None:
    """The smallest number of positions that a model was made for; None if none says."""
    found = [
        limit
        for model in models.values()
        if (limit := getattr(model.config.get_text_config(), "max_position_embeddings", None))
    ]
    return min(found, default=None)


def _begin_token(tokenizer: PreTrainedTokenizerBase, wanted: bool | None) -> int | None:
    if wanted is None:
        wanted = adds_begin_token(tokenizer)
    if not wanted:
        return None
    token: int | None = tokenizer.bos_token_id
    if token is None:
        raise OdpError("the tokenizer has no begin token to put before windows")
    return token


def _check_vocabulary(
    models: Mapping[str, PreTrainedModel],
    texts: Sequence[TokenisedText],
    prompts: Sequence[Prompt],
) -> None:
    """Raise where the tokenizer is another model's: a GPU would die of it."""
    largest = max(
        [int(text.tokens.max()) for text in texts] + [max(prompt.tokens) for prompt in prompts]
    )
    for name, model in models.items():
        embeddings: Any = model.get_input_embeddings()
        size = embeddings.weight.shape[0]
        if largest >= size:
            raise OdpError(
                f"token {largest} of the tokenizer is not in the vocabulary of '{name}', which has "
                f"{size} tokens: the tokenizer is not that of this model"
            )


@contextlib.contextmanager
def _evaluating(models: Iterable[PreTrainedModel]) -> Iterator[None]:
    """Without dropout; modules that were training do so again afterwards."""
    models = list(models)
    training = [module for model in models for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _evaluation(
    models: Mapping[str, PreTrainedModel], scores: Scores, windows: WindowRecord
) -> Evaluation:
    records = [
        ModelRecord(
            name=name,
            architecture=_architecture(model),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(model.device),
            texts=scores.texts[name],
            total=scores.totals[name],
            differences=scores.differences.get(name, {}),
            difference=scores.total_differences.get(name),
            layer_errors=scores.layer_errors.get(name),
        )
        for name, model in models.items()
    ]
    return Evaluation(
        version=version("odp-rewrite"),
        windows=windows,
        original=records[0],
        variants=records[1:],
        warnings=scores.warnings,
    )


def _architecture(model: Any) -> str:
    """Name of the class; of a model within an adapter that model's."""
    base = getattr(model, "get_base_model", None)
    return type(model if base is None else base()).__name__


def _add_speed(
    evaluation: Evaluation,
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    text: TokenisedText,
    known: int | None,
    progress: Progress,
) -> None:
    new_tokens, prompt = _SPEED_NEW_TOKENS, text.tokens[:_SPEED_PROMPT]
    if known is not None and len(prompt) + new_tokens > known:
        new_tokens = max(2, min(new_tokens, known // 2))
        prompt = prompt[: known - new_tokens]
    found = measure_speed(
        models, prompt, new_tokens=new_tokens, pad_token=tokenizer.pad_token_id, progress=progress
    )
    for record in (evaluation.original, *evaluation.variants):
        record.speed = found[record.name]
