"""Errors of the ONNX backend; each message is one line meant for a person."""

from __future__ import annotations

from odp.approximations.errors import OdpError

__all__ = ["LegalisationError", "OnnxError"]


class OnnxError(OdpError):
    """An ONNX file or model cannot be read, checked or written."""


class LegalisationError(OdpError):
    """A model cannot be expressed in the target opset.

    Attributes:
        offenders: one entry per node that has no equivalent, `node: reason`.
    """

    def __init__(self, message: str, offenders: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.offenders = offenders
