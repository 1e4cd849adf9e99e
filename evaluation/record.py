"""What an evaluation found: one tree of plain numbers and texts.

The table on the terminal (`evaluation_table`) and the JSON file are views of it; neither computes a
number of its own.  Where a number is undefined because a model computed nan or infinity, it is
infinite here and null in JSON; there is no nan in the tree.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Answer",
    "Difference",
    "Evaluation",
    "Generation",
    "ModelRecord",
    "Perplexity",
    "SpeedRecord",
    "TaskScore",
    "WindowRecord",
]


@dataclass
class WindowRecord:
    """How texts were cut; see `odp.evaluation.windows`.

    Attributes:
        context: tokens that a model sees at once, the begin token included.
        stride: tokens by which windows advance.
        begin_token: id of the token put before every window, or None.
        max_tokens: how many tokens of each text were used at most; None for all.
    """

    context: int
    stride: int
    begin_token: int | None
    max_tokens: int | None


@dataclass
class Perplexity:
    """How well one model predicts one text, or all of them.

    Attributes:
        tokens: number of tokens that were predicted.
        perplexity: exp of the mean negative log-likelihood of a token; infinite if any position is
            not finite.
        not_finite: number of positions at which the model gave no distribution: its logits hold
            nan or +infinity, or nothing but -infinity.
    """

    tokens: int
    perplexity: float
    not_finite: int


@dataclass
class Difference:
    """How far the predictions of a variant are from those of the original, on the same tokens.

    Attributes:
        perplexity_change: perplexity of the variant over that of the original, minus 1; infinite
            if either perplexity is.
        mean_kl: mean over positions of KL(original || variant), in nats; infinite if either model
            gave no distribution at some position.
        max_kl: the largest of them.
        top1: share of positions where both find the same token most likely; positions without a
            distribution count as different.
        top5: mean over positions of |A n B| / 5, where A and B are the sets of the five most
            likely tokens of each model.
        top10: likewise of the ten most likely.
        cosine: mean over positions of the cosine of the angle between the logits of both models,
            as they are; infinite if either model gave no distribution at some position.  What adds
            the same number to all logits changes no prediction and does change their cosine.
        min_cosine: the smallest of them; infinite likewise.
    """

    perplexity_change: float
    mean_kl: float
    max_kl: float
    top1: float
    top5: float
    top10: float
    cosine: float
    min_cosine: float


@dataclass
class SpeedRecord:
    """Tokens per second, with batch size 1.

    Attributes:
        prefill: prompt tokens per second until the first new token is there.
        decode: new tokens per second after the first, greedy, with a key-value cache.
        prefill_ratio: `prefill` over that of the original in the same run.
        decode_ratio: likewise of `decode`.
    """

    prefill: float
    decode: float
    prefill_ratio: float
    decode_ratio: float


@dataclass
class ModelRecord:
    """One model and what was measured of it.

    Attributes:
        name: `original`, or the name of the variant.
        architecture: name of its class.
        parameters: number of parameters, shared ones counted once.
        dtype: of its parameters, for example `bfloat16`.
        device: where it ran, for example `cuda:0`.
        texts: perplexity by name of the text.
        total: the same over the tokens of all texts.
        differences: difference from the original by name of the text; empty for the original.
        difference: the same over the tokens of all texts; None for the original.
        layer_errors: relative l2 error of the hidden states after each decoder block, over all
            positions that predict a token; None if it could not be measured or is the original.
        speed: None if not measured.
    """

    name: str
    architecture: str
    parameters: int
    dtype: str
    device: str
    texts: dict[str, Perplexity] = field(default_factory=dict)
    total: Perplexity | None = None
    differences: dict[str, Difference] = field(default_factory=dict)
    difference: Difference | None = None
    layer_errors: list[float] | None = None
    speed: SpeedRecord | None = None


@dataclass
class Answer:
    """What one model generated after one prompt.

    Attributes:
        tokens: ids of the new tokens.
        text: the same, decoded without special tokens.
        first_difference: index of the first new token that is not the original's (the shorter
            length if one answer continues the other); None if all ids are identical.
    """

    tokens: list[int]
    text: str
    first_difference: int | None = None

    @property
    def is_identical(self) -> bool:
        """Whether the token ids are those of the original."""
        return self.first_difference is None


@dataclass
class Generation:
    """The answers to one prompt, decoded greedily.

    Attributes:
        prompt: as given, without the chat template.
        chat: whether the chat template of the tokenizer was put around it.
        answers: by name of the model, `original` first.
    """

    prompt: str
    chat: bool
    answers: dict[str, Answer]


@dataclass
class TaskScore:
    """One metric of one task of lm-evaluation-harness.

    Attributes:
        task: name of the task or of the group of tasks.
        metric: name of the metric, with its filter unless that is `none`.
        higher_is_better: None where the task does not say.
        samples: number of questions.
        shots: number of examples put before each question; None for groups that mix them.
        values: by name of the model, `original` first.
        stderr: standard error of each value over the questions, None where there is none.
        differences: value minus that of the original, by name of the variant.
    """

    task: str
    metric: str
    higher_is_better: bool | None
    samples: int
    shots: int | None
    values: dict[str, float]
    stderr: dict[str, float | None]
    differences: dict[str, float]


@dataclass
class Evaluation:
    """How good language models are after rewriting, compared with the original.

    Attributes:
        version: version of ODP.
        windows: how texts were cut.
        original: the model before rewriting.
        variants: the models compared with it, in the order given.
        generations: one for each prompt.
        tasks: what lm-evaluation-harness found; see `odp.evaluation.run_tasks`.
        warnings: one line each.
    """

    version: str
    windows: WindowRecord
    original: ModelRecord
    variants: list[ModelRecord]
    generations: list[Generation] = field(default_factory=list)
    tasks: list[TaskScore] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as plain lists, dicts, strings and numbers."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The evaluation as JSON; infinity, which JSON lacks, becomes null."""
        return json.dumps(_without_infinity(self.to_dict()), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """The evaluation that `to_json` wrote.

        Raises:
            ValueError: the text is not JSON (`json.JSONDecodeError`).
            KeyError, TypeError: it is not the JSON of an evaluation.
        """
        tree = json.loads(text)
        return cls(
            version=tree["version"],
            windows=WindowRecord(**tree["windows"]),
            original=_model(tree["original"]),
            variants=[_model(variant) for variant in tree["variants"]],
            generations=[
                Generation(
                    generation["prompt"],
                    generation["chat"],
                    {name: Answer(**answer) for name, answer in generation["answers"].items()},
                )
                for generation in tree["generations"]
            ],
            tasks=[_task(task) for task in tree["tasks"]],
            warnings=tree["warnings"],
        )


def _without_infinity(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinity(item) for item in value]
    return value


def _with_infinity(numbers: Mapping[str, float | None]) -> dict[str, Any]:
    return {name: math.inf if number is None else number for name, number in numbers.items()}


def _model(tree: dict[str, Any]) -> ModelRecord:
    total, difference, speed = tree["total"], tree["difference"], tree["speed"]
    errors = tree["layer_errors"]
    replaced = {
        "texts": {name: Perplexity(**_with_infinity(p)) for name, p in tree["texts"].items()},
        "total": None if total is None else Perplexity(**_with_infinity(total)),
        "differences": {
            name: Difference(**_with_infinity(d)) for name, d in tree["differences"].items()
        },
        "difference": None if difference is None else Difference(**_with_infinity(difference)),
        "layer_errors": None if errors is None else [math.inf if e is None else e for e in errors],
        "speed": None if speed is None else SpeedRecord(**speed),
    }
    return ModelRecord(**(tree | replaced))


def _task(tree: dict[str, Any]) -> TaskScore:
    numbers = {name: _with_infinity(tree[name]) for name in ("values", "differences")}
    return TaskScore(**(tree | numbers))
