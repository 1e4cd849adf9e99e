"""Why an expression is not offered at a scale."""

from __future__ import annotations

from typing import Literal

from odp.approximations.errors import ApproximationError

__all__ = ["FixedPointRefusal", "Reason"]

Reason = Literal["diverges", "overflow", "divisor may be zero", "not proven", "error too large"]


class FixedPointRefusal(ApproximationError):
    """An expression cannot be used at a scale.

    Attributes:
        reason: why, in a few words that programs can compare.
    """

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[type[FixedPointRefusal], tuple[str, Reason]]:
        return FixedPointRefusal, (str(self), self.reason)
