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
        *("group_norm", "native_group_norm", "cosine_similarity", "cdist"),
        *("_cdist_forward", "pairwise_distance", "pdist", "_pdist_forward", "renorm", "erfinv"),
        *("cosine_embedding_loss", "cross_entropy_loss", "binary_cross_entropy", "dist"),
        *("binary_cross_entropy_with_logits", "lstm", "gru", "rnn_tanh", "lstm_cell", "gru_cell"),
        *("rnn_tanh_cell", "_weight_norm", "_weight_norm_interface", "embedding_renorm"),
        *("scaled_dot_product_attention", "_native_multi_head_attention", "linalg_norm"),
        *("_transformer_encoder_layer_fwd", "_scaled_dot_product_flash_attention"),
        *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention"),
        *("_scaled_dot_product_attention_math", "_scaled_dot_product_cudnn_attention"),
        *("_scaled_dot_product_fused_attention_overrideable", "frobenius_norm", "nuclear_norm"),
        *("_flash_attention_forward", "_efficient_attention_forward", "linalg_matrix_norm"),
        # What recurrent layers run as: oneDNN, cuDNN, MIOpen, and cells of CUDA.
        *("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "_thnn_fused_lstm_cell"),
        *("_thnn_fused_gru_cell", "kl_div", "poisson_nll_loss", "triplet_margin_loss", "ctc_loss"),
        *("soft_margin_loss", "_ctc_loss", "_euclidean_dist", "corrcoef", "angle", "polar"),
        *("ldexp", "igamma", "igammac", "special_polygamma", "special_airy_ai", "special_i0"),
        *("special_i1", "special_i1e", "special_bessel_j0", "special_bessel_j1"),
        *("special_bessel_y0", "special_bessel_y1", "special_modified_bessel_i0"),
        *("special_modified_bessel_i1", "special_modified_bessel_k0"),
        *("special_modified_bessel_k1", "special_scaled_modified_bessel_k0"),
        *("special_scaled_modified_bessel_k1", "special_spherical_bessel_j0"),
        # Factorisations take roots.
        *("cholesky", "linalg_cholesky", "linalg_cholesky_ex", "linalg_qr", "geqrf", "linalg_svd"),
        *("_linalg_svd", "linalg_eig", "linalg_eigh", "_linalg_eigh", "linalg_matrix_exp"),
        *("matrix_exp", "logdet", "linalg_slogdet", "_linalg_slogdet"),
    }
)
# Norms whose root is one of stored numbers unless this argument says otherwise.
_STATISTICS: Mapping[str, str] = {
    "batch_norm": "training",
    "native_batch_norm": "training",
    "_native_batch_norm_legit": "training",
    "_native_batch_norm_legit_functional": "training",
    "_batch_norm_impl_index": "training",
    "cudnn_batch_norm": "training",
    "miopen_batch_norm": "training",
    "instance_norm": "use_input_stats",
}
_ALWAYS_TRAINING = frozenset({"_batch_norm_with_update", "_batch_norm_with_update_functional"})


def is_transcendental(node: fx.Node) -> bool:
    """Whether a node computes, or hides, a transcendental function or a root."""
    return node.op == "call_function" and is_transcendental_call(
        node.target, node.args, node.kwargs
    )


def is_transcendental_call(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call of an operator computes, or hides, a transcendental function or a root.

    A power counts unless its exponent is a whole number, a norm unless its order is 1 or infinite,
    batch norm only in training: in inference its root is one of stored numbers.  The absolute
    value of a complex number is a root.

    Args:
        target: an operator of torch, or anything else that an fx graph calls.
        args: its arguments by position, fx nodes or values.
        kwargs: its arguments by name.
    """
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if target.namespace != "aten":
        # torch.nn.functional.linear_cross_entropy, an operator of its own.
        return target.namespace == "torch_nn" and "cross_entropy" in str(target._schema.name)
    name = str(target._schema.name).partition("::")[2].removesuffix("_")
    if name in ("pow", "float_power"):
        exponent = bound(target, args, kwargs)["exponent"]
        return not (isinstance(exponent, int | float) and float(exponent).is_integer())
    if name in ("linalg_vector_norm", "norm"):
        arguments = bound(target, args, kwargs)
        order = arguments.get("ord", arguments.get("p", 2))
        return order not in (0, 1, float("inf"), float("-inf"))
    if name in _STATISTICS:
        return bool(bound(target, args, kwargs)[_STATISTICS[name]])
    if name in ("abs", "sgn"):
        return _is_complex(args[0])
    return name in _TRANSCENDENTAL or name in _ALWAYS_TRAINING


def _is_complex(argument: Any) -> bool:
    value = argument.meta.get("val") if isinstance(argument, fx.Node) else argument
    return isinstance(value, torch.Tensor) and value.is_complex()
