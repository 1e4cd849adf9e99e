"""Layers that torch keeps whole, written out so that their transcendental functions can be seen."""

from __future__ import annotations

from typing import Any

import torch

__all__ = [
    "batch_norm",
    "batch_norm_functional",
    "batch_norm_without_statistics",
    "lstm_layer",
]


def batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Any:
    """Batch norm by the statistics of the batch, which become part of the running ones.

    In inference it stays whole: its root is one of stored numbers.
    """
    del cudnn_enabled
    if not training:
        return NotImplemented
    result, _, _, new_mean, new_var = batch_norm_functional(
        x, weight, bias, running_mean, running_var, training, momentum, eps
    )
    if running_mean is not None and running_var is not None:
        running_mean.copy_(new_mean.detach())
        running_var.copy_(new_var.detach())
    return result


def batch_norm_functional(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    """The same without writing: the result, what its gradient needs, the new running statistics.

    Source: Ioffe and Szegedy, arXiv 1502.03167, algorithm 1; the running variance is unbiased.
    """
    if not training:
        return NotImplemented
    axes = [axis for axis in range(x.dim()) if axis != 1]
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    inverse = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
    result = centred * inverse
    channels = (1, -1, *([1] * (x.dim() - 2)))
    result = result if weight is None else result * weight.view(channels)
    result = result if bias is None else result + bias.view(channels)
    flat = mean.flatten()
    if running_mean is not None and running_var is not None:
        unbiased = wide.var(axes, correction=1)
        running_mean = running_mean * (1.0 - momentum) + flat * momentum
        running_var = running_var * (1.0 - momentum) + unbiased * momentum
    return result.to(x.dtype), flat, inverse.flatten(), running_mean, running_var


def batch_norm_without_statistics(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    """The same for a layer that keeps no running statistics."""
    found = batch_norm_functional(x, weight, bias, None, None, training, momentum, eps)
    return found if found is NotImplemented else found[:3]


def lstm_layer(
    x: torch.Tensor,
    input_weight: torch.Tensor,
    hidden_weight: torch.Tensor,
    input_bias: torch.Tensor,
    hidden_bias: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    reverse: bool,
    *options: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The kernel of oneDNN that torch's own decomposition of an LSTM ends in, step by step.

    Args:
        x: (time, batch, channels).
        input_weight: (4 * hidden channels, channels), gates in the order input, forget, cell,
            output.
        hidden_weight: (4 * hidden channels, hidden channels).
        input_bias: (4 * hidden channels,).
        hidden_bias: likewise.
        hidden: (1, batch, hidden channels).
        cell: likewise.
        reverse: whether time runs backwards.
        options: of the kernel, which change nothing here.

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    linear = torch.nn.functional.linear
    steps = linear(x.flip(0) if reverse else x, input_weight, input_bias)
    h, c = hidden[0], cell[0]
    results = []
    for step in steps.unbind(0):
        gates = step + linear(h, hidden_weight, hidden_bias)
        entering, kept, new, leaving = gates.chunk(4, -1)
        c = torch.sigmoid(kept) * c + torch.sigmoid(entering) * torch.tanh(new)
        h = torch.sigmoid(leaving) * torch.tanh(c)
        results.append(h)
    outputs = torch.stack(results)
    workspace = x.new_empty(0)
    return outputs.flip(0) if reverse else outputs, h[None], c[None], workspace
