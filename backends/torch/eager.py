"""Running modules uncompiled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["eagerly"]


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Run without gradients, and let functions that their author compiles run uncompiled.

    Compiling BitNet's quantisers for a few calls took 3 to 14 seconds, and a mode that watches
    operators cannot look inside.
    """
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        yield
