"""Which ATen operators hide a transcendental function or a root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from odp.rewriter.fx_vocabulary import bound

__all__ = ["is_transcendental", "is_transcendental_call"]

# Whatever their arguments.
_TRANSCENDENTAL: frozenset[str] = frozenset(
    {
        *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "erf", "erfc"),
        *("erfinv", "sin", "cos", "tan", "sinh", "cosh", "asin", "acos", "atan", "atan2", "asinh"),
        *("acosh", "atanh", "tanh", "sigmoid", "log_sigmoid", "log_sigmoid_forward", "silu"),
        *("gelu", "softplus", "mish", "elu", "selu", "celu", "logit", "hypot", "sinc", "xlogy"),
        *("special_erfc", "special_erfcx", "special_expm1", "special_log1p", "special_xlogy"),
        *("special_log_ndtr", "special_ndtr", "special_ndtri", "special_entr", "special_xlog1py"),
        *("lgamma", "digamma", "polygamma", "mvlgamma", "i0", "special_i0e", "special_zeta"),
        *("logaddexp", "logaddexp2", "logcumsumexp", "_logcumsumexp", "logsumexp", "glu"),
        *("softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax", "std"),
        *("std_mean", "layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"),
        *("group_norm", "native_group_norm", "instance_norm", "cosine_similarity", "cdist"),
        *("_cdist_forward", "pairwise_distance", "pdist", "_pdist_forward", "renorm", "erfinv"),
        *("cosine_embedding_loss", "cross_entropy_loss", "binary_cross_entropy", "dist"),
        *("binary_cross_entropy_with_logits", "lstm", "gru", "rnn_tanh", "lstm_cell", "gru_cell"),
        *("rnn_tanh_cell", "_weight_norm", "_weight_norm_interface", "embedding_renorm"),
        *("scaled_dot_product_attention", "_native_multi_head_attention", "linalg_norm"),
        *("_transformer_encoder_layer_fwd", "_scaled_dot_product_flash_attention"),
        *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention"),
        *("_scaled_dot_product_attention_math", "_scaled_dot_product_cudnn_attention"),
        *("_scaled_dot_product_fused_attention_overrideable", "frobenius_norm", "nuclear_norm"),
    }
)
_TRAINING_NORMS = frozenset({"batch_norm", "native_batch_norm", "_native_batch_norm_legit"})


def is_transcendental(node: fx.Node) -> bool:
    """Whether a node computes, or hides, a transcendental function or a root."""
    return node.op == "call_function" and is_transcendental_call(
        node.target, node.args, node.kwargs
    )


def is_transcendental_call(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call of an operator computes, or hides, a transcendental function or a root.

    A power counts unless its exponent is a whole number, a norm unless its order is 1 or infinite,
    batch norm only in training: in inference its root is one of stored numbers.

    Args:
        target: an operator of torch, or anything else that an fx graph calls.
        args: its arguments by position, fx nodes or values.
        kwargs: its arguments by name.
    """
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return False
    name = str(target._schema.name).partition("::")[2].removesuffix("_")
    if name in ("pow", "float_power"):
        exponent = bound(target, args, kwargs)["exponent"]
        return not (isinstance(exponent, int | float) and float(exponent).is_integer())
    if name in ("linalg_vector_norm", "norm"):
        arguments = bound(target, args, kwargs)
        return arguments.get("ord", arguments.get("p", 2)) not in (0, 1, float("inf"))
    if name in _TRAINING_NORMS:
        arguments = bound(target, args, kwargs)
        return bool(arguments.get("training", arguments.get("train", True)))
    return name in _TRANSCENDENTAL
