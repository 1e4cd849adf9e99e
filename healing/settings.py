"""What a healing is: the adapter, the schedule, the data and the losses."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from odp.approximations.errors import OdpError

__all__ = ["PRESETS", "UNKNOWN_OF_SEED", "HealingSettings", "preset"]

_DTYPES = ("float32", "bfloat16", "float16")
# AdamW's first step is ten times the learning rate, which torch converts to float32.
_LARGEST = 1e36


@dataclass(frozen=True)
class HealingSettings:
    """Everything that decides the adapter that comes out, given a model and texts.

    Attributes:
        rank: of the two factors of each adapter.
        alpha: the product of the factors is scaled by alpha / rank.
        dropout: share of an adapter's inputs that are zeroed while it trains.
        targets: names of the linear layers that get an adapter, as their paths end.
        magnitudes: learning rate of DoRA's magnitudes, one for each output of a layer, relative to
            their size and to `learning_rate`; 0 trains none, which is LoRA.  An expression with a
            wrong slope is undone by scaling whole layers, which no low rank does.
        learning_rate: of AdamW, at its largest.
        final_learning_rate: at the last step, as a share of `learning_rate`.
        warm_up: share of the steps during which the learning rate rises from zero, linearly; after
            it the rate falls along half a cosine.
        weight_decay: of AdamW.
        steps: updates of the adapter.
        batch_size: windows that one process runs at once.
        accumulation: batches whose gradients make one update.
        context: tokens of a window, the begin token included.
        language_model: weight of the negative log-likelihood of the text, in nats a token.  It
            teaches the text's domain too, which the controls show.
        kl: weight of KL(original || adapted), in nats a token.
        features: weight of the mean of |h - h'|^2 / |h|^2 over tokens and decoder blocks, where h
            is a hidden state of the original.
        clipping: largest l2 norm of the gradient; larger ones are scaled down to it.
        dtype: in which matrix products are computed (autocast): float32, bfloat16 or float16.
        gradient_checkpointing: whether blocks are computed again in the backward pass, for less
            memory.
        seed: of the adapter's first numbers, of the order of windows and of dropout.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    magnitudes: float = 0.0
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.0
    warm_up: float = 0.05
    weight_decay: float = 0.0
    steps: int = 300
    batch_size: int = 2
    accumulation: int = 1
    context: int = 256
    language_model: float = 0.0
    kl: float = 1.0
    features: float = 0.0
    clipping: float = 1.0
    dtype: str = "float32"
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every number.

        Raises:
            OdpError: it names the setting and what it may be.
        """
        for name in ("rank", "steps", "batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise OdpError(f"healing: {name} must be at least 1, not {getattr(self, name)}")
        if self.context < 2:
            raise OdpError(f"healing: context must be at least 2 tokens, not {self.context}")
        for name in ("alpha", "learning_rate", "clipping"):
            value = getattr(self, name)
            if not 0 < value <= _LARGEST:
                raise OdpError(
                    f"healing: {name} must be a positive number up to {_LARGEST:g}, not {value}"
                )
        for name in ("magnitudes", "weight_decay", "language_model", "kl", "features"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise OdpError(f"healing: {name} must not be negative, but is {value}")
        for name in ("dropout", "warm_up", "final_learning_rate"):
            value = getattr(self, name)
            if not 0 <= value <= 1 or (name == "dropout" and value == 1):
                raise OdpError(f"healing: {name} is a share between 0 and 1, not {value}")
        if self.language_model == self.kl == self.features == 0:
            raise OdpError("healing: all losses have weight 0; give one of them a positive weight")
        if not self.targets:
            raise OdpError("healing: name at least one layer to adapt, such as q_proj")
        if self.dtype not in _DTYPES:
            raise OdpError(f"healing: dtype is {', '.join(_DTYPES)}, not '{self.dtype}'")

    def rate(self, step: int) -> float:
        """The learning rate of a step; the first is step 1, the last `steps`."""
        warm = math.ceil(self.warm_up * self.steps)
        if step <= warm:
            return self.learning_rate * step / warm
        left = self.steps - warm
        # The step after the last would be at the bottom of the cosine.
        share = (step - warm - 1) / left
        low = self.final_learning_rate
        return self.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * share)))

    @property
    def needs_original(self) -> bool:
        """Whether a loss compares with the original."""
        return self.kl > 0 or self.features > 0

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for JSON."""
        return dataclasses.asdict(self) | {"targets": list(self.targets)}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> HealingSettings:
        """The settings that `to_dict` wrote."""
        return cls(**(tree | {"targets": tuple(tree["targets"])}))


PRESETS = {
    "default": HealingSettings(),
    "layerwise": HealingSettings(magnitudes=5.0, learning_rate=2e-3, steps=100, features=50.0),
    "seed": HealingSettings(
        alpha=32.0,
        dropout=0.05,
        learning_rate=2e-4,
        warm_up=0.03,
        accumulation=4,
        language_model=1.0,
        kl=0.0,
    ),
}
"""Settings by name.

`layerwise` also asks every decoder block for the original's hidden states (Romero et al., FitNets,
arXiv:1412.6550), which tells each of them its own mistake: on SmolLM2, KL after 20 steps was 0.019,
and 0.032 with KL alone (docs/healing.md).  It needs a model with a list of blocks, and magnitudes,
which BitNet layers do not have.

`seed` follows the BitNet b1.58-2B-4T report that ODP continues, as far as we know it: LoRA on q, k,
v and o, a cosine schedule with warm-up, gradient accumulation, and the loss of the language model
alone.  The report that we have says no numbers: those listed in `UNKNOWN_OF_SEED` are what LoRA is
commonly run with (Dettmers et al., QLoRA, arXiv:2305.14314: 2e-4, dropout 0.05), not the seed's.
"""

UNKNOWN_OF_SEED = (
    "rank",
    "alpha",
    "dropout",
    "learning_rate",
    "final_learning_rate",
    "warm_up",
    "weight_decay",
    "steps",
    "batch_size",
    "accumulation",
    "context",
    "clipping",
    "dtype",
    "gradient_checkpointing",
    "seed",
)
"""Settings of the preset `seed` whose numbers are ours, because the report's are not known."""


def preset(name: str) -> HealingSettings:
    """The settings of that name.

    Raises:
        OdpError: there are none.
    """
    if name not in PRESETS:
        raise OdpError(f"there is no preset '{name}'; there are {', '.join(PRESETS)}")
    return PRESETS[name]
