"""BitNet's linear layers: one view of three spellings, and a LoRA that sees what they see.

transformers has them as AutoBitLinear with weights that are rounded in every forward (online),
with ternary weights and a scale (offline), and as BitLinear with four ternary weights in a byte
(packed).  All quantise their input to 8 bits, row by row: levels = round(x * 127 / max|x|).

A LoRA beside such a layer usually reads x, which the layer never sees.  Then base + adapter is no
linear map of anything, and no single weight has its outputs.  `BitLinearLora` reads the quantised
activations, so W q + B A q = (W + B A) q: it merges exactly.

Sources: S. Ma et al., "The Era of 1-bit LLMs", 2024 (the layer); E. Hu et al., "LoRA", 2021;
Y. Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013 (gradients
straight through a rounding).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional

from odp.approximations.errors import OdpError
from odp.healing.int8_adapter import rounded_adapter

__all__ = [
    "BitLinearLora",
    "Kind",
    "QuantisedInput",
    "TernaryView",
    "adapted_layers",
    "adapters_by_class",
    "base_output",
    "bit_linears",
    "is_bit_linear",
    "kind_of",
    "quantise_adapters",
    "quantised_input",
    "see_quantised",
    "straight_through",
    "ternary",
    "ternary_view",
]

Kind = Literal["online", "offline", "packed"]

# What transformers divides by at least: a row or weight of zeros stays zeros.
_SMALLEST = 1e-5


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, exact: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        return rounded.clone()

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def straight_through(exact: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """`rounded` to the bit, with the gradient of `exact`; both of one shape."""
    if not (exact.requires_grad and torch.is_grad_enabled()):
        return rounded
    found: torch.Tensor = _StraightThrough.apply(exact, rounded)  # type: ignore[no-untyped-call]
    return found


@dataclass(frozen=True)
class QuantisedInput:
    """Activations as a bit-linear layer sees them.

    Attributes:
        values: what the weights are multiplied with, (..., in); gradients pass straight through.
        levels: integers from -128 to 127, (..., in), in a floating type.
        scale: values = levels / scale, (..., 1).
    """

    values: torch.Tensor
    levels: torch.Tensor
    scale: torch.Tensor


@dataclass(frozen=True)
class TernaryView:
    """The weights of a bit-linear layer, whichever way it keeps them.

    Attributes:
        kind: how it keeps them.
        signs: -1, 0 and 1, int8, (out, in).
        scale: the effective weight is signs * scale; a scalar, float32 or finer.
        bias: what is added in the end, of the same type, (out,), or None.
    """

    kind: Kind
    signs: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None

    def dense(self) -> torch.Tensor:
        """The effective weight in the type of the scale, (out, in)."""
        return self.signs.to(self.scale.dtype) * self.scale


def is_bit_linear(module: nn.Module) -> bool:
    """Whether a module is one of the bit-linear layers of transformers."""
    from transformers.integrations.bitnet import AutoBitLinear, BitLinear

    return isinstance(module, AutoBitLinear | BitLinear)


def bit_linears(model: nn.Module, name: str = "the model") -> dict[str, Any]:
    """All bit-linear layers by their path, also those that carry an adapter.

    Raises:
        OdpError: there is none.
    """
    found = {path: module for path, module in model.named_modules() if is_bit_linear(module)}
    if not found:
        raise OdpError(
            f"{name} has no BitNet layers (AutoBitLinear or BitLinear); its config.json needs the "
            "quantization_config of a BitNet"
        )
    return found


def kind_of(layer: Any) -> Kind:
    """How a bit-linear layer keeps its weights."""
    if not hasattr(layer, "online_quant"):
        return "packed"
    return "online" if layer.online_quant else "offline"


def ternary_view(layer: Any, path: str = "a layer") -> TernaryView:
    """The ternary weights of a bit-linear layer.

    Args:
        layer: AutoBitLinear or BitLinear.
        path: its name in errors.

    Raises:
        OdpError: an offline layer holds weights that are not all -s, 0 or s, or a packed one the
            bits 11, which mean nothing.
    """
    kind = kind_of(layer)
    stored = layer.weight_scale.dtype if kind == "packed" else layer.weight.dtype
    fine = torch.promote_types(stored, torch.float32)
    bias = None if layer.bias is None else layer.bias.detach().to(fine)
    if kind == "packed":
        signs = _unpacked(layer.weight)
        if int(signs.max()) > 1:
            raise OdpError(f"the packed weights of {path} are damaged: a code is 3 of 0, 1 and 2")
        # This class divides by its scale, where AutoBitLinear multiplies.
        return TernaryView(kind, signs, 1 / layer.weight_scale.detach().to(fine).squeeze(), bias)
    if kind == "online":
        rounded = _ternary(layer.weight.detach())
        scale = rounded.abs().max().to(fine)
        return TernaryView(kind, rounded.sign().to(torch.int8), scale, bias)
    weight = layer.weight.detach()
    size = weight.abs().max()
    if not bool(((weight == 0) | (weight.abs() == size)).all()):
        raise OdpError(
            f"the weights of {path} are not ternary; was an adapter merged into them already?"
        )
    factor = layer.weight_scale.detach().to(fine).squeeze()
    if bias is not None:
        bias = bias * factor
    return TernaryView(kind, weight.sign().to(torch.int8), size * factor, bias)


def _unpacked(packed: torch.Tensor) -> torch.Tensor:
    """int8 (4 rows, in) of uint8 (rows, in); row i has the lowest bits, row i + rows the next."""
    parts = [(packed >> shift) & 3 for shift in (0, 2, 4, 6)]
    return torch.cat(parts).to(torch.int8) - 1


def _ternary(weight: torch.Tensor) -> torch.Tensor:
    """-s, 0 and s nearest to the weights, with s their mean magnitude; in their type."""
    exact = weight.float()
    scale = 1.0 / exact.abs().mean().clamp(min=_SMALLEST)
    return ((exact * scale).round().clamp(-1, 1) / scale).to(weight.dtype)


def ternary(weight: torch.Tensor) -> torch.Tensor:
    """The effective weight of an online layer with this master weight; gradients straight through.

    Args:
        weight: (out, in); the result has its type.
    """
    return straight_through(weight, _ternary(weight.detach()))


def quantised_input(layer: Any, x: torch.Tensor) -> QuantisedInput:
    """The activations that a bit-linear layer makes of its input.

    Args:
        layer: AutoBitLinear or BitLinear.
        x: (..., in).
    """
    if layer.rms_norm is not None:
        x = layer.rms_norm(x)
    # BitLinear rounds in the type of its input, AutoBitLinear always in float32; in bfloat16 these
    # are different levels.
    packed = kind_of(layer) == "packed" or getattr(layer, "was_packed", False)
    exact = x.detach() if packed else x.detach().float()
    scale = 127 / exact.abs().amax(dim=-1, keepdim=True).clamp(min=_SMALLEST)
    levels = (exact * scale).round().clamp(-128, 127)
    values = (levels / scale).to(x.dtype)
    return QuantisedInput(straight_through(x, values), levels, scale)


def base_output(layer: Any, seen: QuantisedInput) -> torch.Tensor:
    """What the layer answers, (..., out); its own arithmetic in its own order."""
    kind = kind_of(layer)
    output: torch.Tensor
    if kind == "packed":
        signs = _unpacked(layer.weight).to(seen.values.dtype)
        # Gradients go through the values, and the levels are values * scale up to rounding.
        levels = straight_through(seen.values * seen.scale, seen.levels)
        scales = layer.weight_scale * seen.scale
        output = functional.linear(levels.to(signs.dtype), signs) / scales
        return output if layer.bias is None else output + layer.bias
    if kind == "online":
        return functional.linear(seen.values, ternary(layer.weight), layer.bias)
    # A merged layer may be kept in a finer type than its neighbours.
    values = seen.values.to(layer.weight.dtype)
    output = functional.linear(values, layer.weight, layer.bias) * layer.weight_scale
    return output.to(seen.values.dtype)


class BitLinearLora(nn.Module, LoraLayer):
    """PEFT's LoRA for a bit-linear layer, reading the quantised activations of that layer.

    Parameters have the names that PEFT gives, so adapters are saved and loaded by PEFT.  Made by
    `see_quantised(config)`, never by hand.  `merge` puts a dense layer in place of the base and is
    exact up to float rounding; it keeps the ternary one for `unmerge`.

    Attributes:
        int8: whether the adapter is rounded to 8 bits in every forward, and trained so.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: Any,
        r: int = 0,
        lora_alpha: int = 1,
        **options: Any,
    ) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer, **options)
        if config.lora_bias:
            raise OdpError("adapters of BitNet layers have no bias; leave lora_bias off")
        if config.use_dora:
            raise OdpError("adapters of BitNet layers have no magnitudes; leave use_dora off")
        self.int8 = False
        self._ternary: nn.Module | None = None
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, lora_alpha=lora_alpha, config=config, **options)

    def factors(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Down (r, in) and up (out, r), whose product is added to the weight; scaling included."""
        down: torch.Tensor = self.lora_A[adapter].get_parameter("weight")
        up: torch.Tensor = self.lora_B[adapter].get_parameter("weight") * self.scaling[adapter]
        if self.int8:
            exact_down, exact_up = down, up
            form = rounded_adapter(down.detach(), up.detach())
            # The two forms split the scale differently; the gradients are those of the factors.
            down = straight_through(exact_down, form.down_values(down.dtype))
            up = straight_through(exact_up, form.up_values(up.dtype))
        return down, up

    def update(self, adapters: list[str] | None = None) -> torch.Tensor:
        """What the adapters add to the effective weight, float32 or finer, (out, in)."""
        names = list(self.active_adapters) if adapters is None else adapters
        total: torch.Tensor | None = None
        for name in names:
            if name not in self.lora_A:
                continue
            down, up = self.factors(name)
            kind = torch.promote_types(down.dtype, torch.float32)
            found = up.to(kind) @ down.to(kind)
            total = found if total is None else total + found
        if total is None:
            raise OdpError(f"no adapter of this layer is named {', '.join(names) or 'anything'}")
        return total.detach()

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Take a dense layer as the base; PEFT's `merge_and_unload` calls this.

        Raises:
            OdpError: `safe_merge` is asked for and the merged weight is not finite.
        """
        from odp.healing.merging import merged_layer

        names = [
            name
            for name in (self.active_adapters if adapter_names is None else adapter_names)
            if name in self.lora_A and name not in self.merged_adapters
        ]
        if not names:
            return
        if self.merged:
            raise OdpError("unmerge before merging more adapters into a BitNet layer")
        base = self.get_base_layer()
        dense = merged_layer(base, self.update(names))
        if safe_merge and not bool(dense.weight.isfinite().all()):
            raise OdpError(f"merging adapter '{names[0]}' gives weights that are not finite")
        # Past nn.Module, so that it is no submodule and is not written to checkpoints.
        object.__setattr__(self, "_ternary", base)
        self.base_layer = dense
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Take the ternary base again, to the bit."""
        if self._ternary is not None:
            base, self._ternary = self._ternary, None
            self.base_layer = base
            self.merged_adapters.clear()

    def forward(self, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """Base and adapters on the same quantised input; (..., in) to (..., out)."""
        if options.get("adapter_names") is not None:
            raise OdpError("adapters of BitNet layers are not mixed within one batch")
        if self.disable_adapters and self.merged:
            self.unmerge()
        base = self.get_base_layer()
        seen = quantised_input(base, x)
        result = base_output(base, seen)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name in self.lora_A:
                down, up = self.factors(name)
                values = self.lora_dropout[name](seen.values.to(down.dtype))
                added = functional.linear(functional.linear(values, down), up)
                result = result + added.to(result.dtype)
        return result


def see_quantised(config: Any) -> Any:
    """Let a `LoraConfig` make `BitLinearLora` of BitNet layers; returns the same config.

    PEFT does not write this to adapter_config.json, so it is called before every
    `get_peft_model(model, config)` and `PeftModel.from_pretrained(model, folder, config=config)`.
    """
    config._register_custom_module(adapters_by_class())
    return config


def adapters_by_class() -> dict[type[nn.Module], type[nn.Module]]:
    """Which adapter each class of linear layers gets, as PEFT's custom modules are declared."""
    from transformers.integrations.bitnet import AutoBitLinear, BitLinear

    return {AutoBitLinear: BitLinearLora, BitLinear: BitLinearLora}


def quantise_adapters(model: nn.Module, int8: bool = True) -> int:
    """Round all adapters of BitNet layers to 8 bits from now on, or no more; how many there are."""
    layers = list(adapted_layers(model))
    for layer in layers:
        layer.int8 = int8
    return len(layers)


def adapted_layers(model: nn.Module) -> Iterator[BitLinearLora]:
    """The layers that carry a mergeable adapter."""
    return (module for module in model.modules() if isinstance(module, BitLinearLora))
