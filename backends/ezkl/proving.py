"""EZKL's commands, each in a process of its own: its memory is known, and a kill is harmless."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odp.approximations.errors import OdpError

__all__ = ["Measured", "run_ezkl", "unsafe_srs"]


@dataclass(frozen=True)
class Measured:
    """What one step took.

    Attributes:
        result: what EZKL returned.
        seconds: of the step alone.
        peak_memory: largest resident memory of its process, bytes.
    """

    result: Any
    seconds: float
    peak_memory: int


def run_ezkl(
    step: str, *arguments: Any, writes: Path | Sequence[Path] = (), **options: Any
) -> Measured:
    """Call a function of the package ezkl.

    Args:
        step: its name.
        *arguments: paths and values; those that are in `writes` are written under other names first
            and renamed, so that they are whole or not there.
        writes: the file or files that it writes.
        **options: by name.

    Raises:
        OdpError: EZKL refuses, or its process is killed (out of memory, as a rule).
    """
    targets = [writes] if isinstance(writes, Path) else list(writes)
    temporary = {
        target: target.with_name(f".odp-{os.getpid()}-{target.name}") for target in targets
    }

    def named(value: Any) -> Any:
        value = temporary.get(value, value) if isinstance(value, Path) else value
        return str(value) if isinstance(value, Path) else value

    values = [named(value) for value in arguments]
    keywords = {key: named(value) for key, value in options.items()}
    try:
        process = subprocess.run(
            [sys.executable, "-m", "odp.backends.ezkl.step"],
            input=pickle.dumps((step, values, keywords)),
            stdout=subprocess.PIPE,
            check=False,
        )
        found = json.loads(process.stdout or b"{}")
        if "error" in found:
            raise OdpError(f"ezkl {step}: {found['error']}")
        if process.returncode or not found:
            raise OdpError(
                f"ezkl {step} was killed, most likely for want of memory; allow a larger error, "
                "split the circuit, or use a larger machine"
            )
        for target, written in temporary.items():
            written.replace(target)
        return Measured(**found)
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)


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
    if not path.is_file():
        told(f"making a TEST reference string for 2^{logrows} rows: unsafe for real proofs")
        run_ezkl("gen_srs", path, logrows, writes=path)
    return path
