"""What libraries print below Python stays out of standard output."""

from __future__ import annotations

import ctypes
import os

import pytest

from odp.approximations.native_output import without_native_output


def _print_natively(text: str) -> None:
    """Through the buffer of the C library, as a solver does."""
    ctypes.CDLL(None).printf(text.encode())


def test_only_what_is_printed_meanwhile_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with without_native_output():
        _print_natively("lost\n")
        os.write(1, b"lost too\n")
    print("after")
    _print_natively("and natively\n")
    ctypes.CDLL(None).fflush(None)
    # Python holds its own line back until the end of capture, so order is not asked for.
    assert sorted(capfd.readouterr().out.splitlines()) == ["after", "and natively", "before"]


def test_an_exception_gives_output_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), without_native_output():
        raise KeyError
    os.write(1, b"heard\n")
    assert capfd.readouterr().out == "heard\n"
