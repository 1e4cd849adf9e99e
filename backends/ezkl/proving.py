"""EZKL's commands, each in a process of its own: its memory is known, and a kill is harmless."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from odp.approximations.errors import OdpError
from odp.backends.ezkl.run_arguments import RunArguments

__all__ = ["Measured", "run_ezkl", "test_srs"]


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
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(_call, step, values, keywords).result()
        if isinstance(found, str):
            raise OdpError(f"ezkl {step}: {found}")
        for target, written in temporary.items():
            written.replace(target)
        return found
    except BrokenProcessPool:
        raise OdpError(
            f"ezkl {step} was killed, most likely for want of memory; allow a larger error, split "
            "the model, or use a larger machine"
        ) from None
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)


def _call(step: str, arguments: list[Any], options: dict[str, Any]) -> Measured | str:
    """Run in the child; a message where EZKL refuses."""
    import ezkl

    named = {k: v.to_ezkl() if isinstance(v, RunArguments) else v for k, v in options.items()}
    with _silenced():
        started = time.perf_counter()
        try:
            result = getattr(ezkl, step)(*arguments, **named)
        except (RuntimeError, ValueError, OSError) as error:
            return " ".join(str(error).split())[:300]
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    plain = result if isinstance(result, bool | int | float | str | type(None)) else None
    return Measured(plain, seconds, peak)


@contextlib.contextmanager
def _silenced() -> Any:
    """Warnings of EZKL's Rust side, such as that about low scales, which are intended here."""
    saved = os.dup(1), os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            for target, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)


def test_srs(
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
