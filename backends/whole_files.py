"""Files that are either written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from odp.approximations.errors import OdpError

__all__ = ["check_writable", "make_folder", "write_bytes", "write_text"]


def check_writable(path: Path) -> None:
    """Fail before hours of work, not after: can a file be written at `path`?

    Raises:
        OdpError: the folder is missing or not writable, or `path` is a directory.
    """
    folder = path.parent
    if path.is_dir():
        raise OdpError(f"cannot write '{path}': it is a directory; give the name of a file")
    if not folder.is_dir():
        raise OdpError(f"cannot write '{path}': folder '{folder}' does not exist")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".odp-"):
            pass
    except OSError as error:
        raise OdpError(f"cannot write '{path}': {_reason(error)}") from None


def make_folder(path: Path, *, parents: bool = True) -> None:
    """Make a folder, unless it is there.

    Args:
        path: of the folder.
        parents: whether to make those that it is in, too.

    Raises:
        OdpError: it cannot be made.
    """
    try:
        path.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise OdpError(f"cannot make folder '{path}': {_reason(error)}") from None


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, with the line ends of the platform; see `write_bytes`."""
    write_bytes(path, text.replace("\n", os.linesep).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file in the same folder and rename it.

    Raises:
        OdpError: the file cannot be written; what was at `path` before is untouched.
    """
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".odp-", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise OdpError(f"cannot write '{path}': {_reason(error)}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "the disk is full"
    return (error.strerror or str(error)).lower()
