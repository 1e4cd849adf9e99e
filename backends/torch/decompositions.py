"""Torch operators that hide a transcendental function and that no pass knows, taken apart.

Only these: what a pass recognises whole (softmax, GELU, layer norm, ...) stays whole, and so does
everything without a transcendental function, such as `linear`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from odp.backends.torch.attention import attention
from odp.backends.torch.layer_decompositions import (
    batch_norm,
    batch_norm_functional,
    batch_norm_without_statistics,
    lstm_layer,
)

__all__ = ["decomposition_table"]

# Operators for which torch has a decomposition into those that the vocabulary knows.
_TORCH_HAS_ONE = frozenset(
    {
        *("logit", "special_erfc", "std", "std_mean", "logaddexp", "logaddexp2", "float_power"),
        *(
            "cosine_similarity",
            "cross_entropy_loss",
            "binary_cross_entropy",
            "glu",
            "sinc",
            "xlogy",
        ),
        *("binary_cross_entropy_with_logits", "lstm", "gru", "rnn_tanh", "lstm_cell", "gru_cell"),
        *("pairwise_distance", "renorm", "_weight_norm", "_weight_norm_interface", "linalg_norm"),
        *("frobenius_norm", "special_log_ndtr", "special_ndtr", "special_expm1", "special_log1p"),
        *("special_entr", "_fused_rms_norm", "cosine_embedding_loss", "linalg_matrix_norm"),
        *("kl_div", "poisson_nll_loss", "triplet_margin_loss", "soft_margin_loss", "rnn_tanh_cell"),
        *("special_xlog1py", "special_xlogy", "special_sinc", "special_logit"),
    }
)
_VANISHING = 16.0
"""Above this softplus(x) is x to 1e-7 and the threshold of torch does nothing that can be seen."""

# Other names for operators of the vocabulary.
_ALIASES = frozenset(
    {
        *("arccos", "arcsin", "arctan", "arccosh", "arcsinh", "arctanh", "arctan2", "absolute"),
        *("negative", "multiply", "divide", "true_divide", "subtract", "clip", "concat"),
        *("concatenate", "greater", "special_expit", "special_erf", "special_exp2"),
        *("special_softmax", "special_log_softmax", "special_logsumexp", "special_erfinv"),
        *("special_i0", "special_gammaln", "special_digamma", "special_psi", "special_polygamma"),
        *("special_gammainc", "special_gammaincc", "special_multigammaln"),
    }
)


def _log1p(x: torch.Tensor) -> torch.Tensor:
    return torch.log(x + 1.0)


def _expm1(x: torch.Tensor) -> torch.Tensor:
    return torch.exp(x) - 1.0


def _exp2(x: torch.Tensor) -> torch.Tensor:
    return torch.exp(x * math.log(2.0))


def _log2(x: torch.Tensor) -> torch.Tensor:
    return torch.log(x) * (1.0 / math.log(2.0))


def _log10(x: torch.Tensor) -> torch.Tensor:
    return torch.log(x) * (1.0 / math.log(10.0))


def _erfc(x: torch.Tensor) -> torch.Tensor:
    return 1.0 - torch.erf(x)


def _hypot(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.sqrt(x * x + y * y)


def _log_sigmoid(x: torch.Tensor) -> torch.Tensor:
    # The softplus pass knows this as one function; log1p(exp(-|x|)) would be two.
    return torch.log(torch.sigmoid(x))


def _safe_softmax(x: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Softmax in which a row of -inf becomes zeros instead of NaN."""
    x = x if dtype is None else x.to(dtype)
    defined = x > -math.inf
    scores = torch.where(defined, x, torch.finfo(x.dtype).min)
    return torch.where(defined.any(dim, keepdim=True), torch.softmax(scores, dim), 0.0)


def _dist(x: torch.Tensor, y: torch.Tensor, p: float = 2.0) -> torch.Tensor:
    distance: torch.Tensor = torch.linalg.vector_norm(x - y, p)
    return distance


def _softplus(x: torch.Tensor, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """`log(1 + exp(beta*x)) / beta`, and x itself above the threshold."""
    if beta == 1 and threshold >= _VANISHING:
        return NotImplemented
    scaled = x * beta
    smooth = torch.nn.functional.softplus(scaled) / beta
    return smooth if threshold >= _VANISHING else torch.where(scaled > threshold, x, smooth)


def _copy(to: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """What `to` holds after a copy into it; torch knows no gradient of the operator itself."""
    del non_blocking
    moved = source.to(device=to.device, dtype=to.dtype)
    return moved.expand_as(to).clone(memory_format=torch.contiguous_format)


@functools.cache
def decomposition_table() -> dict[torch._ops.OpOverload, Callable[..., Any]]:
    """Decompositions by operator, for `ExportedProgram.run_decompositions`.

    The logarithm of 1 + x and its kin lose digits for tiny x that the originals keep; what replaces
    a logarithm is approximated on a range anyway.
    """
    aten = torch.ops.aten
    defaults: Any = torch.export.default_decompositions()
    table: dict[torch._ops.OpOverload, Callable[..., Any]] = {
        target: decomposition
        for target, decomposition in defaults.items()
        if isinstance(target, torch._ops.OpOverload)
        and target.namespace == "aten"
        and target._schema.name.partition("::")[2] in _TORCH_HAS_ONE | _ALIASES
        and not target._overloadname.endswith("out")
    }
    table |= {
        aten.scaled_dot_product_attention.default: attention,
        aten._safe_softmax.default: _safe_softmax,
        aten.log1p.default: _log1p,
        aten.expm1.default: _expm1,
        aten.exp2.default: _exp2,
        aten.log2.default: _log2,
        aten.log10.default: _log10,
        aten.erfc.default: _erfc,
        aten.hypot.default: _hypot,
        aten.log_sigmoid.default: _log_sigmoid,
        aten.dist.default: _dist,
        aten.copy.default: _copy,
        aten.softplus.default: _softplus,
        aten.batch_norm.default: batch_norm,
        aten._native_batch_norm_legit_functional.default: batch_norm_functional,
        aten._native_batch_norm_legit.no_stats: batch_norm_without_statistics,
        aten.mkldnn_rnn_layer.default: lstm_layer,
    }
    return table
