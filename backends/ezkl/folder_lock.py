"""One process at a time writes to a folder, and finds none of the remains of an earlier one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from odp.approximations.errors import OdpError

__all__ = ["locked"]


@contextlib.contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Let nobody else work in a folder, and remove what an interrupted process has left there.

    The lock is the kernel's, on the folder itself: it leaves no file, and ends with the process,
    however that ends. So every temporary file that is there under the lock is nobody's.

    Args:
        folder: that exists.
        wait: for another process that has the lock, instead of raising.

    Raises:
        OdpError: another process has the lock, or the folder cannot be read.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OdpError(f"cannot open '{folder}': {error.strerror}") from None
    try:
        if _has_lock(descriptor, folder, wait):
            for stray in folder.glob(".odp-*"):
                if stray.is_file():
                    stray.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def _has_lock(descriptor: int, folder: Path, wait: bool) -> bool:
    """Whether there is a lock now; some network file systems have none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise OdpError(
                f"another odp ezkl prove is at work in '{folder}': wait until it is done"
            ) from None
        return False
    return True
