"""A merged BitNet layer becomes ternary again, trained straight through, and what that costs.

A merged weight is dense: its products are real multiplications where the original only added.  To
have three values again it is rounded, which erases most of an adapter, since an update is small
beside the distance of the values.  Training then moves the signs that matter: in every step the
weight is rounded, the rounded weight answers, and its gradient goes to the unrounded one.  The
teacher is the dense model itself, so no labels are needed.

Sources: F. Li et al., "Ternary Weight Networks", 2016 (the nearest three values); Y. Bengio et al.,
2013 (straight-through); G. Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from odp.approximations.errors import OdpError
from odp.healing.bit_linear import (
    bit_linears,
    kind_of,
    quantised_input,
    straight_through,
)
from odp.healing.merging import offline_layer

__all__ = ["TernaryPrice", "TernarySettings", "dense_layers", "nearest_ternary", "ternarise"]

# The two alternating steps settle on a matrix in five to ten rounds.
_ROUNDS = 20


@dataclass(frozen=True)
class TernarySettings:
    """How the rounded weights are trained.

    Attributes:
        rate: largest step of a weight, relative to the scale of its layer.  A sign changes when a
            weight has moved by half a scale.
        clip: largest norm of a gradient.
    """

    rate: float = 0.05
    clip: float = 1.0


@dataclass(frozen=True)
class TernaryPrice:
    """What it costs to be ternary again; KL in nats a token, from the dense model, held out.

    Attributes:
        layers: that were dense and are ternary.
        weights: in them.
        kl_rounded: after rounding alone.
        kl_trained: after training.
        changed: share of weights that have another sign than after rounding alone.
        steps: of the training.
        tokens: that it read.
        seconds: that it took on this machine.
        bytes: of unrounded weights and optimiser states, which an adapter does not need.
    """

    layers: int
    weights: int
    kl_rounded: float
    kl_trained: float
    changed: float
    steps: int
    tokens: int
    seconds: float
    bytes: int


def nearest_ternary(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Signs and scale with |weight - signs * scale|^2 smallest, by alternating between the two.

    The mean magnitude, by which AutoBitLinear rounds online, is not that scale: of a weight that is
    ternary already it makes another, smaller by the share of zeros.

    Args:
        weight: (out, in).

    Returns:
        -1, 0 and 1 in the type of the weight, (out, in), and a scalar.
    """
    sizes = weight.abs()
    scale = sizes.mean()
    for _ in range(_ROUNDS):
        large = sizes > 0.5 * scale
        found = (sizes * large).sum() / large.sum().clamp(min=1)
        if bool(found == scale):
            break
        scale = found
    return weight.sign() * (sizes > 0.5 * scale), scale


class _Trained(nn.Module):
    """A dense layer and the ternary one that is to answer like it."""

    def __init__(self, dense: Any) -> None:
        super().__init__()
        self.dense: Any = dense
        self.weight = nn.Parameter(dense.weight.detach().float().clone())
        self.is_teacher = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = quantised_input(self.dense, x)
        if self.is_teacher:
            weight = self.dense.weight
        else:
            signs, scale = nearest_ternary(self.weight.detach())
            weight = straight_through(self.weight, signs * scale).to(self.dense.weight.dtype)
        values = seen.values.to(weight.dtype)
        factor: torch.Tensor = self.dense.weight_scale
        output = functional.linear(values, weight, self.dense.bias) * factor
        return output.to(seen.values.dtype)


def dense_layers(model: nn.Module) -> dict[str, Any]:
    """The offline BitNet layers whose weights have more than three values, by their path.

    Raises:
        OdpError: the model has no BitNet layers.
    """
    found = {}
    for path, layer in bit_linears(model).items():
        if kind_of(layer) == "offline":
            size = layer.weight.abs()
            if not bool(((size == 0) | (size == size.max())).all()):
                found[path] = layer
    return found


