"""`odp.heal_rows`: coarser circuits, healed, until healing no longer brings the quality back."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.healing_folder import describe_text
from odp.healing_rows_folder import RungFolder, open_rows_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from odp.circuits import CompiledModel
    from odp.healing.circuit_adapter import Train
    from odp.healing.decoder_circuits import StaticLayer
    from odp.healing.rows_record import Point, RowsSearch, Rung
    from odp.healing.settings import HealingSettings
    from odp.healing.training_windows import TrainingWindows
    from odp.job import Stage

__all__ = ["ERRORS", "heal_rows", "rows_settings"]

ERRORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Errors of the rungs: each layer's largest relative l2 error, expressions and roundings."""


def rows_settings(train: Train, tokens: int) -> HealingSettings:
    """How circuits are healed unless something else is asked for.

    Args:
        train: `norms`, whose few numbers take larger steps, or `lora`.
        tokens: of a circuit's window.
    """
    from odp.healing.settings import HealingSettings

    rate = 1e-2 if train == "norms" else 2e-3
    return HealingSettings(context=tokens, steps=100, batch_size=32, learning_rate=rate)


def heal_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str | Path],
    folder: str | Path,
    *,
    held_out: Sequence[str | Path],
    tokens: int = 16,
    errors: Sequence[float] = ERRORS,
    quality: float = 0.01,
    train: Train = "norms",
    settings: HealingSettings | None = None,
    margin: float = 0.25,
    samples: int = 256,
    max_tokens: int = 4096,
    jobs: int = 1,
    circuits: bool = False,
    resume: bool = False,
    progress: Stage = lambda what, done, total: None,
) -> RowsSearch:
    """Make the circuits of a language model's decoder layers coarser for as long as healing helps.

    Every rung is an error that `odp.circuits.compile_circuit` may make of each decoder layer, which
    buys expressions of lower degree and fewer bits.  The model is scored with the circuits' very
    integers in the place of its layers, healed by KL to the original, and scored again.  The search
    ends at the first rung that is not healed to the quality that is asked for.  Embeddings, the
    last norm and the head stay as they are, and BitNets lose the quantisers of their activations,
    for which the integers of the circuit stand.  Runs on the CPU, in float64.

    Args:
        model: a causal language model of transformers; unchanged.
        tokenizer: its tokenizer.
        texts: paths of UTF-8 files to train on, which calibrate the circuits, too.
        folder: for the result of each rung; it must not exist, unless `resume`.
        held_out: paths of texts that decide the quality.
        tokens: of a circuit's window.
        errors: of the rungs, between 0 and 1.
        quality: largest expected change of the perplexity that is still the same quality, as a
            share: exp(KL) - 1 on held-out text.
        train: `norms` trains the weights of the norms and leaves ternary weights ternary; `lora`
            adds updates of low rank to the weights of attention, which are dense then.
        settings: of each training; `rows_settings` if None.  Their context is `tokens`.
        margin: by how much larger than in calibration any value of a circuit may be.
        samples: windows of calibration.
        max_tokens: of each text that is scored.
        jobs: layers that are compiled at a time.
        circuits: whether to write the circuits of rungs that keep the quality, for
            `odp ezkl prove`.
        resume: whether to take rungs that are in `folder` from there.
        progress: called when a stage advances.

    Raises:
        OdpError: bad input, or a model whose layers cannot be circuits.
    """
    from odp.healing.rows_record import RowsSearch

    _check(errors, quality, train, tokens, samples, jobs)
    chosen = dataclasses.replace(settings or rows_settings(train, tokens), context=tokens)
    search = _Search(model, tokenizer, texts, held_out, chosen, train, samples, max_tokens)
    place = open_rows_folder(
        Path(folder),
        model,
        tokenizer,
        {
            "settings": chosen.to_dict(),
            "train": train,
            "margin": margin,
            "samples": samples,
            "max_tokens": max_tokens,
            "texts": [describe_text(Path(path)) for path in texts],
            "held_out": [describe_text(Path(path)) for path in held_out],
        },
        resume=resume,
    )
    found: list[Rung] = []
    with tempfile.TemporaryDirectory(prefix="odp-") as scratch:
        paths: list[Path] = []
        for error in sorted(errors):
            rung = place.rung(error)
            known = rung.read()
            if known is None:
                paths = paths or search.written(Path(scratch))
                known = search.rung(paths, error, margin, quality, jobs, rung, circuits, progress)
                rung.write(known)
            found.append(known)
            best = known.healed or known.unhealed
            if best is None or not best.held_out.loss <= quality:
                break
    result = RowsSearch(found, quality, tokens, (train,))
    place.write_result(json.dumps(result.to_dict(), indent=1, allow_nan=False))
    return result


