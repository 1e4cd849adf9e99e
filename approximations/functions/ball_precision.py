"""python-flint's precision and length of series: set for a block of code, by one thread at a time.

Both are global, and a series knows nothing beyond its length: cut short by another thread it would
give a remainder of 0.  flint takes 0.15 s to import, so that happens in the block.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ball_precision", "flint_installed"]

_LOCK = threading.RLock()


def flint_installed() -> bool:
    """Whether python-flint can be imported; without it nothing is proven."""
    try:
        import flint  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def ball_precision(bits: int, terms: int | None = None) -> Iterator[None]:
    """Ball arithmetic of a precision; afterwards it is as it was, also after an error.

    Args:
        bits: of the midpoints.
        terms: largest number of coefficients of a series; None leaves it.

    Raises:
        ImportError: if python-flint is not installed.

    >>> import flint
    >>> with ball_precision(200, 3):
    ...     flint.ctx.prec, flint.ctx.cap
    (200, 3)
    """
    import flint

    with _LOCK:
        previous = flint.ctx.prec, flint.ctx.cap
        flint.ctx.prec = bits
        if terms is not None:
            flint.ctx.cap = terms
        try:
            yield
        finally:
            flint.ctx.prec, flint.ctx.cap = previous
