"""Torch functions that a module calls, as calls of operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from odp.backends.triton import functional

__all__ = ["ADAPTERS", "OperatorCall"]

_F = torch.nn.functional
Functions = Mapping[str, Any]
"""A `KernelFunction` for each open function."""


class Unsupported(Exception):
    """What is asked for is no option of the operator."""


class OperatorCall:
    """Stands for a torch function in the forward of a module.

    Attributes:
        function: the torch function, which is called where the operator lacks an option.
        operator: name of the operator.
        functions: how its open functions are computed.
    """

    def __init__(self, function: Callable[..., Any], operator: str, functions: Functions) -> None:
        """Let calls of `function` be calls of `operator`."""
        self.function = function
        self.operator = operator
        self.functions = functions

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the operator with the arguments of the torch function."""
        try:
            return ADAPTERS[self.function][1](self.functions, *args, **kwargs)
        except Unsupported:
            return self.function(*args, **kwargs)

    def __reduce__(self) -> Any:
        # A torch function is pickled by its name, and some have none that pickle finds.
        return _again, (_names()[self.function], self.operator, self.functions)

    @property
    def graphs(self) -> list[fx.GraphModule]:
        """None: an operator is no graph."""
        return []

    def retype(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Operators take every type: there is nothing to prepare."""


def _names() -> dict[Callable[..., Any], int]:
    return {function: number for number, function in enumerate(ADAPTERS)}


def _again(number: int, operator: str, functions: Functions) -> OperatorCall:
    return OperatorCall(list(ADAPTERS)[number], operator, functions)


def _silu(functions: Functions, x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    if inplace:
        raise Unsupported
    return functional.silu(x, **functions)


def _gelu(functions: Functions, x: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    if "normal_cdf" not in functions or approximate != "none":
        raise Unsupported
    return functional.gelu(x, **functions)


def _softmax(
    functions: Functions,
    x: torch.Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    if dim is None:
        raise Unsupported
    return functional.softmax(x if dtype is None else x.to(dtype), dim, **functions)


def _plain_softmax(
    functions: Functions, x: torch.Tensor, dim: int, dtype: torch.dtype | None = None
) -> torch.Tensor:
    return _softmax(functions, x, dim, dtype=dtype)


def _layer_norm(
    functions: Functions,
    x: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    if len(tuple(normalized_shape)) != 1:
        raise Unsupported
    return functional.layer_norm(x, weight, bias, eps, **functions)


def _rms_norm(
    functions: Functions,
    x: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> torch.Tensor:
    if len(tuple(normalized_shape)) != 1:
        raise Unsupported
    small = torch.finfo(x.dtype).eps if eps is None else eps
    return functional.rms_norm(x, weight, small, **functions)


def _cross_entropy(
    functions: Functions,
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    plain = weight is None and size_average is None and reduce is None and not label_smoothing
    if not plain or x.dim() != 2 or target.dim() != 1:
        raise Unsupported
    found = functional.cross_entropy(
        x, target, ignore_index=ignore_index, reduction=reduction, **functions
    )
    return found.to(x.dtype)


Adapter = Callable[..., torch.Tensor]
ADAPTERS: dict[Callable[..., Any], tuple[str, Adapter]] = {
    _F.silu: ("silu", _silu),
    _F.gelu: ("gelu", _gelu),
    _F.softmax: ("softmax", _softmax),
    torch.softmax: ("softmax", _plain_softmax),
    torch.Tensor.softmax: ("softmax", _plain_softmax),
    _F.layer_norm: ("layer_norm", _layer_norm),
    _F.rms_norm: ("rms_norm", _rms_norm),
    _F.cross_entropy: ("cross_entropy", _cross_entropy),
}
"""Torch functions, the operator that each is, and a call with the arguments of the function."""
