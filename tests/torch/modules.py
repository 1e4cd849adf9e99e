"""Small modules that tests rewrite, in a file that another process can import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

__all__ = [
    "Batched",
    "Branches",
    "Classifier",
    "Counting",
    "Keywords",
    "Nested",
    "Optional",
    "Shared",
    "Star",
    "Tied",
    "Twice",
    "numbers",
]

Tensor = torch.Tensor


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normally distributed, the same every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _initialised(module: torch.nn.Module) -> None:
    for number, parameter in enumerate(module.parameters()):
        generator = torch.Generator().manual_seed(number)
        torch.nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)


class Classifier(torch.nn.Module):
    """A linear layer, a norm, an activation and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.activation = torch.nn.GELU()
        self.head = torch.nn.Linear(8, 4)
        _initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.norm(self.linear(x)))
        return torch.softmax(self.head(hidden), -1)


class Optional(torch.nn.Module):
    """Every kind of parameter, and results inside of dicts, tuples and lists."""

    def forward(
        self, x: Tensor, scale: Tensor | None = None, power: int = 2, *, shifted: bool = False
    ) -> dict[str, Any]:
        """Some results of `x`."""
        y = torch.sigmoid(x) ** power
        y = y if scale is None else y * scale
        y = y + 1.0 if shifted else y
        return {"first": y, "rest": (y.sum(), [torch.tanh(x), None, 7])}


class Star(torch.nn.Module):
    def forward(self, first: Tensor, *others: Tensor, factor: float = 2.0) -> Tensor:
        return torch.sigmoid(first * factor) + sum(torch.tanh(other) for other in others)


class Keywords(torch.nn.Module):
    def forward(self, *, x: Tensor, **others: Tensor) -> dict[str, Tensor]:
        return {"x": torch.sigmoid(x), **{key: torch.tanh(y) for key, y in others.items()}}


class Nested(torch.nn.Module):
    def forward(self, pair: tuple[Tensor, Tensor], named: dict[str, list[Tensor]]) -> Tensor:
        return torch.sigmoid(pair[0]) * pair[1] + torch.exp(-(named["a"][0] ** 2)) + named["a"][1]


@dataclass
class Answer:
    """A result that torch knows nothing about."""

    value: Tensor


class Tied(torch.nn.Module):
    """An output layer that is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 8)
        self.output = torch.nn.Linear(8, 11, bias=False)
        _initialised(self)
        self.output.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return F.log_softmax(self.output(torch.tanh(self.embedding(ids))), -1)


class Batched(torch.nn.Module):
    """A norm over the batch, whose statistics are buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        _initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.norm(self.linear(x)))


class Counting(torch.nn.Module):
    """Buffers that the forward writes to, one of them in no state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("decay", torch.ones(8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.decay.mul_(0.5)
        return torch.sigmoid(x) * self.decay + self.calls


class Shared(torch.nn.Module):
    """One activation at two places, and one layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        activation = torch.nn.SiLU()
        self.linear = torch.nn.Linear(8, 8)
        self.first = torch.nn.Sequential(self.linear, activation)
        self.second = torch.nn.Sequential(self.linear, activation)
        _initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class Twice(torch.nn.Module):
    """One activation that is called on numbers of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = torch.nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x) + self.activation(x * 4.0)


class Branches(torch.nn.Module):
    """Two branches with functions of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((8,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        def positive(v: Tensor) -> Tensor:
            return torch.sigmoid(v) * self.weight

        def negative(v: Tensor) -> Tensor:
            return torch.exp(-(v**2))

        return torch.cond(x.sum() > 0, positive, negative, (x,))
