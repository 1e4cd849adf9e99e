"""The `cosh` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Cosh"]


@dataclass(frozen=True, kw_only=True)
class Cosh(ElementaryPass):
    """Replace the hyperbolic cosine."""

    name: ClassVar[str] = "cosh"
