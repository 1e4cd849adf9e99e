"""How much memory this machine has, and this process has used."""

from __future__ import annotations

import os
import resource
from pathlib import Path

__all__ = ["machine_memory", "peak_memory"]

_STATUS = Path("/proc/self/status")


def machine_memory() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory() -> int:
    """Largest resident memory of this process so far, bytes.

    Linux keeps in `ru_maxrss` what the parent had when it forked: a step started by a process of 1
    GB seemed to need 1 GB.  The high-water mark in /proc is that of the program itself.
    """
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
