"""The controls of a healing: what the adapter did, and what it would have done without surgery.

A healed perplexity below the original's means that the adapter learned the text, not that the model
was healed.  So the same adapter is trained on the original too, and all four models are scored on
the text of the training and on texts that no training saw.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.evaluation.comparison import evaluate
from odp.evaluation.record import Evaluation, ModelRecord
from odp.evaluation.texts import Text
from odp.evaluation.variant_names import ORIGINAL
from odp.healing.diversity import Diversity, diversity

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "CONTROL",
    "HEALED",
    "SURGERY",
    "Controls",
    "check_held_out",
    "measure_controls",
    "prompts_of",
]

CONTROL, SURGERY, HEALED = "original + LoRA", "surgery", "surgery + LoRA"

_PROMPT_WORDS = 12


@dataclass
class Controls:
    """The four models side by side.

    Attributes:
        training: names of the texts that were trained on.
        held_out: names of those that no training saw.
        evaluation: perplexities and differences from the original, by text; answers.
        diversity: of the answers, by model; empty without prompts.
        recovered: share of the loss that surgery added which healing took away again, by text, from
            mean negative log-likelihoods; None where surgery added none.  Above 1 the healed model
            predicts the text better than the original did.
    """

    training: list[str]
    held_out: list[str]
    evaluation: Evaluation
    diversity: dict[str, Diversity] = field(default_factory=dict)
    recovered: dict[str, float | None] = field(default_factory=dict)

    def models(self) -> list[ModelRecord]:
        """The original and what was made of it."""
        return [self.evaluation.original, *self.evaluation.variants]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, infinity as null."""
        return {
            "training": self.training,
            "held_out": self.held_out,
            "recovered": self.recovered,
            "diversity": {name: asdict(found) for name, found in self.diversity.items()},
            "evaluation": json.loads(self.evaluation.to_json()),
        }

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)


def measure_controls(
    original: PreTrainedModel,
    variants: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    training: Sequence[Text],
    held_out: Sequence[Text],
    prompts: Sequence[str] = (),
    context: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
    new_tokens: int = 64,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Controls:
    """Score and question all models.

    Args:
        original: before surgery.
        variants: `CONTROL` (or not), `SURGERY` and `HEALED`.
        tokenizer: of all of them.
        training: texts that were trained on.
        held_out: texts that were not.
        prompts: to answer, for repetition and distinct runs.
        context: of a window of `evaluate`.
        stride: likewise.
        max_tokens: of each text.
        new_tokens: of an answer.
        progress: as for `evaluate`.

    Raises:
        OdpError: bad input, as for `evaluate`; a text is on both sides.
    """
    check_held_out(training, held_out)
    found = evaluate(
        original,
        variants,
        tokenizer,
        [*training, *held_out],
        context=context,
        stride=stride,
        max_tokens=max_tokens,
        prompts=prompts,
        new_tokens=new_tokens,
        layers=False,
        speed=False,
        progress=progress,
    )
    records = {record.name: record for record in (found.original, *found.variants)}
    answers = {
        name: [generation.answers[name].tokens for generation in found.generations]
        for name in (records if found.generations else ())
    }
    return Controls(
        training=[text.name for text in training],
        held_out=[text.name for text in held_out],
        evaluation=found,
        diversity={name: diversity(given) for name, given in answers.items()},
        recovered={
            name: _recovered(
                *(records[who].texts[name].perplexity for who in (ORIGINAL, SURGERY, HEALED))
            )
            for name in found.original.texts
        },
    )


def check_held_out(training: Sequence[Text], held_out: Sequence[Text]) -> None:
    """Raise if a text is on both sides.

    Raises:
        OdpError: it names the text.
    """
    seen = {text.text for text in training}
    for text in held_out:
        if text.text in seen:
            raise OdpError(
                f"text '{text.name}' is held out and trained on; hold out a text that training "
                "does not see"
            )


def prompts_of(texts: Sequence[Text], count: int) -> list[str]:
    """Beginnings of paragraphs or lines, to be continued: as many of each text.

    Args:
        texts: the texts.
        count: how many are wanted in all; fewer come from short texts.
    """
    found: list[str] = []
    share = max(1, count // max(1, len(texts)))
    for text in texts:
        lines = [line.split() for line in text.text.splitlines()]
        long = [words for words in lines if len(words) >= _PROMPT_WORDS]
        # A text of one endless line, or of short ones only, is cut anywhere.
        if len(long) < share:
            words = text.text.split()
            long = [words[i : i + _PROMPT_WORDS] for i in range(0, len(words), _PROMPT_WORDS)]
        step = max(1, len(long) // share)
        found += [" ".join(words[:_PROMPT_WORDS]) for words in long[::step][:share]]
    return found[:count]


def _recovered(original: float, surgery: float, healed: float) -> float | None:
    if not all(math.isfinite(value) for value in (original, surgery, healed)):
        return None
    added = math.log(surgery) - math.log(original)
    return (math.log(surgery) - math.log(healed)) / added if added > 0 else None
