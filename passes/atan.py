"""The `atan` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Atan"]


@dataclass(frozen=True, kw_only=True)
class Atan(ElementaryPass):
    """Replace the inverse tangent."""

    name: ClassVar[str] = "atan"
