"""One function of the package ezkl, in a process of its own: `-m odp.backends.ezkl.step PID`.

Reads a pickled (name, arguments, options) from standard input and writes JSON to standard output:
the result, seconds and peak memory, or what EZKL said. Ends with the process PID, its parent.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path
from typing import Any

from odp.backends.ezkl.memory import peak_memory
from odp.backends.ezkl.run_arguments import RunArguments

__all__ = ["main"]

# Of <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the step that standard input asks for."""
    _end_with_parent()
    name, arguments, options = pickle.load(sys.stdin.buffer)
    answer = os.fdopen(os.dup(1), "w")
    # EZKL's Rust side warns of low scales, which are intended here, and draws progress bars.
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    json.dump(_run(name, arguments, options), answer)
    answer.flush()
    # EZKL's own threads can crash while the interpreter takes itself apart.
    os._exit(0)


def _end_with_parent() -> None:
    """Have the kernel kill this process when its parent is gone, however it went.

    Rust code does not hear of signals, and a parent that is killed cannot pass one on.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have gone before that.
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)


def _run(name: str, arguments: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    import ezkl

    native = {k: v.to_ezkl() if isinstance(v, RunArguments) else v for k, v in options.items()}

    async def call() -> Any:
        result = getattr(ezkl, name)(*arguments, **native)
        # Functions that may have to download something are asynchronous.
        return await result if inspect.isawaitable(result) else result

    started = time.perf_counter()
    try:
        result = asyncio.run(call())
    except BaseException as error:
        # A panic of Rust code is no Exception, and says nothing about memory.
        return {"error": " ".join(str(error).split())[:300] or type(error).__name__}
    seconds = time.perf_counter() - started
    plain = result if isinstance(result, bool | int | float | str | type(None)) else None
    return {"result": plain, "seconds": seconds, "peak_memory": peak_memory()}


if __name__ == "__main__":
    main()
