"""Windows of tokens out of files and prompts, read piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from odp.approximations.errors import OdpError
from odp.backends.torch.inputs import Inputs

__all__ = ["TextWindows"]

_PIECE = 1 << 16
"""Characters that are tokenised at a time, up to the next end of a line."""


class TextWindows:
    """Token windows of one length from texts, as inputs of a model; can be gone through again.

    Texts are read, tokenised and forgotten in pieces of 64 KiB, so that a text of any size takes no
    more memory than one window.
    """

    def __init__(
        self,
        texts: Sequence[str | Path],
        tokenizer: Any,
        length: int,
        make: Callable[[torch.Tensor], Inputs],
        whole: bool,
        purpose: str = "calibration",
        begin: bool = True,
    ) -> None:
        """Cut windows out of texts.

        Args:
            texts: paths of UTF-8 files, or prompts.
            tokenizer: a tokenizer of transformers.
            length: tokens in a window.
            make: inputs from token ids, (1, length), int64.
            whole: whether a prompt is a window by itself, cut at `length`; files, and everything
                for a model of static shape, are cut into windows that are full.
            purpose: what the texts are for, in messages.
            begin: whether windows start with the begin token, if the tokenizer has one.

        Raises:
            OdpError: there is no tokenizer.
        """
        if not callable(getattr(tokenizer, "encode", None)):
            raise OdpError(f"{purpose} on text needs a tokenizer: pass tokenizer=...")
        self._texts = texts
        self._tokenizer = tokenizer
        self._length = length
        self._make = make
        self._whole = whole
        self._purpose = purpose
        self._begin = begin

    def __iter__(self) -> Iterator[Inputs]:
        rest: list[int] = []
        windows = total = 0
        for text in self._texts:
            for ids in self._pieces(text):
                total += len(ids)
                body = self._length - len(self._prefix)
                if self._whole and not isinstance(text, Path):
                    for start in range(0, len(ids), body):
                        yield self._window(ids[start : start + body])
                        windows += 1
                    continue
                rest.extend(ids)
                while len(rest) >= body:
                    yield self._window(rest[:body])
                    windows += 1
                    del rest[:body]
        if windows == 0:
            names = ", ".join(
                str(t) if isinstance(t, Path) else "a prompt" for t in self._texts[:3]
            )
            if total == 0:
                raise OdpError(f"the {self._purpose} text ({names}) is empty")
            raise OdpError(
                f"the {self._purpose} text ({names}) has {total} tokens, and one window needs "
                f"{self._length}; give a longer text or a smaller context"
            )

    @property
    def _prefix(self) -> list[int]:
        start = getattr(self._tokenizer, "bos_token_id", None) if self._begin else None
        return [] if start is None else [start]

    def _window(self, ids: list[int]) -> Inputs:
        full = (self._prefix + ids)[: self._length]
        return self._make(torch.tensor([full], dtype=torch.int64))

    def _pieces(self, text: str | Path) -> Iterator[list[int]]:
        """Token ids of a text, piece by piece."""
        if not isinstance(text, Path):
            if text.strip():
                yield self._encoded(text)
            return
        try:
            with text.open(encoding="utf-8") as file:
                while piece := file.read(_PIECE):
                    piece += file.readline()
                    yield self._encoded(piece)
        except OSError as error:
            raise OdpError(f"cannot read text '{text}': {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise OdpError(f"text '{text}' is not UTF-8 (byte {error.start})") from None

    def _encoded(self, text: str) -> list[int]:
        # verbose=False: a text is longer than the model's context, which is what windows are for.
        ids = self._tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return [int(token) for token in ids]
