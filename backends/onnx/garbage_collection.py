"""A pause of Python's cyclic garbage collector while many small objects are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["paused_collector"]


@contextmanager
def paused_collector() -> Iterator[None]:
    """Switch the collector off, and back to what it was.

    Reading a graph of 99,000 nodes takes 6.3 s with it and 3.8 s without: every node is a few
    objects that all survive, and the collector walks them again and again.

    Example:
        >>> with paused_collector():
        ...     gc.isenabled()
        False
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
