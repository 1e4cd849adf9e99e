"""Mergeable adapters for a BitNet: read from a folder of PEFT, or made of random numbers."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from odp.approximations.errors import OdpError
from odp.healing.adapters import IDENTITY
from odp.healing.bit_linear import adapted_layers, bit_linears, see_quantised, ternary_view
from odp.healing.identity import Identity

__all__ = ["random_adapter", "read_adapter"]

_WEIGHTS = "adapter_model.safetensors"


def random_adapter(
    model: Any, targets: Sequence[str], rank: int, strength: float, seed: int = 0
) -> Any:
    """A BitNet with a mergeable adapter of random numbers.

    Args:
        model: it is changed in place: PEFT puts the adapter into it.
        targets: last parts of the names of layers.
        rank: of the adapter.
        strength: norm of every update relative to that of its layer's effective weight.
        seed: of the random numbers.

    Raises:
        OdpError: no BitNet layer has such a name.
    """
    known = {path.rpartition(".")[2] for path in bit_linears(model)}
    if not known & set(targets):
        raise OdpError(
            f"no BitNet layer is named {', '.join(targets)}; there are {', '.join(sorted(known))}"
        )
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets))
    adapted = get_peft_model(model, see_quantised(config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in adapted_layers(adapted):
            (name,) = layer.lora_A
            down = layer.lora_A[name].get_parameter("weight")
            up = layer.lora_B[name].get_parameter("weight")
            down.copy_(torch.randn(down.shape, generator=generator))
            up.copy_(torch.randn(up.shape, generator=generator))
            size = ternary_view(layer.get_base_layer()).dense().norm()
            up.mul_(strength * size / layer.update().norm())
    return adapted.eval()


def read_adapter(model: Any, folder: Path) -> Any:
    """A BitNet with the adapter that PEFT saved in a folder, seeing quantised activations.

    Args:
        model: it is changed in place: PEFT puts the adapter into it.
        folder: with adapter_config.json and adapter_model.safetensors.

    Raises:
        OdpError: a file is missing or damaged, the adapter is no LoRA, or it was made for another
            model: by its layers, or by what `odp.heal` has written beside it.
    """
    bit_linears(model)
    file = folder / _WEIGHTS
    for needed in (folder / "adapter_config.json", file):
        if not needed.is_file():
            raise OdpError(f"there is no adapter in '{folder}': {needed.name} is missing")
    _check_owner(model, folder)
    try:
        with safe_open(file, "pt") as stored:
            stored_keys = set(stored.keys())
    except (SafetensorError, OSError) as error:
        raise OdpError(f"cannot read '{file}': {_first(error)}") from None
    try:
        config = LoraConfig.from_pretrained(str(folder))
        with warnings.catch_warnings():
            # About layers that the file has no numbers for, which are an error here.
            warnings.simplefilter("ignore")
            adapted = PeftModel.from_pretrained(
                model, str(folder), config=see_quantised(config), local_files_only=True
            )
    except OdpError:
        raise
    except Exception as error:  # PEFT raises whatever is wrong with the files or the fit
        raise OdpError(
            f"the adapter in '{folder}' does not fit the model: {_first(error)}"
        ) from None
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    unknown, absent = sorted(stored_keys - set(expected)), sorted(set(expected) - stored_keys)
    if unknown or absent:
        first = f"the model has no {unknown[0]}" if unknown else f"it has no {absent[0]}"
        raise OdpError(f"the adapter in '{folder}' was made for another model: {first}")
    if not any(True for _ in adapted_layers(adapted)):
        raise OdpError(f"the adapter in '{folder}' is on none of the BitNet layers of the model")
    return adapted.eval()


def _check_owner(model: Any, folder: Path) -> None:
    """Raise if the adapter is one of `odp.heal` for another model; others have no such record."""
    file = folder / IDENTITY
    if not file.is_file():
        return
    try:
        identity = Identity.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise OdpError(f"cannot read '{file}': {_first(error)}") from None
    # The layers are the same with and without the rational expressions that it was trained for.
    owner = dataclasses.replace(identity, surgery={})
    owner.check(Identity.of(model), f"the adapter in '{folder}'")


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Mismatched shapes stand on the second line.
    return " ".join(lines[:2])[:200] or type(error).__name__
