"""EZKL's commands, each in a process of its own: its memory is known, and a kill is harmless."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odp.approximations.errors import OdpError

__all__ = ["EzklError", "Measured", "run_ezkl"]


class EzklError(OdpError):
    """What EZKL itself says against a step.

    Attributes:
        said: in EZKL's words.
    """

    def __init__(self, step: str, said: str) -> None:
        super().__init__(step, said)
        self.said = said

    def __str__(self) -> str:
        return f"ezkl {self.args[0]}: {self.said}"


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
    step: str,
    *arguments: Any,
    writes: Path | Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Measured:
    """Call a function of the package ezkl.

    Args:
        step: its name.
        *arguments: paths and values; those that are in `writes` are written under other names first
            and renamed, so that they are whole or not there.
        writes: the file or files that it writes.
        environment: variables of its process, beside those of this one.
        **options: by name.

    Raises:
        EzklError: EZKL refuses.
        OdpError: its process is killed (out of memory, as a rule), or EZKL is not installed.
    """
    if importlib.util.find_spec("ezkl") is None:
        raise OdpError('the package ezkl is not installed: pip install "odp-rewrite[ezkl]"')
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
            [sys.executable, "-m", "odp.backends.ezkl.step", str(os.getpid())],
            input=pickle.dumps((step, values, keywords)),
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            # Ctrl-C goes to this process, which kills the other: Rust code would not listen.
            start_new_session=True,
            check=False,
        )
        found = json.loads(process.stdout or b"{}")
        if "error" in found:
            raise EzklError(step, found["error"])
        if process.returncode or not found:
            raise OdpError(f"ezkl {step} {_end(process.returncode)}")
        for target, written in temporary.items():
            written.replace(target)
        return Measured(**found)
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)


def _end(code: int) -> str:
    """How a process ended that gave no answer."""
    if code == -signal.SIGKILL:
        return (
            "was killed, most likely for want of memory; allow a larger error, split the circuit, "
            "or use a larger machine"
        )
    how = signal.strsignal(-code) if code < 0 else f"exit code {code}"
    return f"crashed ({how}); try again"
