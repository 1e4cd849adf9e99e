"""Structured reference strings: what is in a file, whether it is long enough, and test ones.

A file is the header k (4 bytes, least significant first), 2^k points of the curve as powers, 2^k as
Lagrange polynomials (64 bytes each), and two points of the second group (128 bytes each).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from odp.approximations.errors import OdpError
from odp.backends.ezkl.folder_lock import locked
from odp.backends.ezkl.proving import run_ezkl

__all__ = ["ReferenceString", "fitting", "read_reference_string", "stored_srs", "unsafe_srs"]

_HEADER, _POINT, _POINT_2 = 4, 64, 128
# 2^28 is the largest power of two that divides the order of the field less one.
_LARGEST = 28
# Every string begins with the generator (1, 2), in Montgomery's form, least significant byte first.
_MODULUS = 21888242871839275222246405745257275088696311157297823662689037894645226208583
_GENERATOR = b"".join((x * 2**256 % _MODULUS).to_bytes(32, "little") for x in (1, 2))


@dataclass(frozen=True)
class ReferenceString:
    """What a file says of itself.

    Attributes:
        logrows: log2 of its length.
        ceremony: digest of the secret's public trace: the same for strings of any length that come
            from one ceremony, and keys of one are good for the others.
    """

    logrows: int
    ceremony: str


def read_reference_string(path: Path) -> ReferenceString:
    """Read the header and the end of a file, and check its size.

    Args:
        path: the file.

    Raises:
        OdpError: it does not exist, is something else, or is not whole.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER + _POINT)
            size = file.seek(0, os.SEEK_END)
            logrows = int.from_bytes(start[:_HEADER], "little")
            if not 1 <= logrows <= _LARGEST or start[_HEADER:] != _GENERATOR:
                raise OdpError(
                    f"'{path}' is no structured reference string of EZKL; `ezkl get-srs "
                    "--logrows K --srs-path FILE` downloads one"
                )
            expected = _HEADER + 2 * _POINT * 2**logrows + 2 * _POINT_2
            if size != expected:
                raise OdpError(
                    f"'{path}' is not whole: a reference string for logrows {logrows} has "
                    f"{expected:,} bytes, this file {size:,}; download it again with `ezkl "
                    f"get-srs --logrows {logrows} --srs-path {path}`"
                )
            file.seek(expected - _POINT_2)
            return ReferenceString(logrows, hashlib.sha256(file.read()).hexdigest())
    except FileNotFoundError:
        raise OdpError(f"reference string '{path}' does not exist") from None
    except OSError as error:
        raise OdpError(f"cannot read reference string '{path}': {error.strerror}") from None


def fitting(path: Path, logrows: int) -> ReferenceString:
    """Read a reference string that is to be long enough; EZKL shortens longer ones itself.

    Args:
        path: the file.
        logrows: of the circuit.

    Raises:
        OdpError: it is too short, or as for `read_reference_string`.
    """
    string = read_reference_string(path)
    if string.logrows < logrows:
        raise OdpError(
            f"reference string '{path}' is for logrows {string.logrows}, and the circuit needs "
            f"{logrows} or more; `ezkl get-srs --logrows {logrows} --srs-path FILE` downloads one"
        )
    return string


def unsafe_srs(
    logrows: int, folder: Path, told: Callable[[str], None] = lambda message: None
) -> Path:
    """A structured reference string made on this machine: for tests only.

    Whoever made it can forge proofs; real ones need a string of a public ceremony (`ezkl get-srs`).

    Args:
        logrows: log2 of its length.
        folder: where strings are kept.
        told: called with what a person must know.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"test-{logrows}.srs"
    if _is_whole(path):
        return path
    with locked(folder, wait=True):
        # Whoever had the lock before may have made this very string, and keys with it.
        if not _is_whole(path):
            told(f"making a TEST reference string for 2^{logrows} rows: unsafe for real proofs")
            run_ezkl("gen_srs", path, logrows, writes=path)
    return path


def stored_srs(logrows: int, folder: Path) -> Path:
    """The test string that was made on this machine for circuits of a size.

    Args:
        logrows: log2 of its length.
        folder: where strings are kept.

    Raises:
        OdpError: there is none.
    """
    path = folder / f"test-{logrows}.srs"
    if not path.is_file():
        raise OdpError(
            f"no TEST reference string for logrows {logrows} was made on this machine: give the "
            "one that the keys were made with, --srs FILE"
        )
    return path


def _is_whole(path: Path) -> bool:
    try:
        read_reference_string(path)
    except OdpError:
        return False
    return True
