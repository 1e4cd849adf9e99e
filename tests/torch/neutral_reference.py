"""What the operations of the neutral vocabulary mean, in plain torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["MOVES", "REFERENCE"]

Tensor = torch.Tensor

MOVES = frozenset(
    {"reshape", "transpose", "expand", "slice", "squeeze", "unsqueeze", "tile", "identity"}
)
"""Operations whose reading says no more than which operand they move."""


def _clip(x: Tensor, low: float | None, high: float | None) -> Tensor:
    x = x if low is None else torch.maximum(x, torch.tensor(low, dtype=x.dtype))
    return x if high is None else torch.minimum(x, torch.tensor(high, dtype=x.dtype))


def _softmax(x: Tensor, axes: Sequence[int]) -> Tensor:
    weights = torch.exp(x)
    return weights / weights.sum(axes, keepdim=True)


def _layer_norm(
    x: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    axes: Sequence[int],
    epsilon: float,
) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    result = centred / torch.sqrt((centred**2).mean(axes, keepdim=True) + epsilon)
    result = result if scale is None else result * scale
    return result if bias is None else result + bias


def _rms_norm(
    x: Tensor, scale: Tensor | None = None, *, axes: Sequence[int], epsilon: float
) -> Tensor:
    result = x / torch.sqrt((x**2).mean(axes, keepdim=True) + epsilon)
    return result if scale is None else result * scale


def _group_norm(
    x: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    groups: int,
    epsilon: float,
    per_channel: bool,
) -> Tensor:
    assert per_channel
    grouped = x.reshape(x.shape[0], groups, -1)
    result = _layer_norm(grouped, axes=(2,), epsilon=epsilon).reshape(x.shape)
    channels = (1, -1, *([1] * (x.dim() - 2)))
    result = result if scale is None else result * scale.reshape(channels)
    return result if bias is None else result + bias.reshape(channels)


def _instance_norm(
    x: Tensor, scale: Tensor | None = None, bias: Tensor | None = None, *, epsilon: float
) -> Tensor:
    groups = x.shape[1]
    return _group_norm(x, scale, bias, groups=groups, epsilon=epsilon, per_channel=True)


def _gelu(x: Tensor, approximate: str) -> Tensor:
    if approximate == "none":
        return x * (1.0 + torch.erf(x / math.sqrt(2.0))) / 2.0
    return x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))) / 2.0


def _elu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > 0, x, alpha * (torch.exp(x) - 1.0))


def _celu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > 0, x, alpha * (torch.exp(x / alpha) - 1.0))


def _reduction(
    function: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axes: Sequence[int], keepdims: bool, identity_when_empty: bool) -> Tensor:
        assert not identity_when_empty
        return function(x, axes, keepdims) if axes else x

    return reduce


REFERENCE: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(torch, name)
        for name in (
            *("exp", "log", "sqrt", "reciprocal", "sin", "cos", "tan", "sinh", "cosh", "asin"),
            *("acos", "atan", "asinh", "acosh", "atanh", "tanh", "sigmoid", "erf", "neg", "abs"),
            *("relu", "sub", "mul", "div", "pow", "matmul"),
        )
    },
    "add": torch.add,
    "rsqrt": lambda x: 1.0 / torch.sqrt(x),
    "max": torch.maximum,
    "min": torch.minimum,
    "clip": _clip,
    "where": torch.where,
    "greater": torch.gt,
    "silu": lambda x, alpha: x * torch.sigmoid(alpha * x),
    "gelu": _gelu,
    "softplus": lambda x: torch.log(1.0 + torch.exp(x)),
    "mish": lambda x: x * torch.tanh(torch.log(1.0 + torch.exp(x))),
    "elu": _elu,
    "selu": lambda x, alpha, gamma: gamma * _elu(x, alpha),
    "celu": _celu,
    "reduce_mean": _reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "reduce_sum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "reduce_max": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "reduce_l2": _reduction(lambda x, axes, keep: torch.sqrt((x**2).sum(axes, keepdim=keep))),
    "reduce_log_sum_exp": _reduction(
        lambda x, axes, keep: torch.log(torch.exp(x).sum(axes, keepdim=keep))
    ),
    "softmax": _softmax,
    "log_softmax": lambda x, axes: torch.log(_softmax(x, axes)),
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "concat": lambda *tensors, axis: torch.cat(tensors, axis),
    "gather": lambda table, indices, axis: table.index_select(axis, indices),
    "cast": lambda x, dtype: x.to(getattr(torch, dtype)),
}
