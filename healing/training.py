"""The training of an adapter: one process or many, stopped at any time and continued."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.backends.whole_files import make_folder
from odp.evaluation.layers import decoder_blocks, hidden_states
from odp.evaluation.offline import offline
from odp.healing.acceleration import accelerator_of
from odp.healing.adapters import parameter_groups, seeded, trainable
from odp.healing.checkpoint import Checkpoint, Checkpoints
from odp.healing.log import TrainingLog, read_log
from odp.healing.losses import feature_loss, kl_loss, language_model_loss
from odp.healing.settings import HealingSettings
from odp.healing.training_windows import TrainingWindows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Trained", "train_adapter"]

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
LOG, CHECKPOINTS = "log.jsonl", "checkpoints"


@dataclass
class Trained:
    """What a training did.

    Attributes:
        steps: updates of the adapter, those before a restart included.
        resumed_at: step of the checkpoint that it went on from; None if it began anew.
        parameters: numbers that were trained.
        windows: windows drawn, all processes together.
        epochs: how often each window of the texts was drawn, on average; None if not once.
        seconds: of all steps of this run, not of earlier ones.
        first: entry of the log of the first step.
        last: entry of the last.
        warnings: one line each.
    """

    steps: int
    resumed_at: int | None
    parameters: int
    windows: int
    epochs: float | None
    seconds: float
    first: dict[str, Any]
    last: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def train_adapter(
    model: Any,
    original: PreTrainedModel,
    windows: TrainingWindows,
    settings: HealingSettings,
    folder: Path,
    *,
    device: str | None = None,
    checkpoint_every: int = 50,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Trained:
    """Train the adapter of a model until it does what the original does.

    If `folder` has checkpoints, the training goes on from the last one that is whole.  Under
    `accelerate launch` every process runs its own windows.

    Args:
        model: a `peft.PeftModel`; only its adapter changes.
        original: what KL and hidden states are compared with; unchanged.
        windows: what to train on.
        settings: how.
        folder: for the log and the checkpoints; made if it is missing.
        device: `cpu`, or None for what accelerate finds.
        checkpoint_every: steps between two checkpoints; the last step always has one.
        progress: called as `progress(steps done, steps in all)`.

    Raises:
        OdpError: the loss or its gradient is not finite, the disk is full, the device runs out of
            memory, or the checkpoints are of another model or other settings.
    """
    if checkpoint_every < 1:
        raise OdpError(f"checkpoints are at least 1 step apart, not {checkpoint_every}")
    run = _Run(model, original, settings, folder, device)
    try:
        return run.train(windows, checkpoint_every, progress)
    finally:
        run.close()


class _Run:
    """One training: the prepared model, its optimiser, and where things are written."""

    def __init__(
        self,
        model: Any,
        original: PreTrainedModel,
        settings: HealingSettings,
        folder: Path,
        device: str | None,
    ) -> None:
        import torch

        self.accelerator = accelerator_of(settings.dtype, device)
        self.settings = settings
        self.folder = folder
        self.bare = model
        self.parameters = trainable(model)
        if not self.parameters:
            raise OdpError("nothing in the model trains: attach an adapter first")
        self.original = original.to(self.accelerator.device)
        optimiser = torch.optim.AdamW(
            parameter_groups(self.parameters, settings.magnitudes),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable()
            # Checkpoints of blocks whose input has no gradient would have none either.  Hooks that
            # transformers has put there already it would forget at the second call.
            model.disable_input_require_grads()
            model.enable_input_require_grads()
        self.model, self.optimiser = self.accelerator.prepare(model, optimiser)
        self._switch_to_training()
        self.blocks = decoder_blocks(original) if settings.features else []
        self.own_blocks = decoder_blocks(model) if settings.features else []
        if settings.features and (not self.blocks or len(self.blocks) != len(self.own_blocks)):
            raise OdpError(
                "the loss of hidden states needs decoder blocks, and this model has no list of them"
            )
        self.log = TrainingLog(folder / LOG)
        self.checkpoints = Checkpoints(folder / CHECKPOINTS)
        self.position = 0

    def _switch_to_training(self) -> None:
        """Dropout in the adapter only: what is healed is the model as it is used, without any."""
        self.model.eval()
        for name, module in self.bare.named_modules():
            if "lora_dropout" in name or getattr(module, "gradient_checkpointing", False):
                module.training = True

    def close(self) -> None:
        """Give the model back as it came, but for the adapter's numbers."""
        if self.settings.gradient_checkpointing:
            self.bare.gradient_checkpointing_disable()
            self.bare.disable_input_require_grads()
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.accelerator.free_memory()
        self.bare.eval()

    def train(
        self,
        windows: TrainingWindows,
        checkpoint_every: int,
        progress: Callable[[int, int], None],
    ) -> Trained:
        """All steps that are left."""
        begun = self._resume()
        step = begun or 0
        total = self.settings.steps
        drawn = windows.drawn_from(self.position)
        entries = read_log(self.log.path) if self.log.path.is_file() else []
        first = entries[0] if entries else {}
        last = entries[-1] if entries else {}
        beginning = time.perf_counter()
        progress(step, total)
        with offline():
            while step < total:
                step += 1
                last = self._step(step, drawn)
                first = first or last
                if self.accelerator.is_main_process:
                    self.log.append(last)
                if step % checkpoint_every == 0 or step == total:
                    self._save(step)
                progress(step, total)
        count = windows.count
        return Trained(
            steps=step,
            resumed_at=begun,
            parameters=sum(parameter.numel() for parameter in self.parameters.values()),
            windows=self.position,
            epochs=None if count is None else self.position / count,
            seconds=time.perf_counter() - beginning,
            first=first,
            last=last,
            warnings=list(self.checkpoints.damaged),
        )

    def _step(self, step: int, drawn: Iterator[torch.Tensor]) -> dict[str, Any]:
        """One update, and what it found."""
        import torch

        settings, accelerator = self.settings, self.accelerator
        beginning = time.perf_counter()
        sums = torch.zeros(4, device=accelerator.device)
        with seeded(settings.seed, step, accelerator.process_index):
            for part in range(settings.accumulation):
                ids = self._batch(drawn)
                last = part == settings.accumulation - 1
                with accelerator.no_sync(self.model) if not last else _nothing():
                    losses = self._losses(ids)
                    accelerator.backward(losses[0] / settings.accumulation)
                sums += torch.stack([loss.detach().float() for loss in losses])
        found = accelerator.reduce(sums / settings.accumulation, "mean").tolist()
        names = ("loss", "language_model", "kl", "features")
        entry: dict[str, Any] = {"step": step, **dict(zip(names, found, strict=True))}
        self._check_finite(entry["loss"], "loss", step)
        norm = float(accelerator.clip_grad_norm_(list(self.parameters.values()), settings.clipping))
        # float16 begins with a scale that is too large, and its optimiser skips such steps.
        if accelerator.scaler is None:
            self._check_finite(norm, "gradient of the loss", step)
        rate = settings.rate(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.optimiser.step()
        self.optimiser.zero_grad()
        if not settings.needs_original:
            del entry["kl"]
        if not settings.features:
            del entry["features"]
        return entry | {
            "learning_rate": rate,
            "gradient_norm": norm if math.isfinite(norm) else None,
            "tokens": self.position * settings.context,
            "seconds": round(time.perf_counter() - beginning, 4),
        }

    def _batch(self, drawn: Iterator[torch.Tensor]) -> torch.Tensor:
        """This process's share of the next windows, shape (batch, context)."""
        import torch

        count, processes = self.settings.batch_size, self.accelerator.num_processes
        everything = [next(drawn) for _ in range(count * processes)]
        self.position += len(everything)
        own = everything[self.accelerator.process_index :: processes]
        return torch.stack(own).to(self.accelerator.device)

    def _losses(self, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The weighted sum, and language model, KL and features by themselves."""
        import torch

        settings = self.settings
        zero = torch.zeros((), device=ids.device)
        wanted: list[torch.Tensor] = []
        found: list[torch.Tensor] = []
        kl = features = zero
        try:
            with self.accelerator.autocast():
                if settings.needs_original:
                    with torch.no_grad(), _keeping(self.blocks, ids.shape, wanted):
                        exact = self.original(input_ids=ids, use_cache=False).logits
                with _keeping(self.own_blocks, ids.shape, found):
                    logits = self.model(input_ids=ids, use_cache=False).logits
            language_model = language_model_loss(logits, ids)
            if settings.kl:
                kl = kl_loss(exact, logits)
            elif settings.needs_original:
                with torch.no_grad():
                    kl = kl_loss(exact, logits)
        except torch.OutOfMemoryError:
            raise OdpError(
                f"out of memory on {ids.device} with {ids.shape[0]} windows of {ids.shape[1]} "
                "tokens; use a smaller batch size and more accumulation, or a smaller context"
            ) from None
        if settings.features:
            features = feature_loss(wanted, found)
        total = zero
        for weight, loss in (
            (settings.language_model, language_model),
            (settings.kl, kl),
            (settings.features, features),
        ):
            # Without weight a loss is only watched; 0 times infinity would not be.
            if weight:
                total = total + weight * loss
        return total, language_model, kl, features

    def _check_finite(self, value: float, what: str, step: int) -> None:
        if math.isfinite(value):
            return
        shown = "nan" if math.isnan(value) else "infinite"
        # The checkpoint of the step before holds the very numbers that gave it.
        steps = [saved for saved in self.checkpoints.steps() if saved < step - 1]
        good = (
            f"the last good checkpoint is of step {steps[-1]}, in '{self.checkpoints.folder}'"
            if steps
            else "there is no good checkpoint before it"
        )
        raise OdpError(
            f"the {what} is {shown} at step {step}; {good}; begin again in another folder with a "
            "smaller learning rate, or with float32 or bfloat16 in place of float16"
        )

    def _save(self, step: int) -> None:
        if self.accelerator.is_main_process:
            tensors: dict[str, torch.Tensor] = {}
            inner = self.optimiser.optimizer
            for name, parameter in self.parameters.items():
                tensors[f"adapter/{name}"] = parameter
                for moment, value in inner.state.get(parameter, {}).items():
                    tensors[f"{moment}/{name}"] = value
            scaler = self.accelerator.scaler
            state = {
                "settings": self.settings.to_dict(),
                "position": self.position,
                "scaler": None if scaler is None else scaler.state_dict(),
            }
            self.checkpoints.save(step, tensors, state)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int | None:
        """Go back to the last checkpoint; its step, or None if there is none."""
        if self.accelerator.is_main_process:
            make_folder(self.folder)
            self.checkpoints.remove_leftovers()
        found = self.checkpoints.latest()
        if found is not None:
            self._restore(found)
        if self.accelerator.is_main_process:
            self.log.keep_until(found.step if found is not None else 0)
        self.accelerator.wait_for_everyone()
        return None if found is None else found.step

    def _restore(self, checkpoint: Checkpoint) -> None:
        import torch

        theirs = HealingSettings.from_dict(checkpoint.state["settings"])
        if theirs != self.settings:
            raise OdpError(_changed(theirs, self.settings, self.folder))
        inner = self.optimiser.optimizer
        for name, parameter in self.parameters.items():
            saved = checkpoint.tensors.get(f"adapter/{name}")
            if saved is None or saved.shape != parameter.shape:
                raise OdpError(
                    f"the checkpoints in '{self.checkpoints.folder}' are of an adapter for "
                    f"another model: parameter '{name}' is missing or of another shape"
                )
            with torch.no_grad():
                parameter.copy_(saved)
            moments = {
                moment: checkpoint.tensors[f"{moment}/{name}"]
                for moment in _MOMENTS
                if f"{moment}/{name}" in checkpoint.tensors
            }
            if moments:
                # The number of steps stays on the CPU, where AdamW puts it.
                inner.state[parameter] = {
                    moment: value if moment == "step" else value.to(parameter.device)
                    for moment, value in moments.items()
                }
        self.position = checkpoint.state["position"]
        if self.accelerator.scaler is not None and checkpoint.state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.state["scaler"])


def _keeping(blocks: list[torch.nn.Module], shape: torch.Size, kept: list[torch.Tensor]) -> Any:
    """Within it, what comes out of each block is put into `kept`, (batch, tokens, channels)."""

    def keep(index: int, hidden: torch.Tensor) -> None:
        kept.append(hidden.reshape(*shape, -1))

    return hidden_states(blocks, slice(None), keep)


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def _changed(theirs: HealingSettings, ours: HealingSettings, folder: Path) -> str:
    before, now = theirs.to_dict(), ours.to_dict()
    name = next(name for name in before if before[name] != now[name])
    return (
        f"'{folder}' was begun with {name} {before[name]}, and now it is {now[name]}; resume with "
        "the same settings, or begin in another folder"
    )
