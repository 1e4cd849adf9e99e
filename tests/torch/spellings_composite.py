"""Spellings of activations, softmaxes and norms: fused, as modules, and written out by hand."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812

from .spellings import Spelling, one_pattern

__all__ = ["ACTIVATIONS", "NORMS", "SOFTMAXES"]

Tensor = torch.Tensor
EPSILON = 1e-5
_GATE = math.sqrt(2.0 / math.pi)

ACTIVATIONS = [
    one_pattern("gelu", "module", torch.nn.GELU()),
    Spelling("gelu", "tanh", torch.nn.GELU(approximate="tanh"), {"gelu_tanh": 1}),
    one_pattern(
        "gelu",
        "erf_by_hand",
        lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
        calls=frozenset({"erf"}),
    ),
    Spelling(
        "gelu",
        "tanh_by_hand",
        lambda x: 0.5 * x * (1.0 + torch.tanh(_GATE * (x + 0.044715 * torch.pow(x, 3.0)))),
        {"gelu_tanh": 1},
        calls=frozenset({"tanh"}),
    ),
    one_pattern("silu", "functional", F.silu),
    one_pattern("silu", "in_place", lambda x: F.silu(x.clone(), inplace=True)),
    one_pattern("silu", "by_hand", lambda x: x * torch.sigmoid(x), calls=frozenset({"sigmoid"})),
    one_pattern("silu", "quotient", lambda x: x / (1.0 + torch.exp(-x)), calls=frozenset({"exp"})),
    Spelling(
        "silu",
        "quick_gelu",
        lambda x: x * torch.sigmoid(1.702 * x),
        {"swish": 1},
        calls=frozenset({"sigmoid"}),
    ),
    one_pattern("softplus", "module", torch.nn.Softplus()),
    one_pattern("softplus", "with_beta", torch.nn.Softplus(beta=2.0)),
    one_pattern("softplus", "with_threshold", torch.nn.Softplus(threshold=2.0)),
    one_pattern(
        "softplus",
        "by_hand",
        lambda x: torch.log(torch.exp(x) + 1.0),
        calls=frozenset({"exp", "log"}),
    ),
    Spelling("softplus", "log_sigmoid", F.logsigmoid, {"log_sigmoid": 1}),
    Spelling(
        "softplus",
        "cross_entropy",
        lambda x: F.binary_cross_entropy_with_logits(x, (x > 0).float(), reduction="none"),
        {"log_sigmoid": 1},
    ),
    one_pattern("mish", "functional", F.mish),
    one_pattern(
        "mish",
        "by_hand",
        lambda x: x * torch.tanh(F.softplus(x)),
        calls=frozenset({"softplus", "tanh"}),
    ),
    one_pattern("elu", "functional", lambda x: F.elu(x, 0.7)),
    one_pattern("elu", "in_place", lambda x: F.elu_(x.clone())),
    one_pattern("selu", "module", torch.nn.SELU()),
    one_pattern("celu", "functional", lambda x: F.celu(x, 1.5)),
]


def _exponentials(x: Tensor) -> Tensor:
    return torch.exp(x - x.amax(-1, keepdim=True))


def _by_hand(x: Tensor) -> Tensor:
    weights = _exponentials(x)
    return weights / weights.sum(-1, keepdim=True)


def _with_max(x: Tensor) -> Tensor:
    weights = torch.exp(x - x.max(-1, keepdim=True)[0])
    return weights / weights.sum(-1, keepdim=True)


def _unshifted(x: Tensor) -> Tensor:
    weights = torch.exp(x)
    return weights / weights.sum(-1, keepdim=True)


def _attention(x: Tensor) -> Tensor:
    heads = x[:, None]
    return F.scaled_dot_product_attention(heads, heads, heads, is_causal=True)


def _masked(x: Tensor) -> Tensor:
    future = torch.ones(x.shape[-2], x.shape[-1], dtype=torch.bool).triu(1)
    return torch.softmax(x.masked_fill(future, -torch.inf), -1)


SOFTMAXES = [
    one_pattern("softmax", "functional", lambda x: F.softmax(x, dim=-1)),
    one_pattern("softmax", "method", lambda x: x.softmax(1)),
    one_pattern("softmax", "module", torch.nn.Softmax(dim=0)),
    one_pattern("softmax", "special", lambda x: torch.special.softmax(x, -1)),
    one_pattern("softmax", "minimum", lambda x: F.softmin(x, -1)),
    one_pattern("softmax", "masked", _masked),
    one_pattern("softmax", "wide", lambda x: torch.softmax(x.bfloat16(), -1, dtype=torch.float32)),
    one_pattern("softmax", "attention", _attention),
    Spelling("softmax", "by_hand", _by_hand, {"exp_of_shifted": 1}, calls=frozenset({"exp"})),
    Spelling("softmax", "with_max", _with_max, {"exp_of_shifted": 1}, calls=frozenset({"exp"})),
    Spelling("softmax", "unshifted", _unshifted, {"exp_over_sum": 1}, calls=frozenset({"exp"})),
    one_pattern("log_softmax", "functional", lambda x: F.log_softmax(x, -1)),
    one_pattern(
        "log_softmax",
        "of_softmax",
        lambda x: torch.log(torch.softmax(x, -1)),
        calls=frozenset({"softmax", "log"}),
    ),
    Spelling("log_softmax", "log_sum_exp", lambda x: torch.logsumexp(x, -1), {"log_sum_exp": 1}),
    one_pattern(
        "log_softmax",
        "cross_entropy",
        lambda x: F.cross_entropy(x.flatten(0, 1), torch.arange(12) % 8, reduction="none"),
    ),
]


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def _layer_norm(x: Tensor) -> Tensor:
    centred = _centred(x)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + EPSILON)


def _layer_norm_again(x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).pow(2).mean(-1, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + EPSILON)


def _root_mean_square(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON)


def _root_mean_square_again(x: Tensor) -> Tensor:
    return x / (torch.square(x).mean(-1, keepdim=True) + EPSILON).sqrt()


def _wide_root_mean_square(x: Tensor) -> Tensor:
    wide = x.bfloat16().float()
    return wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + EPSILON)


def _with_weights(norm: torch.nn.Module) -> torch.nn.Module:
    """Weights that are not all ones."""
    for number, parameter in enumerate(norm.parameters()):
        torch.nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(number))
    return norm.requires_grad_(False)


def _batch_statistics(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True)


NORMS = [
    one_pattern("layer_norm", "module", _with_weights(torch.nn.LayerNorm(8))),
    one_pattern("layer_norm", "two_axes", _with_weights(torch.nn.LayerNorm((6, 8)))),
    one_pattern("layer_norm", "functional", lambda x: F.layer_norm(x, (8,))),
    one_pattern("layer_norm", "without_bias", _with_weights(torch.nn.LayerNorm(8, bias=False))),
    one_pattern(
        "layer_norm", "native", lambda x: torch.native_layer_norm(x, (8,), None, None, 1e-5)[0]
    ),
    Spelling(
        "layer_norm",
        "by_hand",
        _layer_norm,
        {"layer_norm_spelled_out": 1},
        calls=frozenset({"sqrt"}),
    ),
    Spelling(
        "layer_norm",
        "by_hand_again",
        _layer_norm_again,
        {"layer_norm_spelled_out": 1},
        calls=frozenset({"rsqrt"}),
    ),
    Spelling("layer_norm", "batch", _batch_statistics, {"layer_norm_spelled_out": 1}),
    one_pattern("rms_norm", "module", _with_weights(torch.nn.RMSNorm(8, eps=1e-3))),
    one_pattern("rms_norm", "functional", lambda x: F.rms_norm(x, (8,))),
    Spelling(
        "rms_norm",
        "by_hand",
        _root_mean_square,
        {"rms_norm_spelled_out": 1},
        calls=frozenset({"rsqrt"}),
    ),
    Spelling(
        "rms_norm",
        "by_hand_again",
        _root_mean_square_again,
        {"rms_norm_spelled_out": 1},
        calls=frozenset({"sqrt"}),
    ),
    Spelling(
        "rms_norm",
        "wide",
        _wide_root_mean_square,
        {"rms_norm_spelled_out": 1},
        calls=frozenset({"rsqrt"}),
    ),
    one_pattern("group_norm", "module", _with_weights(torch.nn.GroupNorm(2, 6))),
    one_pattern("group_norm", "without_weights", lambda x: F.group_norm(x, 3)),
    one_pattern("instance_norm", "module", _with_weights(torch.nn.InstanceNorm1d(6, affine=True))),
    one_pattern("instance_norm", "without_weights", F.instance_norm),
]
