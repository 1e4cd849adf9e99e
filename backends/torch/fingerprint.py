"""Fingerprints of modules and of data: enough to tell whether ranges belong to them."""

from __future__ import annotations

import hashlib

import torch

from odp.backends.torch.inputs import Inputs

__all__ = ["DataFingerprint", "module_fingerprint"]

_SAMPLED = 1024


def module_fingerprint(module: torch.nn.Module) -> str:
    """A digest of the names, shapes and values of the parameters, 32 hexadecimal digits.

    Of each parameter up to 1,024 evenly spaced values count, as float32: reading all of a model of
    2.4 billion parameters takes longer than using its ranges.
    """
    digest = hashlib.sha256()
    for name, parameter in module.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(_bytes(parameter))
    return digest.hexdigest()[:32]


class DataFingerprint:
    """A digest of inputs that is taken while they go by."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.samples = 0

    def add(self, inputs: Inputs) -> None:
        """Take in one set of inputs."""
        self.samples += 1
        for name, tensor in inputs.tensors.items():
            self._digest.update(f"{name}{tuple(tensor.shape)}".encode())
            self._digest.update(_bytes(tensor))

    def hexdigest(self) -> str:
        """The digest of everything so far, 32 hexadecimal digits."""
        return self._digest.hexdigest()[:32]


def _bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    values = flat[:: max(1, flat.numel() // _SAMPLED)]
    if not values.is_floating_point():
        return values.to(torch.int64).cpu().numpy().tobytes()
    return values.float().cpu().numpy().tobytes()
