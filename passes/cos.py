"""The `cos` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Cos"]


@dataclass(frozen=True, kw_only=True)
class Cos(ElementaryPass):
    """Replace cosine on the calibrated range."""

    name: ClassVar[str] = "cos"
