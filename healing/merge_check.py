"""Does a merged adapter answer as the unmerged one did?  Four ways to merge, measured.

A LoRA that reads what its layer never sees cannot be merged, and nothing says so: the merged model
runs, and answers otherwise.  This measures that on the model of the user, beside the way that is
exact.  Each layer is compared on the same inputs, and the whole model on the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from odp.approximations.errors import OdpError
from odp.healing.bit_linear import (
    BitLinearLora,
    adapted_layers,
    base_output,
    bit_linears,
    kind_of,
    quantise_adapters,
    quantised_input,
    ternary,
    ternary_view,
)
from odp.healing.merging import merged_layer
from odp.healing.ternary import nearest_ternary

__all__ = ["MergeCheck", "Way", "check_merge"]

Progress = Callable[[str, int, int], None]

# Sums of thousands of products in another order differ by some units in the last place of float32,
# in which the quantisers compute whatever the type of the model is: 84 units are 1e-5.
_FINE = 1e-5
# In 16 bits the merged weight itself is rounded, by half a unit, and so are all outputs.
_UNITS = 4.0

PEFT, DENSE, OURS = "LoRA of PEFT, merged by PEFT", "LoRA of PEFT, dense weight", "ours"
INT8, ROUNDED = "ours, adapter in int8", "ours, weight ternary again"


@dataclass
class Way:
    """One way to merge, and how far the merged model is from the unmerged one.

    Attributes:
        name: what is done.
        layer: the largest relative l2 error of a layer's outputs, on the same inputs.
        logits: relative l2 error of the model's logits.
        same_top1: share of positions with the same most likely token.
        note: why there are no numbers, or nothing.
    """

    name: str
    layer: float | None = None
    logits: float | None = None
    same_top1: float | None = None
    note: str = ""


@dataclass
class MergeCheck:
    """What `check_merge` found.

    Attributes:
        layers: number of BitNet layers by how they keep their weights.
        adapted: how many of them carry an adapter.
        dtype: of the model.
        tokens: that were run.
        strength: relative Frobenius norm of the updates beside the effective weights, the mean.
        activations: how many quantised activations there are in one run of the model.
        flips: how many of them come to another level in the merged model.  A rounding is a jump:
            where float rounding moves an activation over the middle between two levels, the
            level changes, and what follows differs by far more than float rounding.
        int8_error: relative Frobenius error of the updates in 8 bits, the largest.
        tolerance: how far `layer` of ours may be off for the type.
        ways: the ways, ours among them.
    """

    layers: dict[str, int]
    adapted: int
    dtype: str
    tokens: int
    strength: float
    tolerance: float
    activations: int = 0
    flips: int = 0
    int8_error: float = 0.0
    ways: list[Way] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether merged and unmerged are equal within float rounding."""
        (ours,) = (way for way in self.ways if way.name == OURS)
        return ours.layer is not None and ours.layer <= self.tolerance


def check_merge(
    adapted: Any, tokens: torch.Tensor, progress: Progress = lambda what, done, total: None
) -> MergeCheck:
    """Compare merged with unmerged.

    Args:
        adapted: a BitNet with mergeable adapters that are not merged; it is as before afterwards.
        tokens: (batch, tokens).
        progress: called with a name, what is done and what there is to do.

    Raises:
        OdpError: no layer has a mergeable adapter.
    """
    layers = list(adapted_layers(adapted))
    if not layers:
        raise OdpError("the model has no adapter on a BitNet layer")
    with _unrounded(layers):
        return _checked(adapted, layers, tokens, progress)


def _checked(
    adapted: Any, layers: list[BitLinearLora], tokens: torch.Tensor, progress: Progress
) -> MergeCheck:
    kinds: dict[str, int] = {}
    for layer in bit_linears(adapted).values():
        kinds[kind_of(layer)] = kinds.get(kind_of(layer), 0) + 1
    dtype = adapted.dtype
    strengths = [
        float(a.update().norm() / ternary_view(a.get_base_layer()).dense().norm()) for a in layers
    ]
    check = MergeCheck(
        layers=kinds,
        adapted=len(layers),
        dtype=str(dtype).removeprefix("torch."),
        tokens=tokens.numel(),
        strength=sum(strengths) / len(strengths),
        tolerance=_FINE if dtype.itemsize > 2 else _UNITS * torch.finfo(dtype).eps,
        int8_error=max(_int8_error(layer) for layer in layers),
    )
    # Compiling the quantisers of transformers takes longer than everything here.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        check.ways = _ways(adapted, layers, tokens, check, progress)
    return check


