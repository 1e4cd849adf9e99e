"""Texts: read whole, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from odp.approximations.errors import OdpError
from odp.evaluation.texts import Text, adds_begin_token, read_texts, tokenise

from .tiny_models import tokenizer


def error(*paths: Path) -> str:
    with pytest.raises(OdpError) as caught:
        read_texts(paths)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_text_is_named_after_its_file(tmp_path: Path) -> None:
    file = tmp_path / "prose.txt"
    file.write_bytes("Grüße\r\n".encode())
    assert read_texts([file]) == [Text("prose.txt", "Grüße\r\n")]


def test_files_of_one_name_keep_their_folders(tmp_path: Path) -> None:
    files = [tmp_path / "a" / "text", tmp_path / "b" / "text", tmp_path / "other"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("w1")
    assert [text.name for text in read_texts(files)] == [str(files[0]), str(files[1]), "other"]


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"\xef\xbb\xbfw1")
    assert read_texts([file])[0].text == "w1"


def test_files_that_are_no_texts(tmp_path: Path) -> None:
    assert "does not exist" in error(tmp_path / "missing")
    assert "is a folder" in error(tmp_path)
    empty = tmp_path / "empty"
    empty.write_text(" \n")
    assert error(empty) == f"text '{empty}' is empty"
    latin = tmp_path / "latin"
    latin.write_bytes(b"Gr\xfc\xdfe")
    assert error(latin).startswith(f"text '{latin}' is not UTF-8: byte 2 is 0xfc")
    good = tmp_path / "good"
    good.write_text("w1")
    assert error(good, tmp_path / "." / "good").endswith("is given twice")


def test_tokens_are_those_of_the_tokenizer_without_special_ones() -> None:
    for adds_begin in (False, True):
        words = tokenizer(adds_begin=adds_begin)
        (found,) = tokenise([Text("a", "w0 w5 w9")], words, least=3)
        assert found.tokens.tolist() == [3, 8, 12]
        assert adds_begin_token(words) is adds_begin


def test_only_the_first_tokens_of_a_text_are_kept() -> None:
    texts = [Text("a", "w0 w5 w9"), Text("b", "w0 w1")]
    found = tokenise(texts, tokenizer(), least=2, most=2)
    assert [text.tokens.tolist() for text in found] == [[3, 8], [3, 4]]


@pytest.mark.parametrize(
    ("texts", "most", "message"),
    [
        ([], None, "give at least one text"),
        ([Text("a", "w1 w2 w3")], None, "text 'a' has 3 tokens, but one window needs 4"),
        ([Text("a", "w1 " * 9), Text("a", "w2 " * 9)], None, "two texts are named 'a'"),
        ([Text("a", "w1 " * 9)], 3, "3 tokens of a text are less than one window"),
    ],
)
def test_texts_that_cannot_be_scored(texts: list[Text], most: int | None, message: str) -> None:
    with pytest.raises(OdpError, match=message):
        tokenise(texts, tokenizer(), least=4, most=most)
