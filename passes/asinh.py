"""The `asinh` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Asinh"]


@dataclass(frozen=True, kw_only=True)
class Asinh(ElementaryPass):
    """Replace the inverse hyperbolic sine."""

    name: ClassVar[str] = "asinh"
