"""The `asin` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Asin"]


@dataclass(frozen=True, kw_only=True)
class Asin(ElementaryPass):
    """Replace the inverse sine."""

    name: ClassVar[str] = "asin"
