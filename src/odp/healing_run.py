"""`odp.heal`: rewrite a language model, train an adapter on what is left, and control both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from odp.approximations.errors import OdpError
from odp.healing_folder import (
    ADAPTER,
    CONTROL_FOLDER,
    CONTROLS,
    RANGES,
    SURGERY_FOLDER,
    check_surgery,
    describe_text,
    open_folder,
    surgery_of,
    write_record,
)
from odp.rewriting import RewriteResult, rewrite

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from odp.evaluation import Text
    from odp.healing.controls import Controls
    from odp.healing.settings import HealingSettings
    from odp.healing.training import Trained
    from odp.job import Stage

__all__ = ["Healed", "heal"]

# A text of any size is trained on; of each, no more than this is scored.
_SCORED_CHARACTERS = 1 << 22
_PROMPTS = 8


@dataclass
class Healed:
    """A healed model and how it came to be.

    Attributes:
        model: a `peft.PeftModel` of the rewritten model, in the memory of the original; copy it
            before merging, or use `odp.load_healed`.
        rewritten: the rewriting, with its report.
        trained: of the rewritten model.
        control: of the original; None without a control.
        controls: the comparison; None if no text is held out, or in a process that is not the
            main one.
    """

    model: Any
    rewritten: RewriteResult
    trained: Trained
    control: Trained | None
    controls: Controls | None

    @property
    def warnings(self) -> list[str]:
        """What a person must know, one line each."""
        runs = [run for run in (self.trained, self.control) if run is not None]
        return [*self.rewritten.report.warnings, *(w for run in runs for w in run.warnings)]


def heal(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str | Path],
    folder: str | Path,
    *,
    held_out: Sequence[str | Path] = (),
    settings: HealingSettings | None = None,
    passes: str = "all",
    calibration: Any = None,
    calibrate_context: int | None = None,
    samples: int | None = None,
    error: float = 1e-5,
    margin: float = 0.25,
    guard: str = "clip",
    target: Literal["torch", "triton"] = "torch",
    control: bool = True,
    resume: bool = False,
    checkpoint_every: int = 50,
    device: str | None = None,
    context: int | None = None,
    max_tokens: int | None = 8192,
    prompts: Sequence[str] | None = None,
    new_tokens: int = 64,
    progress: Stage = lambda what, done, total: None,
) -> Healed:
    """Rewrite a causal language model and train an adapter until it does what the original did.

    Args:
        model: of transformers; unchanged, and its memory is shared.
        tokenizer: its tokenizer.
        texts: paths of UTF-8 files to train on, read piece by piece.
        folder: where everything is kept; it must not exist, unless `resume`.
        held_out: paths of texts to score that no training sees.
        settings: of the training; the preset `default` if None.
        passes: what to rewrite, as for `odp.rewrite`.
        calibration: as for `odp.rewrite`; the texts if None.
        calibrate_context: tokens of a calibration window.
        samples: number of them.
        error: as for `odp.rewrite`.
        margin: likewise.
        guard: likewise.
        target: likewise.
        control: whether to train the same adapter on the original as well.
        resume: whether to go on with the healing in `folder`.
        checkpoint_every: steps between two checkpoints.
        device: `cpu`, or None for what accelerate finds.
        context: of the windows that are scored; None is what `odp evaluate` takes.
        max_tokens: of each text that is scored; None for all of the first 4 Mi characters.
        prompts: to be continued by all models; None takes beginnings of lines of the texts.
        new_tokens: of an answer.
        progress: called when a stage advances.

    Raises:
        OdpError: bad input, or the training failed; one line that says what, where and what to do.
    """
    from odp.evaluation import plan_evaluation
    from odp.healing.acceleration import process_state
    from odp.healing.adapters import attach_adapter, save_adapter, sharing_copy
    from odp.healing.controls import prompts_of
    from odp.healing.identity import Identity
    from odp.healing.settings import preset
    from odp.healing.training import train_adapter
    from odp.healing.training_windows import TrainingWindows

    state = process_state(device)
    chosen = settings or preset("default")
    place = Path(folder)
    training, others = [Path(t) for t in texts], [Path(t) for t in held_out]
    windows = TrainingWindows(
        training,
        tokenizer,
        context=chosen.context,
        seed=chosen.seed,
        vocabulary=_vocabulary(model),
    )
    _check_context(model, chosen.context)
    windows.check()
    scored = _beginnings(training, others)
    if prompts is None:
        prompts = prompts_of([*scored[0], *scored[1]], _PROMPTS)
    if others:
        # What the evaluation would say after the training it says before it.
        plan_evaluation(
            {"original": model},
            tokenizer,
            [*scored[0], *scored[1]],
            context=context,
            max_tokens=max_tokens,
            prompts=prompts,
            new_tokens=new_tokens,
        )
    wanted = {
        "passes": passes,
        "error": error,
        "margin": margin,
        "guard": guard,
        "target": target,
        "settings": chosen.to_dict(),
        "texts": [describe_text(path) for path in training],
    }
    before = Identity.of(model, tokenizer)
    with _main_first(state):
        known = open_folder(place, wanted, before, resume=resume, first=state.is_main_process)
        ranges = place / RANGES
        rewritten = rewrite(
            model.to(state.device),
            passes,
            calibration=ranges if ranges.is_file() else calibration or training,
            tokenizer=tokenizer,
            context=None if ranges.is_file() else calibrate_context,
            samples=samples,
            error=error,
            margin=margin,
            guard=guard,
            target=target,
            measure=False,
            share_parameters=True,
            progress=progress,
        )
        surgery = surgery_of(passes, rewritten)
        check_surgery(known, surgery, place)
        if state.is_main_process and known is None:
            write_record(place, wanted, before, surgery, rewritten)
    adapted = attach_adapter(sharing_copy(rewritten.model), chosen)
    arms = [(SURGERY_FOLDER, adapted, "heal", surgery)]
    if control:
        arms.append((CONTROL_FOLDER, attach_adapter(sharing_copy(model), chosen), "control", {}))
    runs: dict[str, Trained] = {}
    for name, arm, stage, changes in arms:
        runs[name] = train_adapter(
            arm,
            model,
            windows,
            chosen,
            place / name,
            device=device,
            checkpoint_every=checkpoint_every,
            progress=_stage(progress, stage),
        )
        if state.is_main_process:
            identity = Identity(**(before.to_dict() | {"surgery": changes}))
            save_adapter(arm, place / name / ADAPTER, identity)
    controls = None
    if others and state.is_main_process:
        controls = _controls(
            model,
            {name: arm for name, arm, _, _ in arms},
            rewritten.model,
            tokenizer,
            scored,
            prompts=prompts,
            context=context,
            max_tokens=max_tokens,
            new_tokens=new_tokens,
            progress=progress,
        )
        from odp.backends.whole_files import write_text

        write_text(place / CONTROLS, controls.to_json())
    return Healed(adapted, rewritten, runs[SURGERY_FOLDER], runs.get(CONTROL_FOLDER), controls)


def _vocabulary(model: PreTrainedModel) -> int:
    embeddings: Any = model.get_input_embeddings()
    size: int = embeddings.weight.shape[0]
    return size


def _check_context(model: PreTrainedModel, context: int) -> None:
    known = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if known is not None and context > known:
        raise OdpError(
            f"the context is {context} tokens, but the model knows only {known} positions"
        )


def _beginnings(
    training: Sequence[Path], held_out: Sequence[Path]
) -> tuple[list[Text], list[Text]]:
    """As much of the texts as is scored, whatever their size."""
    from odp.healing.controls import check_held_out

    names = [path.name for path in (*training, *held_out)]

    def name(path: Path) -> str:
        return path.name if names.count(path.name) == 1 else str(path)

    first, second = ([_beginning(p, name(p)) for p in paths] for paths in (training, held_out))
    check_held_out(first, second)
    return first, second


def _beginning(path: Path, name: str) -> Text:
    from odp.evaluation import Text, read_texts

    if not path.is_file() or path.stat().st_size <= _SCORED_CHARACTERS:
        return Text(name, read_texts([path])[0].text)
    try:
        with path.open(encoding="utf-8-sig") as file:
            return Text(name, file.read(_SCORED_CHARACTERS))
    except (OSError, UnicodeDecodeError) as error:
        raise OdpError(f"cannot read text '{path}': {' '.join(str(error).split())}") from None


def _controls(
    model: PreTrainedModel,
    arms: dict[str, Any],
    rewritten: PreTrainedModel,
    tokenizer: Any,
    scored: tuple[list[Text], list[Text]],
    **options: Any,
) -> Controls:
    from odp.healing.controls import CONTROL, HEALED, SURGERY, measure_controls

    training, held_out = scored
    variants: dict[str, Any] = {}
    if CONTROL_FOLDER in arms:
        variants[CONTROL] = arms[CONTROL_FOLDER]
    variants[SURGERY] = rewritten
    variants[HEALED] = arms[SURGERY_FOLDER]
    return measure_controls(
        model, variants, tokenizer, training=training, held_out=held_out, **options
    )


def _stage(progress: Stage, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)


def _main_first(state: Any) -> AbstractContextManager[None]:
    """The main process chooses the expressions, the others read what it chose them from."""
    first: AbstractContextManager[None] = state.main_process_first()
    return first
