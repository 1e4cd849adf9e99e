"""The `erf` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Erf"]


@dataclass(frozen=True, kw_only=True)
class Erf(ElementaryPass):
    """Replace the error function."""

    name: ClassVar[str] = "erf"
