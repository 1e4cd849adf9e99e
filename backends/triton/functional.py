"""What users call: operators whose functions are expressions of the library.

    from odp.backends.triton import functional

    y = functional.swiglu(gate, up)                      # bfloat16: within 1e-4
    y = functional.softmax(scores, error=1e-6)
    y = functional.silu(x, sigmoid=approximant)          # the expression of a circuit, + - * / only

Everywhere: tensors are bfloat16, float16 or float32 (float64 on a CPU), of any strides, and may be
empty; arithmetic is in float32 (float64).  On a GPU a call is one Triton kernel, elsewhere the same
terms in torch.  `error` bounds the functions in real arithmetic; None is 1e-4, 1e-5 and 3e-7 for
these three types.  `division` is ``fast`` (2 ulp), ``full`` or ``newton`` (no special-function
instruction at all).  Derivatives are those of the functions with the approximations put in; `exact`
differentiates the approximations themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from odp.approximations.approximant import Approximant
from odp.approximations.errors import OdpError
from odp.backends.triton.operators import defined, result_dtype
from odp.backends.triton.precision import default_error, error_of
from odp.backends.triton.rope import rope
from odp.kernels.functions import KernelFunction, from_approximant, kernel_function

__all__ = [
    "add_rms_norm",
    "cross_entropy",
    "geglu",
    "gelu",
    "layer_norm",
    "relu_squared",
    "relu_squared_gate",
    "rms_norm",
    "rms_norm_quantised",
    "rope",
    "silu",
    "softmax",
    "swiglu",
]

Given = KernelFunction | Approximant | None
"""How a function is computed; None takes the default within `error`."""

_IGNORED = -100


def silu(x: torch.Tensor, *, sigmoid: Given = None, **options: Any) -> torch.Tensor:
    """`x * sigmoid(x)`.

    Args:
        x: any shape.
        sigmoid: how it is computed.
        **options: `error`, `division`, `exact`; see the module.
    """
    return _called("silu", [x], [], {"sigmoid": sigmoid}, **options)[0]


def gelu(
    x: torch.Tensor,
    approximate: str = "none",
    *,
    normal_cdf: Given = None,
    exp: Given = None,
    sigmoid: Given = None,
    **options: Any,
) -> torch.Tensor:
    """`x * Phi(x)`, Phi the normal distribution, or its tanh form.

    Args:
        x: any shape.
        approximate: ``none`` or ``tanh``, as in torch.
        normal_cdf: how Phi is computed.
        exp: how the density is computed, for the derivative.
        sigmoid: for the tanh form, which is exactly x * sigmoid(2u).
        **options: `error`, `division`, `exact`; see the module.

    Raises:
        OdpError: another word in `approximate`.
    """
    if _is_tanh("gelu", approximate):
        return _called("gelu_tanh", [x], [], {"sigmoid": sigmoid}, **options)[0]
    return _called("gelu", [x], [], {"normal_cdf": normal_cdf, "exp": exp}, **options)[0]


def relu_squared(x: torch.Tensor, **options: Any) -> torch.Tensor:
    """`max(x, 0)^2`, in which nothing is approximated.

    Args:
        x: any shape.
        **options: `division`, `exact`; see the module.
    """
    return _called("relu_squared", [x], [], {}, **options)[0]


def swiglu(
    gate: torch.Tensor, up: torch.Tensor, *, sigmoid: Given = None, **options: Any
) -> torch.Tensor:
    """`silu(gate) * up`.

    Args:
        gate: any shape.
        up: of a shape that broadcasts with it.
        sigmoid: how it is computed.
        **options: `error`, `division`, `exact`; see the module.
    """
    return _called("swiglu", [gate, up], [], {"sigmoid": sigmoid}, **options)[0]


def geglu(
    gate: torch.Tensor,
    up: torch.Tensor,
    approximate: str = "none",
    *,
    normal_cdf: Given = None,
    exp: Given = None,
    sigmoid: Given = None,
    **options: Any,
) -> torch.Tensor:
    """`gelu(gate, approximate) * up`; see `gelu`."""
    if _is_tanh("geglu", approximate):
        return _called("geglu_tanh", [gate, up], [], {"sigmoid": sigmoid}, **options)[0]
    return _called("geglu", [gate, up], [], {"normal_cdf": normal_cdf, "exp": exp}, **options)[0]


def relu_squared_gate(gate: torch.Tensor, up: torch.Tensor, **options: Any) -> torch.Tensor:
    """`max(gate, 0)^2 * up`: the gate of BitNet b1.58 2B4T.

    Args:
        gate: any shape.
        up: of a shape that broadcasts with it.
        **options: `division`, `exact`; see the module.
    """
    return _called("relu_squared_gate", [gate, up], [], {}, **options)[0]


def softmax(
    x: torch.Tensor,
    dim: int = -1,
    *,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float = 1.0,
    exp: Given = None,
    **options: Any,
) -> torch.Tensor:
    """Softmax of `scale * x + mask`.

    Args:
        x: any shape.
        dim: along which; another one than the last is transposed.
        mask: numbers that are added (broadcast to `x`), or booleans that say what stays.
        causal: hide columns beyond row + columns - rows, in the last two extents.
        scale: of `x`.
        exp: how it is computed.
        **options: `error`, `division`, `exact`; see the module.

    Raises:
        OdpError: both `mask` and `causal`, or `causal` along another extent than the last.
    """
    last = dim in (-1, x.dim() - 1)
    if causal:
        if mask is not None or not last or x.dim() < 2:
            raise OdpError("softmax: causal needs the last two extents, and no other mask")
        offset = x.shape[-1] - x.shape[-2]
        return _called("causal_softmax", [x], [scale, offset], {"exp": exp}, **options)[0]
    if mask is not None and mask.dtype == torch.bool:
        # Finite: -inf - (-inf) would be NaN in a row that is masked altogether.
        hidden = torch.finfo(x.dtype).min / 2
        mask = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, hidden)
    if not last:
        swapped = None if mask is None else mask.expand(x.shape).transpose(dim, -1)
        found = softmax(x.transpose(dim, -1), mask=swapped, scale=scale, exp=exp, **options)
        return found.transpose(dim, -1)
    return _called("softmax", [x, mask], [scale], {"exp": exp}, **options)[0]


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    eps: float = 1e-6,
    *,
    rsqrt: Given = None,
    **options: Any,
) -> torch.Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last extent.

    Args:
        x: any shape.
        weight: [columns], or None for 1.
        eps: added to the mean.
        rsqrt: how it is computed.
        **options: `error`, `division`, `exact`; see the module.
    """
    return _called("rms_norm", [x, weight], [eps], {"rsqrt": rsqrt}, **options)[0]


