"""The `sin` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Sin"]


@dataclass(frozen=True, kw_only=True)
class Sin(ElementaryPass):
    """Replace sine on the calibrated range."""

    name: ClassVar[str] = "sin"
