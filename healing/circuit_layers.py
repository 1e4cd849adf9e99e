"""BitNet layers for a circuit: explicit ternary weights, and the circuit's integers as quantiser.

A circuit computes in integers at a scale anyway, so a second rounding of the activations to 8 bits
adds error and rows and hides nothing.  Without it a BitNet layer is a matrix product with -s, 0 and
s, which the exporter for EZKL keeps as signs and one scale.  What is left out is measured by
`quantiser_error`: about what 8 bits cost, for the model was trained with them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from odp.approximations.errors import OdpError
from odp.healing.bit_linear import adapted_layers, bit_linears, kind_of, ternary_view
from odp.healing.ternary import dense_layers

__all__ = ["quantiser_error", "without_activation_quantisers"]


def without_activation_quantisers(model: nn.Module) -> int:
    """Put linear layers with the effective weights in the place of BitNet layers, in place.

    Merged layers keep their dense weights.  Returns how many layers were replaced.

    Raises:
        OdpError: there are no BitNet layers, or an adapter that is not merged.
    """
    if any(True for _ in adapted_layers(model)):
        raise OdpError("the model has adapters that are not merged; call merge_adapters first")
    layers = bit_linears(model)
    dense = dense_layers(model)
    for path, layer in layers.items():
        model.set_submodule(path, _linear(layer, path, path in dense))
    return len(layers)


def _linear(layer: Any, path: str, is_dense: bool) -> nn.Module:
    bias: torch.Tensor | None
    if is_dense:
        weight = layer.weight.detach() * layer.weight_scale
        bias = None if layer.bias is None else layer.bias.detach() * layer.weight_scale
    else:
        view = ternary_view(layer, path)
        dtype = layer.weight_scale.dtype if kind_of(layer) == "packed" else layer.weight.dtype
        weight = view.dense().to(dtype)
        bias = None if view.bias is None else view.bias.to(dtype)
    out, inner = weight.shape
    made = nn.Linear(inner, out, bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made if layer.rms_norm is None else nn.Sequential(layer.rms_norm, made)


def quantiser_error(model: Any, bare: Any, tokens: torch.Tensor) -> tuple[float, float]:
    """What leaving the quantisers out does to a model.

    Args:
        model: as it was.
        bare: without its quantisers.
        tokens: ids (batch, tokens).

    Returns:
        Relative l2 difference of the logits, and mean KL in nats a token.
    """
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        first = model(input_ids=tokens, use_cache=False).logits.double()
        second = bare(input_ids=tokens, use_cache=False).logits.double()
    difference = float((second - first).norm() / first.norm())
    exact, other = first.log_softmax(-1), second.log_softmax(-1)
    return difference, float((exact.exp() * (exact - other)).sum(-1).mean())
