"""What gpu_operators.py measures: for each operator its inputs, what PyTorch has, and the sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as torch_functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from odp.backends.triton import functional as odp_functional

__all__ = ["CASES", "Case", "Make"]

Size = tuple[int, ...]
Tensors = tuple[torch.Tensor, ...]

# The two at which demands are checked, and those of the seed report, which an H200 keeps in its L2.
_ROWS: tuple[Size, ...] = ((16384, 2560), (8192, 14336), (1024, 2560), (2048, 2560), (4096, 2560))
_HEADS: tuple[Size, ...] = ((8, 32, 4096, 128), (8, 32, 4096, 64))
_ATTENTION: tuple[Size, ...] = ((4, 16, 4096, 64), (4, 16, 4096, 128))
_LOGITS: tuple[Size, ...] = ((8192, 49152), (4096, 128256))
_SCORES: tuple[Size, ...] = ((64, 1024, 1024), (8, 4096, 4096))
_EPS = 1e-6
# Elements of an operand that float64 arithmetic is done on, to know the error.
_REFERENCE_ELEMENTS = 1 << 20


class Make:
    """Makes inputs, the same ones each time.

    Args:
        dtype: of what is no integer.
        device: where.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._options: dict[str, Any] = {"device": device}
        self._dtype = dtype
        self._generator = torch.Generator(device).manual_seed(0)

    def normal(self, *shape: int, width: float = 1.0) -> torch.Tensor:
        """Normal numbers of a standard deviation."""
        drawn = torch.randn(shape, generator=self._generator, **self._options)
        return (drawn * width).to(self._dtype)

    def below(self, end: int, *shape: int) -> torch.Tensor:
        """Whole numbers from 0 to end - 1."""
        return torch.randint(end, shape, generator=self._generator, **self._options)

    def angles(self, tokens: int, channels: int) -> Tensors:
        """Cosines and sines of rotary embeddings."""
        pairs = torch.arange(0, channels, 2, **self._options) / channels
        steps = torch.arange(tokens, **self._options)[:, None] * 10000.0**-pairs
        angles = torch.cat([steps, steps], -1)
        return angles.cos().to(self._dtype), angles.sin().to(self._dtype)