def ternarise(
    model: Any,
    batches: Sequence[torch.Tensor],
    held_out: torch.Tensor,
    settings: TernarySettings | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> TernaryPrice:
    """Make every dense BitNet layer ternary, in place, and train the rounded weights.

    Args:
        model: with merged adapters (`merge_adapters`).
        batches: token ids (batch, tokens) to train on, one a step; none for rounding alone.
        held_out: token ids (batch, tokens) that the price is measured on.
        settings: of the training.
        progress: called with "ternary", the step, and how many there are.

    Raises:
        OdpError: no layer is dense, or the loss is not finite: the model is as before then.
    """
    settings = settings or TernarySettings()
    dense = dense_layers(model)
    if not dense:
        raise OdpError("no BitNet layer of the model is dense: there is nothing to make ternary")
    started = time.perf_counter()
    frozen = [p for p in model.parameters() if p.requires_grad]
    trained = {path: _Trained(layer) for path, layer in dense.items()}
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for path, layer in trained.items():
            model.set_submodule(path, layer)
        # Compiling the quantisers of transformers makes sums depend on what was compiled.
        with torch.compiler.set_stance("force_eager"):
            first = {path: _signs(layer) for path, layer in trained.items()}
            rounded = _divergence(model, trained, held_out)
            steps, tokens = _train(model, trained, batches, settings, progress)
            after = _divergence(model, trained, held_out)
    except BaseException:
        for path, layer in dense.items():
            model.set_submodule(path, layer)
        raise
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    changed = weights = 0
    for path, layer in trained.items():
        signs, scale = nearest_ternary(layer.weight.detach())
        changed += int((signs.to(torch.int8) != first[path]).sum())
        weights += signs.numel()
        bias = layer.dense.bias
        factor = layer.dense.weight_scale
        made = offline_layer(
            layer.dense,
            signs.to(layer.dense.weight.dtype),
            scale * factor.float().squeeze(),
            None if bias is None else bias.float() * factor.float(),
        )
        model.set_submodule(path, made)
    return TernaryPrice(
        layers=len(trained),
        weights=weights,
        kl_rounded=rounded,
        kl_trained=after,
        changed=changed / weights,
        steps=steps,
        tokens=tokens,
        seconds=time.perf_counter() - started,
        # A float32 weight, its gradient, and the two moments of Adam.
        bytes=16 * weights,
    )


def _signs(layer: _Trained) -> torch.Tensor:
    return nearest_ternary(layer.weight.detach())[0].to(torch.int8)


def _train(
    model: Any,
    trained: dict[str, _Trained],
    batches: Sequence[torch.Tensor],
    settings: TernarySettings,
    progress: Callable[[str, int, int], None],
) -> tuple[int, int]:
    """Steps and tokens."""
    groups = [
        {
            "params": [layer.weight],
            "lr": settings.rate * float(nearest_ternary(layer.weight.detach())[1]),
        }
        for layer in trained.values()
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    total = len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / max(1, total)))
    )
    weights = [layer.weight for layer in trained.values()]
    for step, batch in enumerate(batches, 1):
        loss = _kl(model, trained, batch)
        if not math.isfinite(loss.item()):
            raise OdpError(
                f"the loss of step {step} is {loss.item()}; the rate {settings.rate} is too high"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, settings.clip)
        optimizer.step()
        schedule.step()
        progress("ternary", step, total)
    return total, sum(batch.numel() for batch in batches)


def _kl(model: Any, trained: dict[str, _Trained], batch: torch.Tensor) -> torch.Tensor:
    """KL from the dense model, nats, the mean over tokens."""
    for layer in trained.values():
        layer.is_teacher = True
    with torch.no_grad():
        teacher = _log_probabilities(model, batch)
    for layer in trained.values():
        layer.is_teacher = False
    student = _log_probabilities(model, batch)
    return (teacher.exp() * (teacher - student)).sum(-1).mean()


def _divergence(model: Any, trained: dict[str, _Trained], batch: torch.Tensor) -> float:
    with torch.no_grad():
        return float(_kl(model, trained, batch))


def _log_probabilities(model: Any, batch: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=batch, use_cache=False).logits
    return logits.float().log_softmax(-1)
