"""The windows that an adapter is trained on: streamed, shuffled, endless, and found again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.evaluation.texts import adds_begin_token

if TYPE_CHECKING:
    import torch

__all__ = ["TrainingWindows"]

_SHUFFLED = 512
"""Windows among which the next one is drawn: half a megabyte, and some pages of any text."""


class TrainingWindows:
    """Full windows of tokens out of texts, again and again, each time in another order.

    Texts are read in pieces, so their size does not matter.  A window is drawn from the next
    `_SHUFFLED` ones by a generator of the seed and the epoch, so that the number of windows drawn
    is all that is needed to go on where an earlier run stopped.
    """

    def __init__(
        self,
        texts: Sequence[str | Path],
        tokenizer: Any,
        *,
        context: int,
        seed: int,
        vocabulary: int | None = None,
    ) -> None:
        """Prepare to cut windows; nothing is read yet.

        Args:
            texts: paths of UTF-8 files, or texts themselves (`str`).
            tokenizer: a tokenizer of transformers.
            context: tokens of a window; the first is the begin token if the tokenizer adds one to
                its texts.
            seed: of the order.
            vocabulary: number of tokens that the model knows; None does not check.

        Raises:
            OdpError: there is no text or no tokenizer.
        """
        from odp.backends.torch.inputs import Inputs
        from odp.backends.torch.text_windows import TextWindows

        if not texts:
            raise OdpError("give at least one text to train on")
        self._windows = TextWindows(
            texts,
            tokenizer,
            context,
            lambda ids: Inputs(kwargs={"input_ids": ids}),
            whole=False,
            purpose="training",
            begin=adds_begin_token(tokenizer),
        )
        self._seed = seed
        self._vocabulary = vocabulary
        self._count: int | None = None

    @property
    def count(self) -> int | None:
        """Windows of all texts together; None until they have been gone through once."""
        return self._count

    def check(self) -> None:
        """Cut one window.

        Raises:
            OdpError: a text cannot be read, all of them are shorter than one window, or the
                tokenizer is another model's.
        """
        next(self._in_order())

    def drawn_from(self, position: int) -> Iterator[torch.Tensor]:
        """Windows from the one on that comes after `position` others; without an end.

        Yields:
            Token ids, int64, shape (context,).

        Raises:
            OdpError: as `check`.
        """
        epoch, skipped = 0, 0
        while True:
            # Once a whole epoch has gone by, further ones need not be read to be skipped.
            if self._count is not None and position - skipped >= self._count:
                epochs = (position - skipped) // self._count
                epoch, skipped = epoch + epochs, skipped + epochs * self._count
            for window in self._epoch(epoch):
                if skipped < position:
                    skipped += 1
                else:
                    yield window
            epoch += 1

    def _epoch(self, number: int) -> Iterator[torch.Tensor]:
        generator = random.Random(f"{self._seed}/{number}")
        waiting: list[torch.Tensor] = []
        for window in self._in_order():
            waiting.append(window)
            if len(waiting) == _SHUFFLED:
                yield _drawn(waiting, generator)
        while waiting:
            yield _drawn(waiting, generator)

    def _in_order(self) -> Iterator[torch.Tensor]:
        count = 0
        for inputs in self._windows:
            window = inputs.tensors["input_ids"][0]
            if self._vocabulary is not None and int(window.max()) >= self._vocabulary:
                raise OdpError(
                    f"token {int(window.max())} of the tokenizer is not in the vocabulary of the "
                    f"model, which has {self._vocabulary} tokens: the tokenizer is not that of "
                    "this model"
                )
            count += 1
            yield window
        self._count = count


def _drawn(waiting: list[torch.Tensor], generator: random.Random) -> torch.Tensor:
    index = generator.randrange(len(waiting))
    waiting[index], waiting[-1] = waiting[-1], waiting[index]
    return waiting.pop()
