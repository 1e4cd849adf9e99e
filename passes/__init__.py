"""The passes: one file for each name that a user can type.

The registry is this folder.  A module that defines a `Pass` with a `name` is a pass; nothing has to
be listed anywhere else, and the tests walk the registry.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from odp.rewriter.rewrite_pass import Pass

__all__ = ["registry"]


@functools.cache
def registry() -> dict[str, type[Pass]]:
    """Every pass by name, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    found: dict[str, type[Pass]] = {}
    pending = list(Pass.__subclasses__())
    while pending:
        kind = pending.pop()
        pending.extend(kind.__subclasses__())
        if "name" in kind.__dict__ and kind.__module__.startswith(f"{__name__}."):
            found[kind.name] = kind
    return dict(sorted(found.items()))
