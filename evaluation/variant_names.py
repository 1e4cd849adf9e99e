"""Names of models: one is the original, the others are variants of it."""

from __future__ import annotations

from collections.abc import Iterable

from odp.approximations.errors import OdpError

__all__ = ["ORIGINAL", "check_names"]

ORIGINAL = "original"


def check_names(variants: Iterable[str]) -> None:
    """Raise if there is no variant, or one has a name that it cannot have.

    Raises:
        OdpError: as said.
    """
    names = list(variants)
    if not names:
        raise OdpError("give at least one variant to compare with the original")
    for name in names:
        if name in ("", ORIGINAL):
            raise OdpError(f"a variant cannot be named '{name}'")
