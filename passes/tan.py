"""The `tan` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Tan"]


@dataclass(frozen=True, kw_only=True)
class Tan(ElementaryPass):
    """Replace tangent between two of its poles."""

    name: ClassVar[str] = "tan"
