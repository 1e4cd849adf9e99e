"""Attention modules: flash attention, and rotary embeddings of queries and keys in one operator."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from odp.backends.torch.attention import attention as spelled_out
from odp.backends.torch.rational_calls import RationalCalls
from odp.backends.triton import functional

__all__ = ["AttentionOperatorCall", "RotatingCalls", "rotates"]

_ROTATION = "apply_rotary_pos_emb"


class AttentionOperatorCall:
    """Stands for `torch.nn.functional.scaled_dot_product_attention` in a module.

    Attributes:
        functions: how exp is computed.
    """

    def __init__(self, functions: Mapping[str, Any]) -> None:
        """Let attention use these functions."""
        self.functions = functions

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """What torch computes; written out where the kernel lacks an option."""
        from odp.backends.triton.attention import attention

        square = query.shape[-2] == key.shape[-2]
        if (
            dropout_p > 0.0
            or query.dim() != 4
            or value.shape != key.shape
            or (is_causal and not square)
            or (attn_mask is not None and attn_mask.requires_grad)
        ):
            return spelled_out(
                query,
                key,
                value,
                attn_mask,
                dropout_p,
                is_causal,
                scale=scale,
                enable_gqa=enable_gqa,
                softmax=functools.partial(functional.softmax, **self.functions),
            )
        found: torch.Tensor = attention(
            query, key, value, mask=attn_mask, causal=is_causal, scale=scale, **self.functions
        )
        return found

    @property
    def graphs(self) -> list[fx.GraphModule]:
        """None: an operator is no graph."""
        return []

    def retype(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """The operator takes every type: there is nothing to prepare."""


def _rotated(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *args: Any,
    unsqueeze_dim: int = 1,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`apply_rotary_pos_emb` of transformers; heads are extent `unsqueeze_dim`."""
    del args, kwargs
    if unsqueeze_dim == 2:
        a, b = functional.rope(q.transpose(1, 2), k.transpose(1, 2), cos, sin)
        return a.transpose(1, 2), b.transpose(1, 2)
    return functional.rope(q, k, cos, sin)


class RotatingCalls(RationalCalls):
    """Like `RationalCalls`, and the rotary embedding in its forward is one operator.

    The forward is that of the class with another function behind the name
    `apply_rotary_pos_emb`; nothing in the library that it comes from is changed.
    """

    @classmethod
    def odp_forward(cls, original: Callable[..., Any]) -> Callable[..., Any]:
        plain: Any = inspect.unwrap(original)
        # Without a name: or torch.compile looks names up in the module of that name.
        names = {**plain.__globals__, _ROTATION: _rotated}
        del names["__name__"]
        rotating = types.FunctionType(
            plain.__code__, names, plain.__name__, plain.__defaults__, plain.__closure__
        )
        rotating.__kwdefaults__ = plain.__kwdefaults__
        functools.update_wrapper(rotating, plain)
        return super().odp_forward(rotating)


def rotates(module: torch.nn.Module) -> bool:
    """Whether a module rotates queries and keys by a function that is what the operator is."""
    forward: Any = inspect.unwrap(type(module).forward)
    rotation = getattr(forward, "__globals__", {}).get(_ROTATION)
    if rotation is None or _ROTATION not in forward.__code__.co_names:
        return False
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, heads, 3, 8, generator=generator) for heads in (4, 2))
    angles = torch.randn(2, 3, 4, generator=generator).repeat(1, 1, 2)
    tables = angles.cos(), angles.sin()
    try:
        found, expected = rotation(q, k, *tables), _rotated(q, k, *tables)
        return all(
            torch.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in zip(found, expected, strict=True)
        )
    except Exception:
        # Another signature, or tables of another form: it stays.
        return False