@contextmanager
def _unrounded(layers: list[BitLinearLora]) -> Iterator[None]:
    """Adapters as they are; whether they are rounded to 8 bits is as before afterwards."""
    before = [layer.int8 for layer in layers]
    try:
        for layer in layers:
            layer.int8 = False
        yield
    finally:
        for layer, rounded in zip(layers, before, strict=True):
            layer.int8 = rounded


def _ways(
    adapted: Any,
    layers: list[BitLinearLora],
    tokens: torch.Tensor,
    check: MergeCheck,
    progress: Progress,
) -> list[Way]:
    progress("merge", 0, 4)
    worst: dict[str, float] = {}
    with _watched(layers, worst):
        levels = _levels(adapted, tokens)
        unmerged = next(levels)
    progress("merge", 1, 4)
    before = next(levels)
    with _replaced(layers, lambda layer: merged_layer(layer.get_base_layer(), layer.update())):
        levels = _levels(adapted, tokens)
        ours = _way(OURS, worst, unmerged, next(levels))
        after = next(levels)
    check.activations = sum(one.numel() for one in before)
    check.flips = sum(int((x != y).sum()) for x, y in zip(before, after, strict=True))
    progress("merge", 2, 4)
    quantise_adapters(adapted)
    with _replaced(layers, lambda layer: merged_layer(layer.get_base_layer(), layer.update())):
        int8 = _way(INT8, worst, unmerged, _logits(adapted, tokens))
    quantise_adapters(adapted, False)
    with _replaced(layers, _rounded_again):
        rounded = _way(ROUNDED, worst, unmerged, _logits(adapted, tokens))
    progress("merge", 3, 4)
    naive = _naive(adapted, layers, tokens, worst)
    progress("merge", 4, 4)
    return [*naive, ours, int8, rounded]


def _naive(
    adapted: Any, layers: list[BitLinearLora], tokens: torch.Tensor, worst: dict[str, float]
) -> list[Way]:
    """The same factors in PEFT's own layer, which reads the input before it is quantised."""
    if any(kind_of(layer.get_base_layer()) == "packed" for layer in layers):
        note = "PEFT takes no packed BitLinear"
        return [Way(PEFT, note=note), Way(DENSE, worst[DENSE], note=note)]
    with _replaced(layers, _UnquantisedLora):
        unmerged = _logits(adapted, tokens)
    with _replaced(layers, _merged_by_peft):
        peft = _way(PEFT, worst, unmerged, _logits(adapted, tokens))
    with _replaced(layers, lambda layer: merged_layer(layer.get_base_layer(), layer.update())):
        dense = _way(DENSE, worst, unmerged, _logits(adapted, tokens))
    return [peft, dense]


class _UnquantisedLora(nn.Module):
    """What `peft.tuners.lora.Linear` computes: base(x) + B A x."""

    def __init__(self, layer: BitLinearLora) -> None:
        super().__init__()
        self.base: Any = layer.get_base_layer()
        self.weight = layer.update()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        base = base_output(self.base, quantised_input(self.base, x))
        if self.base.rms_norm is not None:
            x = self.base.rms_norm(x)
        return base + functional.linear(x.to(self.weight.dtype), self.weight).to(base.dtype)


