"""The `sinh` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Sinh"]


@dataclass(frozen=True, kw_only=True)
class Sinh(ElementaryPass):
    """Replace the hyperbolic sine."""

    name: ClassVar[str] = "sinh"
