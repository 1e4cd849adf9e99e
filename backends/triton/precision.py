"""What a function may be off by in a kernel, unless the caller says otherwise."""

from __future__ import annotations

import torch

__all__ = ["default_error", "error_of"]

# Below a twentieth of half an ulp of bfloat16 (2^-9) and of float16 (2^-12); for float32 what the
# arithmetic itself loses.
_ERRORS = {torch.bfloat16: 1e-4, torch.float16: 1e-5, torch.float32: 3e-7, torch.float64: 3e-7}


# Once a row, whatever it costs costs nothing.
_ONCE_A_ROW = {"rsqrt": 1e-7, "log": 3e-7}


def error_of(function: str, error: float) -> float:
    """What a function is asked for where an operator may be off by `error`.

    >>> error_of("exp", 1e-4), error_of("rsqrt", 1e-4)
    (0.0001, 1e-07)
    """
    return min(error, _ONCE_A_ROW.get(function, error))


def default_error(dtype: torch.dtype) -> float:
    """The error of the functions of an operator whose result has this type.

    >>> default_error(torch.bfloat16)
    0.0001
    """
    return _ERRORS.get(dtype, 3e-7)
