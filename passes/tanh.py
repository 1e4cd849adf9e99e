"""The `tanh` pass."""

from dataclasses import dataclass
from typing import ClassVar

from odp.rewriter.rewrite_pass import ElementaryPass

__all__ = ["Tanh"]


@dataclass(frozen=True, kw_only=True)
class Tanh(ElementaryPass):
    """Replace the hyperbolic tangent, also inside recurrent layers and tanh-GELU."""

    name: ClassVar[str] = "tanh"
