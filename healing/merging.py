"""Adapters of BitNet layers become part of the weights, and models with both are written.

A merged layer is an AutoBitLinear in offline mode: it quantises its input as before, its weight is
dense, its scale 1.  So a merged model is an ordinary checkpoint that `from_pretrained` loads
without ODP; layers without an adapter stay ternary in it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers.integrations.bitnet import AutoBitLinear

from odp.approximations.errors import OdpError
from odp.backends.whole_files import check_writable
from odp.healing.bit_linear import (
    adapted_layers,
    base_output,
    bit_linears,
    kind_of,
    quantised_input,
    ternary_view,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "QuietBitLinear",
    "make_offline",
    "merge_adapters",
    "merged_layer",
    "offline_layer",
    "save_bitnet",
]


class QuietBitLinear(AutoBitLinear):
    """AutoBitLinear in offline mode whose quantiser is not compiled when it is first called.

    In a layer that was packed it rounds in the type of the input, as that layer did.

    Attributes:
        was_packed: whether it replaces a packed layer.
    """

    was_packed = False

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The same as AutoBitLinear's, (..., in) to (..., out)."""
        return base_output(self, quantised_input(self, input))


def offline_layer(
    base: Any, weight: torch.Tensor, scale: torch.Tensor | None, bias: torch.Tensor | None
) -> QuietBitLinear:
    """An offline layer in the place of another.

    Args:
        base: the layer that it replaces; its norm is shared.
        weight: (out, in), kept in its type.
        scale: of the outputs, a scalar; None for 1.
        bias: added after the scale, (out,), or None.
    """
    made: Any
    with torch.device("meta"):
        made = QuietBitLinear(base.in_features, base.out_features, bias=bias is not None)
    made.rms_norm = base.rms_norm
    made.was_packed = kind_of(base) == "packed" or getattr(base, "was_packed", False)
    made.weight = nn.Parameter(weight, requires_grad=False)
    factor = torch.ones(1) if scale is None else scale.reshape(1)
    made.weight_scale = factor.to(weight.device, weight.dtype)
    if bias is not None:
        # This class scales its bias too.
        made.bias = nn.Parameter((bias / factor).to(weight), requires_grad=False)
    made.train(base.training)
    found: QuietBitLinear = made
    return found


def merged_layer(base: Any, update: torch.Tensor, dtype: torch.dtype | None = None) -> Any:
    """A dense layer whose outputs are those of the base plus `update` times its quantised input.

    Args:
        base: AutoBitLinear or BitLinear.
        update: what the adapter adds to the effective weight, float32 or finer, (out, in).
        dtype: of the dense weight; None for that of the base.  The sum is rounded to it once:
            2^-24 relative in float32, 2^-9 in bfloat16.
    """
    view = ternary_view(base)
    target = dtype or _type_of(base)
    weight = (view.dense() + update).to(target)
    return offline_layer(base, weight, None, view.bias)


def _type_of(layer: Any) -> torch.dtype:
    found: torch.dtype = (
        layer.weight_scale.dtype if kind_of(layer) == "packed" else layer.weight.dtype
    )
    return found


def make_offline(model: nn.Module) -> int:
    """Give online and packed layers ternary weights and a scale instead, in place.

    Outputs stay what they were up to float rounding.  Returns how many layers were changed.

    Raises:
        OdpError: the model has no BitNet layers, or an adapter that is not merged.
    """
    if any(True for _ in adapted_layers(model)):
        raise OdpError("the model has adapters that are not merged; call merge_adapters first")
    changed = 0
    for path, layer in bit_linears(model).items():
        if kind_of(layer) != "offline":
            view = ternary_view(layer, path)
            signs = view.signs.to(_type_of(layer))
            model.set_submodule(path, offline_layer(layer, signs, view.scale, view.bias))
            changed += 1
    config = getattr(model, "config", None)
    if config is not None:
        settings = getattr(config, "quantization_config", None)
        config.quantization_config = _offline_settings(settings)
        # transformers writes the settings of this object, where there is one.
        quantiser = getattr(model, "hf_quantizer", None)
        if quantiser is not None:
            quantiser.quantization_config = config.quantization_config
    return changed


def _offline_settings(settings: Any) -> Any:
    from transformers import BitNetQuantConfig

    known = settings if isinstance(settings, dict) else getattr(settings, "__dict__", {})
    return BitNetQuantConfig(
        modules_to_not_convert=known.get("modules_to_not_convert") or ["lm_head"],
        linear_class="autobitlinear",
        quantization_mode="offline",
        use_rms_norm=known.get("use_rms_norm", False),
        rms_norm_eps=known.get("rms_norm_eps", 1e-6),
    )


def merge_adapters(adapted: Any) -> PreTrainedModel:
    """Merge all active adapters and take PEFT's wrapping off, in place.

    Args:
        adapted: what `get_peft_model` made of a BitNet with `see_quantised(config)`.

    Returns:
        The model within it, every BitNet layer offline: with an adapter dense, without ternary.

    Raises:
        OdpError: there is no mergeable adapter.
    """
    if not any(True for _ in adapted_layers(adapted)):
        raise OdpError(
            "no adapter sees the quantised activations of a BitNet layer; make it with "
            "get_peft_model(model, see_quantised(config))"
        )
    merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    make_offline(merged)
    return merged


def save_bitnet(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a BitNet and its tokenizer; the folder appears under its name when it is complete.

    Raises:
        OdpError: the folder exists, or cannot be written.
    """
    if folder.exists():
        raise OdpError(f"cannot write '{folder}': it exists; name a new folder")
    check_writable(folder)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".odp-"))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        temporary.chmod(folder.parent.stat().st_mode & 0o777)
        temporary.replace(folder)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OdpError(f"cannot write '{folder}': {reason}") from None
    except SafetensorError as error:
        # What it raises where the disk is full, among others.
        raise OdpError(f"cannot write '{folder}': {' '.join(str(error).split())}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
