"""Where kernels run: on a GPU, in Triton's interpreter if asked for, otherwise as torch code."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch

from odp.approximations.errors import OdpError

__all__ = ["check_device", "interpreted", "multiprocessors", "runs_kernels"]


def interpreted() -> bool:
    """Whether Triton's interpreter runs kernels on CPU tensors (``TRITON_INTERPRET=1``)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def runs_kernels(device: torch.device) -> bool:
    """Whether tensors of a device go to kernels; others are computed by torch in the same terms."""
    return device.type == "cuda" or (device.type == "cpu" and interpreted())


def check_device(operator: str, device: torch.device) -> None:
    """Refuse devices that there is no path for.

    Raises:
        OdpError: neither CPU, CUDA nor meta; or CUDA without Triton.
    """
    if device.type not in ("cpu", "cuda", "meta"):
        raise OdpError(
            f"{operator}: no kernels for the device '{device}'; move the tensors to 'cuda' or 'cpu'"
        )
    if device.type == "cuda" and not _triton_installed():
        raise OdpError(f'{operator}: kernels need Triton; pip install "odp-rewrite[triton]"')


@cache
def _triton_installed() -> bool:
    return find_spec("triton") is not None


@cache
def multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 2 in the interpreter, where each program costs time."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count
