"""`odp.compare_healed`: what healing made of a language model, beside what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.healed_model import load_surgery_and_healed
from odp.healing_folder import ADAPTER, RECORD, SURGERY_FOLDER

if TYPE_CHECKING:
    from odp.evaluation import Evaluation, LanguageModel, Text
    from odp.job import Stage

__all__ = ["compare_healed"]

SURGERY, HEALED = "surgery", "healed"
# Without prompts of the user: as many as one reads.
_PROMPTS = 3


def compare_healed(
    original: LanguageModel,
    folders: Sequence[str | Path],
    texts: Sequence[Text],
    *,
    prompts: Sequence[str] | None = None,
    new_tokens: int = 64,
    chat: bool = False,
    context: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
    layers: bool = False,
    speed: bool = True,
    progress: Stage = lambda what, done, total: None,
) -> Evaluation:
    """Compare a language model with what healing made of it.

    Args:
        original: before rewriting, with its tokenizer, as `load_language_model` gives it.
        folders: healings (folders of `odp.heal`), which bring the variants `surgery` and `healed`;
            or folders of transformers, such as a merged model, which are named after the folder
            and run the functions that transformers has for them.
        texts: what to score; see `odp.evaluation.read_texts`.
        prompts: to be continued by all models; None takes beginnings of lines of the texts.
        new_tokens: largest number of tokens of an answer.
        chat: whether to put the tokenizer's chat template around prompts.
        context: tokens that a model sees at once; None is what `odp.evaluation.evaluate` takes.
        stride: tokens by which windows advance; likewise.
        max_tokens: of each text; None for all.
        layers: whether to measure hidden states layer by layer.
        speed: whether to measure tokens per second.  The adapter of `healed` is not merged.
        progress: called when a stage advances.

    Returns:
        Perplexities; KL, shared top tokens and cosine of the logits to the original; answers;
        speeds.

    Raises:
        OdpError: bad input: a folder is neither, or is of another model or another tokenizer.
    """
    from odp.evaluation import evaluate, plan_evaluation
    from odp.healing.controls import prompts_of

    places = [Path(folder) for folder in folders]
    if not places:
        raise OdpError("name the folder of a healing or of a model to compare with the original")
    for place in places:
        _check_folder(place)
    model, tokenizer = original.model, original.tokenizer
    scoring: dict[str, Any] = {
        "context": context,
        "stride": stride,
        "max_tokens": max_tokens,
        "prompts": prompts_of(texts, _PROMPTS) if prompts is None else prompts,
        "new_tokens": new_tokens,
        "chat": chat,
    }
    # What the evaluation would say of texts and prompts it says before anything is loaded.
    plan_evaluation({"original": model}, tokenizer, texts, **scoring)
    variants: dict[str, Any] = {}
    for place in places:
        if (place / RECORD).is_file():
            rewritten, healed = load_surgery_and_healed(model, place, tokenizer, progress=progress)
            found = {SURGERY: rewritten, HEALED: healed}
        else:
            found = {place.resolve().name: _other_model(original, place, progress)}
        for name, variant in found.items():
            taken = name in variants or name == "original"
            variants[f"{name} of {place}" if taken else name] = variant
    return evaluate(
        model,
        variants,
        tokenizer,
        texts,
        **scoring,
        layers=layers,
        speed=speed,
        progress=progress,
    )


def _check_folder(place: Path) -> None:
    if (place / RECORD).is_file() or (place / "config.json").is_file():
        return
    if (place / "adapter_config.json").is_file():
        raise OdpError(
            f"'{place}' is an adapter; name the folder of the healing, with {RECORD} in it, which "
            f"has its adapter in {SURGERY_FOLDER}/{ADAPTER}"
        )
    what = "is neither" if place.exists() else "does not exist; it should be"
    raise OdpError(
        f"'{place}' {what} a healing ({RECORD}) {'nor' if place.exists() else 'or'} a model of "
        "transformers (config.json)"
    )


def _other_model(original: LanguageModel, place: Path, progress: Stage) -> Any:
    """A model with the tokenizer of the original, on the same device and in the same type."""
    from odp.evaluation import load_language_model
    from odp.healing.identity import tokenizer_digest

    model = original.model
    other = load_language_model(
        place,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        progress=progress,
    )
    if tokenizer_digest(other.tokenizer) != tokenizer_digest(original.tokenizer):
        raise OdpError(
            f"the tokenizer in '{place}' is not that of '{original.folder}': the vocabularies "
            "differ, so their tokens cannot be compared"
        )
    return other.model
