"""The `acos` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Acos"]


@dataclass(frozen=True, kw_only=True)
class Acos(ElementaryPass):
    """Replace the inverse cosine."""

    name: ClassVar[str] = "acos"
