"""The `acosh` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Acosh"]


@dataclass(frozen=True, kw_only=True)
class Acosh(ElementaryPass):
    """Replace the inverse hyperbolic cosine."""

    name: ClassVar[str] = "acosh"