@dataclass(frozen=True)
class Case:
    """One operator.

    Attributes:
        name: of ours.
        inputs: makes the operands for a size.
        ours: takes the operands, and the options of ours by name.
        native: takes the operands; what PyTorch has for it.
        sizes: to measure at; demands are checked at the first two.
        tiny: the size of a dry run.
        differentiable: positions of the operands that gradients are taken to.
        shared: positions of the operands that all rows have in common.
        reads: what a backward has to read besides the incoming gradients, from operands and
            results; None is the differentiable operands, or as many bytes.
        reference: the same in float64; None is `native`.
        is_compiled: whether torch.compile has anything to do in `native`.
        options: options of ours that there are variants of.
        products: floating-point operations of the matrix products of a forward, by size.
    """

    name: str
    inputs: Callable[[Make, Size], Tensors]
    ours: Callable[..., Any]
    native: Callable[..., Any]
    sizes: tuple[Size, ...] = _ROWS
    tiny: Size = (4, 96)
    differentiable: tuple[int, ...] = (0,)
    shared: tuple[int, ...] = ()
    reads: Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], Tensors] | None = None
    reference: Callable[..., Any] | None = None
    is_compiled: bool = True
    options: tuple[str, ...] = ()
    products: Callable[[Size], float] | None = None

    def index(self, inputs: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        """Which part of operands and results is compared with float64."""
        first = inputs[0]
        if len(self.sizes[0]) == 4:
            # The last head of the last batch: where addresses are largest.
            return slice(-1, None), slice(-1, None)
        count = max(1, min(len(first), _REFERENCE_ELEMENTS // first[0].numel()))
        spread = torch.linspace(0, len(first) - 1, count, device=first.device, dtype=torch.float64)
        return (spread.round().long(),)

    def backward_bytes(
        self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> int:
        """What a backward has to move, each tensor once."""
        wanted = [inputs[position] for position in self.differentiable]
        read = wanted if self.reads is None else self.reads(inputs, outputs)
        return sum(x.nbytes for x in (*outputs, *read, *wanted))


def _one(make: Make, size: Size) -> Tensors:
    return (make.normal(*size, width=2.0),)


def _two(make: Make, size: Size) -> Tensors:
    return make.normal(*size, width=2.0), make.normal(*size)


def _normed(make: Make, size: Size) -> Tensors:
    return make.normal(*size), make.normal(size[-1])


def _added(make: Make, size: Size) -> Tensors:
    return make.normal(*size), make.normal(*size), make.normal(size[-1])


def _centred(make: Make, size: Size) -> Tensors:
    return make.normal(*size), make.normal(size[-1]), make.normal(size[-1])


def _logits(make: Make, size: Size) -> Tensors:
    return make.normal(*size, width=2.0), make.below(size[1], size[0])


def _rotated(make: Make, size: Size) -> Tensors:
    """Queries and keys as projections leave them: the heads of a token beside each other."""
    batch, heads, tokens, channels = size
    q, k = (make.normal(batch, tokens, heads, channels).transpose(1, 2) for _ in range(2))
    return q, k, *make.angles(tokens, channels)


def _attended(make: Make, size: Size) -> Tensors:
    return make.normal(*size), make.normal(*size), make.normal(*size)


def _relu_squared(x: torch.Tensor) -> torch.Tensor:
    return torch_functional.relu(x).square()


def _gated(gate: torch.Tensor, up: torch.Tensor, activation: Callable[..., Any]) -> torch.Tensor:
    return activation(gate) * up


def _rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch_functional.rms_norm(x, x.shape[-1:], weight, _EPS)


def _add_rms_norm(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> Tensors:
    total = x + residual
    return _rms_norm(total, weight), total


def _layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch_functional.layer_norm(x, x.shape[-1:], weight, bias, _EPS)


def _rms_norm_quantised(x: torch.Tensor, weight: torch.Tensor) -> Tensors:
    wide = torch.promote_types(x.dtype, torch.float32)
    y = _rms_norm(x.to(wide), weight.to(wide))
    scale = 127 / y.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return (y * scale).round().clamp(-128, 127).to(torch.int8), scale


def _causal_softmax(x: torch.Tensor) -> torch.Tensor:
    rows, columns = x.shape[-2:]
    seen = torch.ones(rows, columns, dtype=torch.bool, device=x.device).tril(columns - rows)
    return torch.softmax(x.masked_fill(~seen, -math.inf), -1)


def _cross_entropy(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch_functional.cross_entropy(x, target, reduction="none")


def _our_cross_entropy(x: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
    return odp_functional.cross_entropy(x, target, reduction="none", **options)


def _half_turned(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


def _rope(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Tensors:
    """As the models of transformers do it."""
    return q * cos + _half_turned(q) * sin, k * cos + _half_turned(k) * sin


def _our_attention(*qkv: torch.Tensor, causal: bool, **options: Any) -> torch.Tensor:
    from odp.backends.triton.attention import attention

    found: torch.Tensor = attention(*qkv, causal=causal, **options)
    return found


def _flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    attend = partial(torch_functional.scaled_dot_product_attention, is_causal=causal)
    if q.device.type == "cuda" and q.dtype != torch.float32:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return attend(q, k, v)
    return attend(q, k, v)


def _exact_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> Any:
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (_causal_softmax(scores) if causal else torch.softmax(scores, -1)) @ v


def _attention(name: str, causal: bool) -> Case:
    return Case(
        name,
        _attended,
        partial(_our_attention, causal=causal),
        partial(_flash, causal=causal),
        sizes=_ATTENTION,
        tiny=(1, 2, 32, 16),
        differentiable=(0, 1, 2),
        reads=lambda inputs, outputs: (*inputs, *outputs),
        reference=partial(_exact_attention, causal=causal),
        is_compiled=False,
        options=("division",),
        # Two products of 2 T T D operations a head; half of the scores, if causal.
        products=lambda size: 4.0 * math.prod(size) * size[2] * (0.5 if causal else 1.0),
    )


_BOTH = ("division", "exact")
_tanh = partial(torch_functional.gelu, approximate="tanh")

CASES: tuple[Case, ...] = (
    Case("silu", _one, odp_functional.silu, torch_functional.silu, options=_BOTH),
    Case(
        "swiglu",
        _two,
        odp_functional.swiglu,
        partial(_gated, activation=torch_functional.silu),
        differentiable=(0, 1),
        options=_BOTH,
    ),
    Case(
        "rms_norm", _normed, odp_functional.rms_norm, _rms_norm, differentiable=(0, 1), shared=(1,)
    ),
    Case(
        "rope",
        _rotated,
        odp_functional.rope,
        _rope,
        sizes=_HEADS,
        tiny=(2, 2, 8, 16),
        differentiable=(0, 1),
        shared=(2, 3),
        reads=lambda inputs, outputs: (inputs[2], inputs[3]),
    ),
    Case("gelu", _one, odp_functional.gelu, torch_functional.gelu, options=_BOTH),
    Case("softmax", _one, odp_functional.softmax, partial(torch.softmax, dim=-1), options=_BOTH),
    _attention("attention", causal=False),
    _attention("attention_causal", causal=True),
    Case(
        "cross_entropy",
        _logits,
        _our_cross_entropy,
        _cross_entropy,
        sizes=_LOGITS,
        options=("division",),
    ),
    Case(
        "causal_softmax",
        _one,
        partial(odp_functional.softmax, causal=True),
        _causal_softmax,
        sizes=_SCORES,
        tiny=(2, 8, 8),
        options=("division",),
    ),
    Case(
        "add_rms_norm",
        _added,
        odp_functional.add_rms_norm,
        _add_rms_norm,
        differentiable=(0, 1, 2),
        shared=(2,),
        # The sum of both is kept, not the summands.
        reads=lambda inputs, outputs: (outputs[1], inputs[2]),
    ),
    Case(
        "layer_norm",
        _centred,
        partial(odp_functional.layer_norm, eps=_EPS),
        _layer_norm,
        differentiable=(0, 1, 2),
        shared=(1, 2),
    ),
    Case("gelu_tanh", _one, partial(odp_functional.gelu, approximate="tanh"), _tanh),
    Case(
        "geglu",
        _two,
        odp_functional.geglu,
        partial(_gated, activation=torch_functional.gelu),
        differentiable=(0, 1),
    ),
    Case(
        "geglu_tanh",
        _two,
        partial(odp_functional.geglu, approximate="tanh"),
        partial(_gated, activation=_tanh),
        differentiable=(0, 1),
    ),
    Case("relu_squared", _one, odp_functional.relu_squared, _relu_squared),
    Case(
        "relu_squared_gate",
        _two,
        odp_functional.relu_squared_gate,
        partial(_gated, activation=_relu_squared),
        differentiable=(0, 1),
    ),
    Case(
        "rms_norm_quantised",
        _normed,
        odp_functional.rms_norm_quantised,
        _rms_norm_quantised,
        differentiable=(),
        shared=(1,),
    ),
)
"""Those with demands first: what time there is goes to them."""
