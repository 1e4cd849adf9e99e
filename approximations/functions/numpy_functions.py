"""Float64 implementations of the registered functions, stable over the whole line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "erf",
    "erfc",
    "gelu",
    "gelu_tanh",
    "log_sigmoid",
    "mish",
    "mish_gate",
    "normal_cdf",
    "power",
    "rsqrt",
    "sigmoid",
    "silu",
    "sinc",
    "softplus",
    "softplus_tail",
]

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    """``1/(1 + exp(-x))`` without overflow."""
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, decay) / (1.0 + decay)


def rsqrt(x: Array) -> Array:
    """``1/sqrt(x)``."""
    return 1.0 / np.sqrt(x)


def erf(x: Array) -> Array:
    """The error function."""
    from scipy.special import erf as scipy_erf

    return np.asarray(scipy_erf(x))


def erfc(x: Array) -> Array:
    """``1 - erf(x)`` without cancellation."""
    from scipy.special import erfc as scipy_erfc

    return np.asarray(scipy_erfc(x))


def normal_cdf(x: Array) -> Array:
    """The distribution function of the standard normal distribution."""
    from scipy.special import ndtr

    return np.asarray(ndtr(x))


def softplus(x: Array) -> Array:
    """``log(1 + exp(x))`` without overflow."""
    return np.logaddexp(0.0, x)


def softplus_tail(x: Array) -> Array:
    """``log(1 + exp(-x))``: what softplus adds to relu, at |x|."""
    return np.logaddexp(0.0, -x)


def log_sigmoid(x: Array) -> Array:
    """``log(sigmoid(x))`` without cancellation."""
    return -np.logaddexp(0.0, -x)


def mish_gate(x: Array) -> Array:
    """``tanh(softplus(x))``, rational in exp(-|x|)."""
    decay = np.exp(-np.abs(x))
    right = (1.0 + 2.0 * decay) / (1.0 + 2.0 * decay * (1.0 + decay))
    left = decay * (decay + 2.0) / (decay * (decay + 2.0) + 2.0)
    return np.where(x >= 0, right, left)


def mish(x: Array) -> Array:
    """``x tanh(softplus(x))``."""
    return _times(x, mish_gate(x))


def silu(x: Array) -> Array:
    """``x sigmoid(x)``."""
    return _times(x, sigmoid(x))


def gelu(x: Array) -> Array:
    """``x normal_cdf(x)``, the exact GELU."""
    return _times(x, normal_cdf(x))


def gelu_tanh(x: Array) -> Array:
    """The GELU of GPT-2: ``x/2 (1 + tanh(z)) = x sigmoid(2 z)``, which does not cancel."""
    z = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    return _times(x, sigmoid(2 * z))


def _times(x: Array, gate: Array) -> Array:
    # A gate that has underflowed closes infinity too.
    return np.where(gate == 0, 0.0, x) * gate


def sinc(x: Array) -> Array:
    """``sin(x)/x``, 1 at 0."""
    return np.where(x == 0, 1.0, np.sin(x) / np.where(x == 0, 1.0, x))


def power(x: Array, exponent: float) -> Array:
    """``x**exponent``."""
    return np.power(x, exponent)
