"""Errors of hidden states, block by block: where in a model a rewrite is felt."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from odp.evaluation.distributions import as_float64

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["LayerErrors", "decoder_blocks", "hidden_states"]


def decoder_blocks(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The decoder blocks of a model, from its input to its output.

    They are the longest `nn.ModuleList` that is not inside another one: a list inside a block may
    be longer, such as the experts of a mixture.

    Returns:
        The blocks; an empty list if the model has no such list.
    """
    import torch

    outer: dict[str, torch.nn.ModuleList] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{other}.") for other in outer)
        if isinstance(module, torch.nn.ModuleList) and not inside:
            outer[name] = module
    return list(max(outer.values(), key=len, default=()))


@contextlib.contextmanager
def hidden_states(
    blocks: list[torch.nn.Module], rows: slice, see: Callable[[int, torch.Tensor], None]
) -> Iterator[None]:
    """Show what comes out of blocks, whenever the model runs.

    Args:
        blocks: the decoder blocks.
        rows: the positions of interest.
        see: called with the index of a block and its output at `rows`, shape (rows, channels).
            The tensor may be overwritten later.
    """

    def hook(index: int) -> Callable[[Any, Any, Any], None]:
        def look(module: Any, arguments: Any, output: Any) -> None:
            # Most blocks return hidden states, some a tuple that begins with them.
            hidden = output[0] if isinstance(output, tuple) else output
            see(index, hidden.reshape(-1, hidden.shape[-1])[rows])

        return look

    handles = [block.register_forward_hook(hook(index)) for index, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class LayerErrors:
    """Relative l2 errors of one variant, accumulated over windows in float64.

    Attributes:
        squares: of the original's hidden states, summed, one entry for each block.
        differences: of the differences, likewise.
    """

    squares: list[float] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)

    def add(self, index: int, original: torch.Tensor, variant: torch.Tensor) -> None:
        """Add what came out of block `index` in one window.

        Args:
            index: of the block.
            original: hidden states of the original, any float type, shape (rows, channels).
            variant: likewise of the variant, on any device.
        """
        while len(self.squares) <= index:
            self.squares.append(0.0)
            self.differences.append(0.0)
        exact = as_float64(original)
        self.squares[index] += float(exact.square().sum())
        difference = as_float64(variant.to(original.device)) - exact
        self.differences[index] += float(difference.square().sum())

    def relative(self) -> list[float]:
        """Relative l2 error after each block; infinite where either model is not finite."""
        return [_ratio(d, s) for d, s in zip(self.differences, self.squares, strict=True)]


def _ratio(difference: float, square: float) -> float:
    if not math.isfinite(difference) or not math.isfinite(square):
        return math.inf
    if square == 0:
        return 0.0 if difference == 0 else math.inf
    return math.sqrt(difference / square)