@dataclass(frozen=True)
class _Arm:
    """Circuits and the model that has them."""

    layers: Sequence[CompiledModel]
    model: Any
    circuits: Sequence[Any]


class _Search:
    """What all rungs share: the model, its layers and the texts."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        texts: Sequence[str | Path],
        held_out: Sequence[str | Path],
        settings: HealingSettings,
        train: Train,
        samples: int,
        max_tokens: int,
    ) -> None:
        from odp.evaluation.texts import adds_begin_token, read_texts, tokenise
        from odp.healing.adapters import check_healing_installed
        from odp.healing.bit_linear import is_bit_linear
        from odp.healing.circuit_scoring import windows_of
        from odp.healing.controls import check_held_out
        from odp.healing.decoder_circuits import circuit_ready, static_layers

        check_healing_installed()
        self.original, self.settings, self.train = model, settings, train
        self.is_ternary = any(is_bit_linear(module) for module in model.modules())
        self.windows = _windows(model, tokenizer, texts, settings, settings.seed)
        self.windows.check()
        scored = read_texts(held_out)
        check_held_out(read_texts(texts), scored)
        begin = tokenizer.bos_token_id if adds_begin_token(tokenizer) else None
        tokens = settings.context
        tokenised = tokenise(scored, tokenizer, least=tokens, most=max_tokens)
        self.held_out = windows_of(tokenised, tokens, begin)
        # Other windows than those of the training, of the same texts.
        drawn = _windows(model, tokenizer, texts, settings, settings.seed + 1).drawn_from(0)
        self.calibration = [next(drawn) for _ in range(samples)]
        self.ready = circuit_ready(model)
        self.statics: list[StaticLayer] = static_layers(self.ready, tokens)

    def written(self, folder: Path) -> list[Path]:
        """The layers as ONNX models, with inputs to calibrate them."""
        import torch

        from odp.healing.decoder_circuits import layer_inputs, write_layer

        inputs = layer_inputs(self.ready, torch.stack(self.calibration))
        paths = []
        for number, (static, one) in enumerate(zip(self.statics, inputs, strict=True)):
            paths.append(folder / f"layer-{number}.onnx")
            write_layer(static, one, paths[-1])
        return paths

    def rung(
        self,
        paths: Sequence[Path],
        error: float,
        margin: float,
        quality: float,
        jobs: int,
        place: RungFolder,
        circuits: bool,
        progress: Stage,
    ) -> Rung:
        """Compile, score, heal and score again.

        Args:
            paths: of the layers.
            error: of each of them.
            margin: of the ranges of all values.
            quality: that decides whether circuits are written.
            jobs: layers that are compiled at a time.
            place: where the training is kept.
            circuits: whether to write circuits.
            progress: called when a stage advances.
        """
        from odp.healing.rows_record import Rung
        from odp.layer_circuits import compile_layers

        name, begun = f"error {error:g}", time.perf_counter()

        def compiled(dense: Sequence[str], what: str) -> list[CompiledModel]:
            options = {"error": error, "margin": margin, "dense": dense}
            advance = _stage(progress, f"{what}, {name}")
            return compile_layers(paths, jobs=jobs, progress=advance, **options)

        try:
            layers = compiled((), "Compiling")
            # Signs have no room for an update: those weights are one matrix in what is healed.
            is_dense = self.is_ternary and self.train == "lora"
            dense = compiled(self.settings.targets, "Compiling dense") if is_dense else layers
        except OdpError as problem:
            seconds = time.perf_counter() - begun
            return Rung(error, None, None, failure=" ".join(str(problem).split()), seconds=seconds)
        seconds = time.perf_counter() - begun
        unhealed = self._arm(layers)
        before = self._scored(unhealed)
        arm = self._arm(dense) if is_dense else unhealed
        training = self._trained(arm, place, _stage(progress, f"Healing, {name}"))
        healed = self._healed(arm)
        after = self._scored(healed)
        if circuits:
            better = healed if after.held_out.loss <= quality else unhealed
            point = after if better is healed else before
            if point.held_out.loss <= quality:
                place.save_circuits(better.layers)
        return Rung(error, before, after, training, seconds=seconds)

    def _arm(self, layers: Sequence[CompiledModel]) -> _Arm:
        from odp.backends.ezkl.torch_circuit import TorchCircuit
        from odp.healing.decoder_circuits import put_circuits

        made = [TorchCircuit(one.compiled.program, one.compiled.limits) for one in layers]
        return _Arm(layers, put_circuits(self.ready, made, self.statics), made)

    def _scored(self, arm: _Arm) -> Point:
        from odp.healing.circuit_scoring import score_circuits
        from odp.healing.rows_record import Point
        from odp.layer_circuits import cost_of

        return Point(cost_of(arm.layers), score_circuits(self.original, arm.model, self.held_out))

    def _trained(
        self, arm: _Arm, place: RungFolder, progress: Callable[[int, int], None]
    ) -> dict[str, Any]:
        """Train the circuits in place; what it took."""
        from odp.healing.circuit_adapter import attach_to_circuits
        from odp.healing.training import train_adapter

        attach_to_circuits(arm.circuits, (self.train,), self.settings)
        trained = train_adapter(
            arm.model,
            self.original,
            self.windows,
            self.settings,
            place.training(),
            device="cpu",
            checkpoint_every=self.settings.steps,
            progress=progress,
        )
        return {
            "steps": trained.steps,
            "parameters": trained.parameters,
            "first_kl": trained.first.get("kl"),
            "last_kl": trained.last.get("kl"),
            "seconds": trained.seconds,
        }

    def _healed(self, arm: _Arm) -> _Arm:
        """The circuits with the weights that they have now."""
        from odp.healing.circuit_adapter import healed_program
        from odp.layer_circuits import with_weights

        return self._arm(
            [
                with_weights(layer, healed_program(circuit))
                for layer, circuit in zip(arm.layers, arm.circuits, strict=True)
            ]
        )


def _check(
    errors: Sequence[float], quality: float, train: str, tokens: int, samples: int, jobs: int
) -> None:
    from odp.healing.circuit_adapter import TRAINED

    if not errors:
        raise OdpError("give at least one error for a rung")
    for error in errors:
        if not 0.0 < error < 1.0:
            raise OdpError(f"the error of a rung is a number between 0 and 1, not {error:g}")
    if len(set(errors)) < len(errors):
        raise OdpError("two rungs have the same error")
    if not (quality > 0 and math.isfinite(quality)):
        raise OdpError(f"the quality is a positive change of the perplexity, not {quality:g}")
    if train not in TRAINED:
        raise OdpError(f"what trains is {' or '.join(TRAINED)}, not '{train}'")
    for name, value, least in (("tokens", tokens, 2), ("samples", samples, 1), ("jobs", jobs, 1)):
        if value < least:
            raise OdpError(f"{name} must be at least {least}, not {value}")


def _windows(
    model: Any, tokenizer: Any, texts: Sequence[str | Path], settings: HealingSettings, seed: int
) -> TrainingWindows:
    from odp.healing.training_windows import TrainingWindows

    size: int = model.get_input_embeddings().weight.shape[0]
    paths = [Path(text) for text in texts]
    return TrainingWindows(paths, tokenizer, context=settings.context, seed=seed, vocabulary=size)


def _stage(progress: Stage, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)
