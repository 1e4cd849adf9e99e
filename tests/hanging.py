"""A guard against what never ends, which is no measurement: nothing guarded takes a second."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

__all__ = ["must_end"]

_FOR_EVER = 60


@contextlib.contextmanager
def must_end() -> Iterator[None]:
    """Fail what is still running after a minute."""

    def give_up(number: int, frame: Any) -> None:
        raise TimeoutError(f"still running after {_FOR_EVER} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_FOR_EVER)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