def add_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor | None = None,
    eps: float = 1e-6,
    *,
    rsqrt: Given = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`rms_norm(x + residual)`, of the sum before it is rounded, and that sum.

    Args:
        x: any shape.
        residual: of the same shape.
        weight: [columns], or None for 1.
        eps: added to the mean.
        rsqrt: how it is computed.
        **options: `error`, `division`, `exact`; see the module.
    """
    y, total = _called("add_rms_norm", [x, residual, weight], [eps], {"rsqrt": rsqrt}, **options)
    return y, total


def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    *,
    rsqrt: Given = None,
    **options: Any,
) -> torch.Tensor:
    """`(x - mean(x)) / sqrt(var(x) + eps) * weight + bias` over the last extent.

    Args:
        x: any shape.
        weight: [columns], or None for 1.
        bias: [columns], or None for 0.
        eps: added to the variance.
        rsqrt: how it is computed.
        **options: `error`, `division`, `exact`; see the module.
    """
    return _called("layer_norm", [x, weight, bias], [eps], {"rsqrt": rsqrt}, **options)[0]


def rms_norm_quantised(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    eps: float = 1e-6,
    *,
    rsqrt: Given = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`rms_norm(x)` in 8 bits with one scale a row, as BitNet's linear layers take it.

    Args:
        x: [..., columns].
        weight: [columns], or None for 1.
        eps: added to the mean.
        rsqrt: how it is computed.
        **options: `error`, `division`; see the module.

    Returns:
        int8 [..., columns], and float32 [..., 1]: 127 / max(|y|, 1e-5), by which the first is to be
        divided.  There is no derivative.
    """
    quantised, scale = _called(
        "rms_norm_quantised", [x, weight], [eps], {"rsqrt": rsqrt}, **options
    )
    return quantised, scale.unsqueeze(-1)


