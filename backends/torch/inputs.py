"""What a module is run on: example inputs, batches of tensors, or windows of text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odp.approximations.errors import OdpError
from odp.backends.torch.eager import eagerly
from odp.backends.torch.rational_class import original_class

__all__ = ["Batches", "Inputs", "as_inputs", "batches_of", "buffers_kept", "run"]


@dataclass(frozen=True)
class Inputs:
    """The inputs of one call of a module."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None

    def call(self, module: Any) -> Any:
        """What `module` returns for these inputs, which it may write to: it gets a copy."""
        args, kwargs = pytree.tree_map_only(
            torch.Tensor, torch.clone, (self.args, dict(self.kwargs or {}))
        )
        return module(*args, **kwargs)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors among the inputs, by name or position."""
        pairs = [
            *((str(i), value) for i, value in enumerate(self.args)),
            *(self.kwargs or {}).items(),
        ]
        return {name: value for name, value in pairs if isinstance(value, torch.Tensor)}


class Batches:
    """Inputs that can be gone through several times.

    Attributes:
        source: where they come from, for the report.
        limit: go through at most so many of them; None for all.
    """

    def __init__(self, source: str, batches: Iterable[Inputs], limit: int | None = None) -> None:
        self.source = source
        self.limit = limit
        self._batches = batches

    def __iter__(self) -> Iterator[Inputs]:
        count = 0
        for inputs in self._batches:
            if self.limit is not None and count >= self.limit:
                return
            count += 1
            yield inputs
        if count == 0:
            raise OdpError(f"{self.source}: there is no input to calibrate on")

    @property
    def count(self) -> int | None:
        """How many there are, if that is known before the end."""
        try:
            total = len(self._batches)  # type: ignore[arg-type]
        except TypeError:
            return self.limit
        return total if self.limit is None else min(total, self.limit)


def as_inputs(given: Any, what: str) -> Inputs:
    """Inputs from a tensor, a tuple or list of positional ones, or a mapping from names.

    Raises:
        OdpError: it is nothing of that.
    """
    if isinstance(given, Inputs):
        return given
    if isinstance(given, torch.Tensor):
        return Inputs((given,))
    if isinstance(given, Mapping):
        return Inputs((), dict(given))
    if isinstance(given, tuple):
        return Inputs(given)
    if isinstance(given, list) and all(isinstance(value, torch.Tensor) for value in given):
        # What a data loader makes of a data set of tuples.
        return Inputs(tuple(given))
    raise OdpError(
        f"{what} must be a tensor, a tuple of positional inputs or a dict of inputs by name, "
        f"not a {type(given).__name__}"
    )


def batches_of(calibration: Any, limit: int | None) -> Batches:
    """Batches from one set of inputs, or from a list or any other iterable of them.

    A tensor, tuple or mapping is one batch; a list, a data loader or another iterable that can be
    gone through more than once holds several.

    Raises:
        OdpError: it is nothing of that.
    """
    if isinstance(calibration, torch.Tensor | Mapping | tuple | Inputs):
        return Batches("inputs", [as_inputs(calibration, "calibration")])
    if isinstance(calibration, Sequence):
        listed = [as_inputs(item, "each item of calibration") for item in calibration]
        return Batches("inputs", listed, limit)
    if isinstance(calibration, Iterator):
        # Domains are found in one go, the error is measured in another.
        taken = [as_inputs(item, "each item of calibration") for item in _first(calibration, limit)]
        return Batches("inputs", taken)
    if isinstance(calibration, Iterable):
        return Batches("inputs", _Converted(calibration), limit)
    raise OdpError(
        "calibration must be inputs (a tensor, tuple or dict), a list of inputs, texts with a "
        f"tokenizer, or the path of a text or of ranges, not a {type(calibration).__name__}"
    )


def run(module: torch.nn.Module, inputs: Inputs) -> Any:
    """What `module` returns for `inputs`, eagerly and without gradients; its buffers stay.

    Raises:
        OdpError: it does not run on them.
    """
    try:
        with eagerly(), buffers_kept(module):
            return inputs.call(module)
    except (TypeError, RuntimeError, ValueError, IndexError, AttributeError) as error:
        names = ", ".join(f"{name} {list(t.shape)}" for name, t in inputs.tensors.items())
        reason = " ".join(str(error).split())[:240]
        raise OdpError(
            f"{original_class(module).__name__} does not run on its inputs ({names}): {reason}"
        ) from None


@contextlib.contextmanager
def buffers_kept(module: torch.nn.Module) -> Iterator[None]:
    """Let buffers be afterwards what they were before: batch norm writes to them in training."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


class _Converted:
    """An iterable of inputs over an iterable of what users give."""

    def __init__(self, source: Iterable[Any]) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Inputs]:
        return (as_inputs(item, "each item of calibration") for item in self._source)

    def __len__(self) -> int:
        return len(self._source)  # type: ignore[arg-type]


def _first(iterator: Iterator[Any], limit: int | None) -> list[Any]:
    taken: list[Any] = []
    for item in iterator:
        if limit is not None and len(taken) >= limit:
            break
        taken.append(item)
    return taken
