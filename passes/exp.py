"""The `exp` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Exp"]


@dataclass(frozen=True, kw_only=True)
class Exp(ElementaryPass):
    """Replace every exponential, also the one inside softmax, log-softmax and ELU."""

    name: ClassVar[str] = "exp"
