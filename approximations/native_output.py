"""Keeping what native libraries print out of our standard output."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

__all__ = ["without_native_output"]


@contextlib.contextmanager
def without_native_output() -> Iterator[None]:
    """Drop what is written to the descriptor of standard output meanwhile, by whatever language.

    HiGHS prints a line of debugging for some integer programs ("transformNewIntegerFeasibleSolution
    tmpSolver.run();"), whatever its options say, which is no JSON.  Python's own output from before
    is passed on; other threads should not print meanwhile.
    """
    with contextlib.ExitStack() as stack:
        try:
            kept = os.dup(1)
        except OSError:
            # There is no standard output that could be spoilt.
            yield
            return
        stack.callback(os.close, kept)
        _flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        os.dup2(nowhere, 1)
        try:
            yield
        finally:
            _flush()
            os.dup2(kept, 1)


def _flush() -> None:
    """Write out what Python and the C library hold back."""
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.flush()
    # Windows has no library of this process.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).fflush(None)
