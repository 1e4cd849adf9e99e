"""The texts that models are scored on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import OdpError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Text", "TokenisedText", "adds_begin_token", "read_texts", "tokenise"]


@dataclass(frozen=True)
class Text:
    """A text with a name.

    Attributes:
        name: by which it is reported; unique among the texts of an evaluation.
        text: what it says.
    """

    name: str
    text: str


@dataclass(frozen=True)
class TokenisedText:
    """A text as a model reads it.

    Attributes:
        name: name of the text.
        tokens: token ids without special tokens, int64, shape (tokens,).
    """

    name: str
    tokens: NDArray[np.int64]


def read_texts(paths: Sequence[str | Path]) -> list[Text]:
    """Read text files, UTF-8.

    Args:
        paths: files.  A text is named after its file, with as much of the path as tells apart
            files of one name.

    Raises:
        OdpError: a file is missing, a folder, unreadable, empty, not UTF-8, or named twice.
    """
    files = [Path(path) for path in paths]
    texts = [_read(file) for file in files]
    repeated = [
        name for name, count in Counter(file.resolve() for file in files).items() if count > 1
    ]
    if repeated:
        raise OdpError(f"text '{repeated[0]}' is given twice")
    names = [file.name for file in files]
    return [
        Text(name if names.count(name) == 1 else str(file), text)
        for file, name, text in zip(files, names, texts, strict=True)
    ]


def _read(file: Path) -> str:
    if file.is_dir():
        raise OdpError(f"text '{file}' is a folder; name the files in it, such as {file}/*.txt")
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise OdpError(f"text '{file}' does not exist") from None
    except OSError as error:
        raise OdpError(
            f"cannot read text '{file}': {(error.strerror or str(error)).lower()}"
        ) from None
    try:
        # Some editors put a byte order mark before the text, which is not part of it.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OdpError(
            f"text '{file}' is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}; "
            "convert it first, for example with iconv -t utf-8"
        ) from None
    if not text.strip():
        raise OdpError(f"text '{file}' is empty")
    return text


def tokenise(
    texts: Sequence[Text],
    tokenizer: PreTrainedTokenizerBase,
    *,
    least: int,
    most: int | None = None,
) -> list[TokenisedText]:
    """Turn texts into tokens, once for all models.

    Args:
        texts: the texts.
        tokenizer: the tokenizer of all models.
        least: number of tokens that one window needs.
        most: number of tokens to keep of each text; None for all.

    Raises:
        OdpError: there is no text, two have one name, or one has fewer tokens than a window.
    """
    if not texts:
        raise OdpError("give at least one text to score the models on")
    names = Counter(text.name for text in texts)
    name, count = names.most_common(1)[0]
    if count > 1:
        raise OdpError(f"two texts are named '{name}'; give each its own name")
    if most is not None and most < least:
        raise OdpError(f"{most} tokens of a text are less than one window, which needs {least}")
    tokenised = []
    for text in texts:
        ids = _encode(text.text, tokenizer)
        if len(ids) < least:
            raise OdpError(
                f"text '{text.name}' has {len(ids)} tokens, but one window needs {least}; "
                "give a longer text or a smaller context"
            )
        tokenised.append(TokenisedText(text.name, np.array(ids[:most], np.int64)))
    return tokenised


def _encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    # verbose=False: a text is longer than the model's context, which is what windows are for.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def adds_begin_token(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts its begin token before a text."""
    begin = tokenizer.bos_token_id
    ids: list[int] = tokenizer("a")["input_ids"]
    return begin is not None and bool(ids) and ids[0] == begin
