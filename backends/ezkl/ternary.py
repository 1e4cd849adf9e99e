"""Ternary weights, as BitNet has them: -1, 0 and 1 in integers, which cost no bits, and a scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ternary"]


def ternary(weights: NDArray[np.float64] | None) -> tuple[NDArray[np.float64], float] | None:
    """Signs and the scale s of weights that are all -s, 0 or s; None for others.

    >>> ternary(np.array([0.5, 0.0, -0.5]))
    (array([ 1.,  0., -1.]), 0.5)
    """
    if weights is None:
        return None
    sizes = np.abs(weights)
    scale = float(sizes.max(initial=0.0))
    if scale in (0.0, 1.0) or not ((sizes == 0.0) | (sizes == scale)).all():
        return None
    return np.sign(weights), scale
