"""How much memory this machine has."""

from __future__ import annotations

import os

__all__ = ["machine_memory"]


def machine_memory() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
