"""Which model, tokenizer and expressions an adapter was trained for."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError

if TYPE_CHECKING:
    import torch

__all__ = ["Identity", "tokenizer_digest"]

_SAMPLED = 4
# What rounding to bfloat16 changes: half a unit in the last of 8 bits.
_ROUNDING = 2.0**-8


@dataclass(frozen=True)
class Identity:
    """What an adapter belongs to.

    Attributes:
        architecture: name of the model's class before rewriting.
        shapes: digest of the names and shapes of its parameters.
        samples: some numbers of each parameter, by name.  They are compared, and not a digest of
            them, so that a model is recognised in bfloat16 that was adapted in float32.
        tokenizer: digest of the tokenizer's vocabulary, or None if there was no tokenizer.
        surgery: what was done to the model, as the caller describes it; empty for the original.
    """

    architecture: str
    shapes: str
    samples: dict[str, list[float]]
    tokenizer: str | None = None
    surgery: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: torch.nn.Module, tokenizer: Any = None, surgery: dict[str, Any] | None = None
    ) -> Identity:
        """The identity of a model without an adapter, rewritten or not."""
        from odp.backends.torch.rational_class import original_class

        shapes = [f"{name}{tuple(p.shape)}" for name, p in model.named_parameters()]
        return cls(
            architecture=original_class(model).__name__,
            shapes=hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:32],
            samples={name: _samples(p) for name, p in model.named_parameters()},
            tokenizer=None if tokenizer is None else tokenizer_digest(tokenizer),
            surgery=surgery or {},
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "architecture": self.architecture,
            "shapes": self.shapes,
            "samples": self.samples,
            "tokenizer": self.tokenizer,
            "surgery": self.surgery,
        }

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Identity:
        """What `to_dict` wrote."""
        return cls(**tree)

    def check(self, found: Identity, what: str) -> None:
        """Raise unless `found` is this model.

        Args:
            found: the identity of what the adapter is to be used with.
            what: the adapter, for the message, such as `adapter 'healed/'`.

        Raises:
            OdpError: another architecture, other shapes, other weights, another tokenizer, or
                other expressions.
        """
        if self.architecture != found.architecture:
            raise OdpError(
                f"{what} belongs to a {self.architecture}, and the model is a {found.architecture}"
            )
        if self.shapes != found.shapes:
            raise OdpError(
                f"{what} belongs to another {self.architecture}: names or shapes of parameters "
                "differ"
            )
        for name, numbers in self.samples.items():
            if not _alike(numbers, found.samples[name]):
                raise OdpError(
                    f"{what} belongs to another {self.architecture}: the numbers of parameter "
                    f"'{name}' differ"
                )
        if None not in (self.tokenizer, found.tokenizer) and self.tokenizer != found.tokenizer:
            raise OdpError(
                f"{what} was trained with another tokenizer: the vocabularies differ; use the "
                "tokenizer that it was trained with"
            )
        if self.surgery != found.surgery:
            raise OdpError(
                f"{what} was trained for {_described(self.surgery)}, and the model is "
                f"{_described(found.surgery)}"
            )


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of the tokens and their ids, 32 hexadecimal digits."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(vocabulary.encode()).hexdigest()[:32]


def _samples(parameter: torch.Tensor) -> list[float]:
    flat = parameter.detach().reshape(-1)
    step = max(1, flat.numel() // _SAMPLED)
    return [float(number) for number in flat[::step][:_SAMPLED].float().cpu()]


def _alike(first: list[float], second: list[float]) -> bool:
    return len(first) == len(second) and all(
        math.isclose(a, b, rel_tol=2 * _ROUNDING, abs_tol=1e-30)
        for a, b in zip(first, second, strict=True)
    )


def _described(surgery: dict[str, Any]) -> str:
    if not surgery:
        return "the original model"
    words = ", ".join(f"{key} {value}" for key, value in surgery.items())
    return f"a rewritten one ({words})"