class _Reweighted(nn.Module):
    """A bit-linear layer with another parameter in it."""

    def __init__(self, base: Any, weight: torch.Tensor) -> None:
        super().__init__()
        self.base: Any = base
        self.weight = weight.to(base.weight.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = quantised_input(self.base, x)
        values = seen.values.to(self.weight.dtype)
        if kind_of(self.base) == "online":
            return functional.linear(values, ternary(self.weight), self.base.bias)
        scale: torch.Tensor = self.base.weight_scale
        output = functional.linear(values, self.weight, self.base.bias) * scale
        return output.to(seen.values.dtype)


def _merged_by_peft(layer: BitLinearLora) -> nn.Module:
    """`peft.tuners.lora.Linear.merge`: the update is added to the parameter named weight.

    An online layer rounds that sum to three values again, an offline one scales it.
    """
    base: Any = layer.get_base_layer()
    return _Reweighted(base, base.weight + layer.update().to(base.weight.dtype))


def _rounded_again(layer: BitLinearLora) -> nn.Module:
    """The merged effective weight, rounded to the nearest three values."""
    dense = merged_layer(layer.get_base_layer(), layer.update())
    signs, scale = nearest_ternary(dense.weight)
    dense.weight.copy_(signs * scale)
    found: nn.Module = dense
    return found


def _int8_error(layer: BitLinearLora) -> float:
    with torch.no_grad():
        exact = layer.update()
        layer.int8 = True
        rounded = layer.update()
        layer.int8 = False
    return float((rounded - exact).norm() / exact.norm().clamp(min=1e-30))


@contextmanager
def _replaced(
    layers: list[BitLinearLora], make: Callable[[BitLinearLora], nn.Module]
) -> Iterator[None]:
    """Let other modules answer for the adapted layers; one of them exists at a time."""
    # Others, such as accelerate, may have put a forward of theirs into the layer.
    before = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.__dict__["forward"] = _answers(layer, make)
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.__dict__["forward"]
            if forward is not None:
                layer.__dict__["forward"] = forward


def _answers(
    layer: BitLinearLora, make: Callable[[BitLinearLora], nn.Module]
) -> Callable[[torch.Tensor], torch.Tensor]:
    def answer(x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = make(layer)(x)
        return found

    return answer


@contextmanager
def _watched(layers: list[BitLinearLora], worst: dict[str, float]) -> Iterator[None]:
    """While the unmerged model runs, merge every layer in every way and compare on its input."""

    def watch(layer: nn.Module, inputs: tuple[torch.Tensor], unmerged: torch.Tensor) -> None:
        assert isinstance(layer, BitLinearLora)
        (x,), base = inputs, layer.get_base_layer()
        dense = merged_layer(base, layer.update())
        unquantised = _UnquantisedLora(layer)(x)
        found = {
            OURS: (dense(x), unmerged),
            DENSE: (dense(x), unquantised),
            ROUNDED: (_rounded_again(layer)(x), unmerged),
        }
        if kind_of(base) != "packed":
            found[PEFT] = (_merged_by_peft(layer)(x), unquantised)
        layer.int8 = True
        found[INT8] = (merged_layer(base, layer.update())(x), unmerged)
        layer.int8 = False
        for name, (merged, reference) in found.items():
            worst[name] = max(worst.get(name, 0.0), _relative(merged, reference))

    hooks = [layer.register_forward_hook(watch) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _levels(model: Any, tokens: torch.Tensor) -> Iterator[Any]:
    """First the logits, then the int8 levels of the inputs of all BitNet layers."""
    found: list[torch.Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        base = layer.get_base_layer() if isinstance(layer, BitLinearLora) else layer
        found.append(quantised_input(base, inputs[0]).levels.to(torch.int8))

    watched = {
        path.removesuffix(".base_layer"): layer for path, layer in bit_linears(model).items()
    }
    hooks = [model.get_submodule(path).register_forward_pre_hook(keep) for path in watched]
    try:
        logits = _logits(model, tokens)
    finally:
        for hook in hooks:
            hook.remove()
    yield logits
    yield found


def _logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
    return found


def _way(name: str, worst: dict[str, float], unmerged: torch.Tensor, merged: torch.Tensor) -> Way:
    same = (unmerged.argmax(-1) == merged.argmax(-1)).float().mean()
    return Way(name, worst[name], _relative(merged, unmerged), float(same))


def _relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    difference = (found.double() - reference.double()).norm()
    return float(difference / reference.double().norm().clamp(min=1e-300))
