"""The `atanh` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Atanh"]


@dataclass(frozen=True, kw_only=True)
class Atanh(ElementaryPass):
    """Replace the inverse hyperbolic tangent."""

    name: ClassVar[str] = "atanh"
