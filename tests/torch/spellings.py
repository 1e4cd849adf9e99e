"""What a spelling is, and a module that holds many of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Gallery", "Spelling", "gallery_inputs", "one_pattern"]

Tensor = torch.Tensor


@dataclass(frozen=True)
class Spelling:
    """One way to write what one pass takes.

    Attributes:
        rewrite: name of the pass that must take it in a graph.
        name: of the spelling.
        function: of one tensor, or a module.
        patterns: patterns that must match, with their number.
        domain: smallest and largest value of the input.
        shape: of the input.
        calls: passes that take it where only single calls are seen, if others than `rewrite`.
    """

    rewrite: str
    name: str
    function: Callable[[Tensor], Any]
    patterns: dict[str, int]
    domain: tuple[float, float] = (-3.0, 3.0)
    shape: tuple[int, ...] = (2, 6, 8)
    calls: frozenset[str] = field(default_factory=frozenset)

    @property
    def key(self) -> str:
        """Name of the test, of the module in the gallery and of its output."""
        return f"{self.rewrite}_{self.name}"

    def input(self) -> Tensor:
        """Uniform numbers between the ends of the domain, which both occur."""
        generator = torch.Generator().manual_seed(len(self.key))
        low, high = self.domain
        x = low + (high - low) * torch.rand(self.shape, generator=generator)
        x.view(-1)[0], x.view(-1)[-1] = low, high
        return x


class _Spelled(torch.nn.Module):
    """A spelling as a module, so that the report says which site is whose."""

    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        self.spelled = spelling.function

    def forward(self, x: Tensor) -> Any:
        return self.spelled(x)


class Gallery(torch.nn.Module):
    """All spellings side by side: one trace and one rewrite for all of them."""

    def __init__(self, spellings: list[Spelling]) -> None:
        super().__init__()
        for spelling in spellings:
            self.add_module(spelling.key, _Spelled(spelling))

    def forward(self, **inputs: Tensor) -> dict[str, Any]:
        return {key: self.get_submodule(key)(x) for key, x in inputs.items()}


def gallery_inputs(spellings: list[Spelling]) -> dict[str, Tensor]:
    """The inputs of a gallery."""
    return {spelling.key: spelling.input() for spelling in spellings}


def one_pattern(rewrite: str, name: str, function: Any, **options: Any) -> Spelling:
    """A spelling that matches the pattern which is called like the pass."""
    return Spelling(rewrite, name, function, {rewrite: 1}, **options)
