"""Norm modules become one operator: a module is a norm if it computes one.

Libraries write RMSNorm in a dozen ways, and some scale by 1 + weight.  So a module with one or two
vectors and an epsilon is run on random numbers and compared with what it may be.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from odp.backends.torch.rational_class import Rational, become, original_class
from odp.backends.triton import functional
from odp.backends.triton.requested import Requested
from odp.kernels.functions import KernelFunction

__all__ = ["FusedNorm", "fuse_norms"]

_EPSILONS = ("variance_epsilon", "eps", "epsilon", "norm_eps", "layer_norm_eps")
# Twenty roundings of float32; a norm of another kind is off by percents.
_TOLERANCE = 20 * 2.0**-24


class FusedNorm(Rational):
    """A norm that calls one operator.

    Attributes:
        odp_operator: ``rms_norm`` or ``layer_norm``.
        odp_shift: what is added to the weight, 0 or 1.
        odp_epsilon: of the norm.
        odp_own_dtype: whether the result has the type of the input whatever that of the weight is.
        odp_rsqrt: how the inverse root is computed.
    """

    odp_operator: str
    odp_shift: float
    odp_epsilon: float
    odp_own_dtype: bool
    odp_rsqrt: KernelFunction

    @classmethod
    def odp_forward(cls, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(self: FusedNorm, hidden_states: torch.Tensor) -> torch.Tensor:
            return self.odp_norm(hidden_states)

        forward.__doc__ = original.__doc__
        return forward

    def odp_norm(self, x: torch.Tensor) -> torch.Tensor:
        """The norm of `x` over its last extent."""
        weight = getattr(self, "weight", None)
        if weight is not None and self.odp_shift:
            weight = weight + self.odp_shift
        if self.odp_operator == "layer_norm":
            bias = getattr(self, "bias", None)
            found = functional.layer_norm(x, weight, bias, self.odp_epsilon, rsqrt=self.odp_rsqrt)
        else:
            found = functional.rms_norm(x, weight, self.odp_epsilon, rsqrt=self.odp_rsqrt)
        return found.to(x.dtype) if self.odp_own_dtype else found


def fuse_norms(module: torch.nn.Module, requested: Requested) -> None:
    """Let every norm in a module be one operator."""
    for path, part in list(module.named_modules()):
        found = _recognised(part)
        if found is None:
            continue
        operator, shift, epsilon, own_dtype = found
        functions = requested.functions(operator)
        if functions is None:
            continue
        kind = original_class(part).__name__
        become(part, FusedNorm)
        assert isinstance(part, FusedNorm)
        part.odp_operator, part.odp_shift, part.odp_epsilon = operator, shift, epsilon
        part.odp_own_dtype, part.odp_rsqrt = own_dtype, functions["rsqrt"]
        requested.add(operator, path, kind, functions)


def _recognised(module: torch.nn.Module) -> tuple[str, float, float, bool] | None:
    """Operator, shift of the weight, epsilon, and whether the input decides the type."""
    vectors = dict(module.named_parameters(recurse=False))
    epsilon = next((getattr(module, n) for n in _EPSILONS if hasattr(module, n)), None)
    first = next(iter(vectors.values()), None)
    if (
        isinstance(module, Rational)
        or any(True for _ in module.children())
        or any(True for _ in module.buffers())
        or not isinstance(epsilon, float)
        or first is None
        or not set(vectors) <= {"weight", "bias"}
        or any(v.dim() != 1 or v.shape != first.shape for v in vectors.values())
        or first.numel() < 2
        or not callable(getattr(module, "forward", None))
    ):
        return None
    try:
        return _compared(module, epsilon, first.numel())
    except Exception:
        # Whatever a module that is no norm does with a vector.
        return None


def _compared(
    module: torch.nn.Module, epsilon: float, columns: int
) -> tuple[str, float, float, bool] | None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        probe = copy.deepcopy(module).float().cpu().eval()
        for vector in probe.parameters():
            vector.copy_(torch.randn(vector.shape, generator=generator))
        inputs = [
            torch.randn(2, 3, columns, generator=generator) * size + shift
            for size, shift in ((1.0, 0.5), (1e-3, 0.0), (30.0, -10.0))
        ]
        vectors = dict(probe.named_parameters())
        own_dtype = probe(inputs[0].bfloat16()).dtype == torch.bfloat16
        for operator, shift, compute in _candidates(vectors, epsilon):
            pairs = ((probe(x), compute(x)) for x in inputs)
            if all(_agree(found, expected) for found, expected in pairs):
                return operator, shift, epsilon, own_dtype
    return None


Compute = Callable[[torch.Tensor], torch.Tensor]


def _candidates(
    vectors: Mapping[str, torch.Tensor], epsilon: float
) -> Iterator[tuple[str, float, Compute]]:
    weight, bias = vectors.get("weight"), vectors.get("bias")

    def normal(x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)

    for shift in (0.0, 1.0):
        scale = torch.ones(()) if weight is None else weight + shift
        offset = torch.zeros(()) if bias is None else bias

        def layer(
            x: torch.Tensor, scale: torch.Tensor = scale, offset: torch.Tensor = offset
        ) -> torch.Tensor:
            return normal(x - x.mean(-1, keepdim=True)) * scale + offset

        def root(x: torch.Tensor, scale: torch.Tensor = scale) -> torch.Tensor:
            return normal(x) * scale

        if bias is None:
            yield "rms_norm", shift, root
        yield "layer_norm", shift, layer


def _agree(found: Any, expected: torch.Tensor) -> bool:
    if not isinstance(found, torch.Tensor) or found.shape != expected.shape:
        return False
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) <= _TOLERANCE * largest
