"""Errors of other libraries, shortened to what fits into our one line."""

from __future__ import annotations

__all__ = ["first_line"]


def first_line(error: BaseException) -> str:
    r"""The first line of what an error says, or its kind if it says nothing.

    >>> first_line(ValueError("no such thing\nsee the manual")), first_line(KeyError())
    ('no such thing', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
