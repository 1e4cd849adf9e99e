"""Score texts under the original and its variants, window by window.

At any time there are in memory: the logits of one window under the original and under one variant,
and the hidden states of the original in that window.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.evaluation.distributions import Comparison, compare, losses
from odp.evaluation.layers import LayerErrors, decoder_blocks, hidden_states
from odp.evaluation.record import Difference, Perplexity
from odp.evaluation.texts import TokenisedText
from odp.evaluation.variant_names import ORIGINAL
from odp.evaluation.windows import Window, sliding_windows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["DifferenceSums", "LossSums", "Scores", "score_texts"]


@dataclass
class LossSums:
    """Sums over tokens of what makes a `Perplexity`."""

    tokens: int = 0
    loss: float = 0.0
    not_finite: int = 0

    def add(self, losses: NDArray[np.float64], not_finite: int) -> None:
        """Add the losses of some positions, in nats, shape (positions,)."""
        self.tokens += losses.size
        self.loss += float(losses.sum())
        self.not_finite += not_finite

    def perplexity(self) -> Perplexity:
        """The perplexity over all positions that were added."""
        return Perplexity(self.tokens, _exp(self.loss / self.tokens), self.not_finite)


@dataclass
class DifferenceSums:
    """Sums over tokens of what makes a `Difference`."""

    tokens: int = 0
    kl: float = 0.0
    max_kl: float = 0.0
    top1: int = 0
    top5: float = 0.0
    top10: float = 0.0
    cosine: float = 0.0
    min_cosine: float = math.inf

    def add(self, found: Comparison) -> None:
        """Add some positions."""
        self.tokens += found.kl.size
        self.kl += float(found.kl.sum())
        self.max_kl = max(self.max_kl, float(found.kl.max()))
        self.top1 += int(found.same_top.sum())
        self.top5 += float(found.shared_top[5].sum())
        self.top10 += float(found.shared_top[10].sum())
        self.cosine += float(found.cosine.sum())
        self.min_cosine = min(self.min_cosine, float(found.cosine.min()))

    def difference(self, original: LossSums, variant: LossSums) -> Difference:
        """The difference over all positions that were added.

        Args:
            original: losses of the original at these positions.
            variant: losses of the variant.
        """
        # From the losses and not from the perplexities, whose quotient would lose small changes.
        change = (variant.loss - original.loss) / self.tokens
        is_finite = math.isfinite(variant.loss) and math.isfinite(original.loss)
        return Difference(
            perplexity_change=_expm1(change) if is_finite else math.inf,
            mean_kl=self.kl / self.tokens,
            max_kl=self.max_kl,
            top1=self.top1 / self.tokens,
            top5=self.top5 / self.tokens,
            top10=self.top10 / self.tokens,
            cosine=self.cosine / self.tokens,
            min_cosine=self.min_cosine if math.isfinite(self.cosine) else math.inf,
        )


@dataclass
class Scores:
    """What scoring found; `original` is the key of the original.

    Attributes:
        texts: by model and text.
        totals: by model.
        differences: by variant and text.
        total_differences: by variant.
        layer_errors: by variant, see `LayerErrors.relative`; only where they could be measured.
        warnings: one line each.
    """

    texts: dict[str, dict[str, Perplexity]] = field(default_factory=dict)
    totals: dict[str, Perplexity] = field(default_factory=dict)
    differences: dict[str, dict[str, Difference]] = field(default_factory=dict)
    total_differences: dict[str, Difference] = field(default_factory=dict)
    layer_errors: dict[str, list[float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def score_texts(
    original: PreTrainedModel,
    variants: Mapping[str, PreTrainedModel],
    texts: Sequence[TokenisedText],
    *,
    context: int,
    stride: int,
    begin_token: int | None,
    layers: bool,
    progress: Callable[[str, int, int], None],
) -> Scores:
    """Score all texts under all models; every model sees the same windows.

    Args:
        original: the original.
        variants: the variants by name.
        texts: the texts.
        context: tokens per window, the begin token included.
        stride: tokens by which windows advance.
        begin_token: id of the token to put before every window, or None.
        layers: whether to measure the hidden states after each decoder block.
        progress: called as `progress("score", windows done, windows in all)`.

    Raises:
        OdpError: the vocabularies differ, or a device runs out of memory.
    """
    plans = [
        sliding_windows(len(text.tokens), context, stride, begin_token=begin_token is not None)
        for text in texts
    ]
    done, total = 0, sum(len(windows) for windows in plans)
    run = _Run(original, variants, begin_token, layers)
    progress("score", 0, total)
    for text, windows in zip(texts, plans, strict=True):
        for window in windows:
            run.score(text, window)
            done += 1
            progress("score", done, total)
    return run.scores()


class _Run:
    """Sums by model and text, and how one window is added to them."""

    def __init__(
        self,
        original: PreTrainedModel,
        variants: Mapping[str, PreTrainedModel],
        begin_token: int | None,
        layers: bool,
    ) -> None:
        self.original, self.variants, self.begin_token = original, variants, begin_token
        self.losses: dict[str, dict[str, LossSums]] = {n: {} for n in (ORIGINAL, *variants)}
        self.differences: dict[str, dict[str, DifferenceSums]] = {name: {} for name in variants}
        self.warnings: list[str] = []
        self.blocks = decoder_blocks(original) if layers else []
        if layers and not self.blocks:
            self.warnings.append("layers: the original has no list of decoder blocks")
        self.variant_blocks = {
            name: blocks
            for name, model in variants.items()
            if (blocks := self._matching(name, model))
        }
        self.layer_errors = {name: LayerErrors() for name in self.variant_blocks}

    def _matching(self, name: str, model: PreTrainedModel) -> list[torch.nn.Module]:
        if not self.blocks:
            return []
        blocks = decoder_blocks(model)
        if len(blocks) == len(self.blocks):
            return blocks
        self.warnings.append(
            f"layers: '{name}' has {len(blocks)} decoder blocks, the original {len(self.blocks)}"
        )
        return []

    def score(self, text: TokenisedText, window: Window) -> None:
        """Add one window of one text under all models."""
        ids = text.tokens[window.begin : window.end]
        if self.begin_token is not None:
            ids = np.concatenate([[self.begin_token], ids])
        targets = text.tokens[window.first_scored : window.end]
        kept: dict[int, torch.Tensor] = {}

        def keep(index: int, hidden: torch.Tensor) -> None:
            # A copy, because the next block may write into the same memory.
            kept[index] = hidden.clone()

        with hidden_states(self.blocks, window.rows, keep):
            exact = _logits(self.original, ORIGINAL, ids)[window.rows]
        if len(kept) != len(self.blocks):
            self.warnings.append("layers: the original does not call its decoder blocks")
            self.blocks = []
            self.layer_errors.clear()
        wanted = _on_device(targets, exact)
        found, missing = losses(exact, wanted)
        self.losses[ORIGINAL].setdefault(text.name, LossSums()).add(found, missing)
        for name, model in self.variants.items():
            with self._watched(name, window.rows, kept):
                logits = _logits(model, name, ids)[window.rows]
            if logits.shape != exact.shape:
                raise OdpError(
                    f"'{name}' gives {logits.shape[-1]} logits for each position, the original "
                    f"{exact.shape[-1]}: they must have the same vocabulary"
                )
            comparison, missing = compare(exact, logits, wanted)
            self.losses[name].setdefault(text.name, LossSums()).add(comparison.loss, missing)
            self.differences[name].setdefault(text.name, DifferenceSums()).add(comparison)
            # Not while the next variant makes its own.
            del logits

    @contextlib.contextmanager
    def _watched(self, name: str, rows: slice, kept: Mapping[int, torch.Tensor]) -> Iterator[None]:
        """Add the hidden states of a variant that runs within to its `layer_errors`."""
        errors = self.layer_errors.get(name)
        if errors is None:
            yield
            return
        seen: set[int] = set()

        def see(index: int, hidden: torch.Tensor) -> None:
            seen.add(index)
            errors.add(index, kept[index], hidden)

        with hidden_states(self.variant_blocks[name], rows, see):
            yield
        if len(seen) != len(kept):
            del self.layer_errors[name]
            self.warnings.append(f"layers: '{name}' does not call its decoder blocks")

    def scores(self) -> Scores:
        """Everything that was added, and its totals over all texts."""
        result = Scores(warnings=self.warnings)
        totals = {name: _sum_losses(sums) for name, sums in self.losses.items()}
        for name, by_text in self.losses.items():
            result.texts[name] = {text: sums.perplexity() for text, sums in by_text.items()}
            result.totals[name] = totals[name].perplexity()
        for name, differences in self.differences.items():
            result.differences[name] = {
                text: sums.difference(self.losses[ORIGINAL][text], self.losses[name][text])
                for text, sums in differences.items()
            }
            total = _sum_differences(differences)
            result.total_differences[name] = total.difference(totals[ORIGINAL], totals[name])
        result.layer_errors = {name: e.relative() for name, e in self.layer_errors.items()}
        return result


def _logits(model: PreTrainedModel, name: str, ids: NDArray[np.int64]) -> torch.Tensor:
    """Logits of one window, in the type of the model, shape (tokens, vocabulary)."""
    import torch

    inputs = torch.from_numpy(ids).to(model.device)[None]
    try:
        with torch.no_grad():
            logits: torch.Tensor = model(input_ids=inputs, use_cache=False).logits
    except torch.OutOfMemoryError:
        raise OdpError(
            f"'{name}': out of memory on {model.device} with a context of {len(ids)} tokens; "
            "use a smaller context"
        ) from None
    return logits[0]


def _on_device(targets: NDArray[np.int64], logits: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.from_numpy(targets).to(logits.device)


def _sum_losses(by_text: Mapping[str, LossSums]) -> LossSums:
    total = LossSums()
    for sums in by_text.values():
        total.tokens += sums.tokens
        total.loss += sums.loss
        total.not_finite += sums.not_finite
    return total


def _sum_differences(by_text: Mapping[str, DifferenceSums]) -> DifferenceSums:
    total = DifferenceSums()
    for sums in by_text.values():
        total.tokens += sums.tokens
        total.kl += sums.kl
        total.max_kl = max(total.max_kl, sums.max_kl)
        total.top1 += sums.top1
        total.top5 += sums.top5
        total.top10 += sums.top10
        total.cosine += sums.cosine
        total.min_cosine = min(total.min_cosine, sums.min_cosine)
    return total


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _expm1(value: float) -> float:
    try:
        return math.expm1(value)
    except OverflowError:
        return math.inf