def cross_entropy(
    x: torch.Tensor,
    target: torch.Tensor,
    *,
    ignore_index: int = _IGNORED,
    reduction: str = "mean",
    exp: Given = None,
    log: Given = None,
    **options: Any,
) -> torch.Tensor:
    """`log(sum(exp(x))) - x[target]` in float32.

    Args:
        x: logits, [..., classes].
        target: int64 [...], classes or `ignore_index`.
        ignore_index: the target of rows that do not count.
        reduction: ``mean`` over the rows that count, ``sum`` or ``none``.
        exp: how it is computed.
        log: how it is computed.
        **options: `error`, `division`, `exact`; see the module.

    Raises:
        OdpError: another word in `reduction`, or a target that is no integer.
    """
    if reduction not in ("mean", "sum", "none"):
        raise OdpError(f"cross_entropy: reduction is mean, sum or none, not '{reduction}'")
    if target.dtype not in (torch.int32, torch.int64):
        raise OdpError(f"cross_entropy: target is {target.dtype}; classes are int32 or int64")
    # A loss is a sum over a row: the type of the logits does not bound how close it can be.
    (losses,) = _called(
        "cross_entropy",
        [x, target],
        [ignore_index],
        {"exp": exp, "log": log},
        precision=torch.float32,
        **options,
    )
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / (target != ignore_index).sum()


def _is_tanh(name: str, approximate: str) -> bool:
    if approximate not in ("none", "tanh"):
        raise OdpError(f"{name}: approximate is 'none' or 'tanh', not '{approximate}'")
    return approximate == "tanh"


def _called(
    name: str,
    tensors: Sequence[torch.Tensor | None],
    scalars: Sequence[float],
    functions: dict[str, Given],
    *,
    error: float | None = None,
    division: str = "fast",
    exact: bool = False,
    precision: torch.dtype | None = None,
) -> tuple[torch.Tensor, ...]:
    """What an operator returns to a user: without what is saved for the derivative.

    Without an `error` it is that of the type `precision`, which is that of the result if None.
    """
    operator = defined[name]
    operator.check(tensors, division)
    present = [x for x in tensors if x is not None and x.is_floating_point()]
    dtype = result_dtype(present) if precision is None else precision
    bound = dtype if error is None else error
    texts = [function_text(name, given, bound) for name, given in functions.items()]
    found = operator.forward(*tensors, *scalars, *texts, division, exact)
    results = (found,) if isinstance(found, torch.Tensor) else tuple(found)
    return results[: operator.operator.results]


def function_text(name: str, given: Given, error: float | torch.dtype) -> str:
    """How a function is computed, as an operator takes it.

    Args:
        name: of the function.
        given: what the caller gave for it.
        error: that the operator may have, or the type that says so.

    Raises:
        OdpError: it is another function, or its division could be by 0.
    """
    if given is None:
        text: str = _default_text(name, error)
        return text
    chosen = from_approximant(given) if isinstance(given, Approximant) else given
    if not isinstance(chosen, KernelFunction):
        raise OdpError(
            f"{name} is to be a KernelFunction or an Approximant, not {type(given).__name__}"
        )
    return chosen.text


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _default_text(name: str, error: float | torch.dtype) -> str:
    # A search for an expression is nothing that torch.compile could trace; and a number that it
    # reads from a table becomes a symbol with dynamic=True.
    bound = default_error(error) if isinstance(error, torch.dtype) else error
    return kernel_function(name, error_of(name, bound)).text
