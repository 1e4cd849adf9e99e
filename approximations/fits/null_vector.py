"""The null vector of a linearised fit: coefficients of P and Q that make ``P - f Q`` smallest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["null_vector"]

Array = NDArray[np.float64]


def null_vector(matrix: Array) -> Array | None:
    """Coefficients of the columns whose combination is smallest, every column in units of its size.

    Columns of very different size (a function over many decades) would spoil the decomposition.

    Args:
        matrix: shape (points, columns).

    Returns:
        One coefficient for each column, not all zero; None where the matrix is not finite.

    >>> p, q = null_vector(np.array([[1.0, 2.0], [2.0, 4.0]]))
    >>> bool(abs(p + 2 * q) < 1e-15 < abs(p))
    True
    """
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(matrix, axis=0)
    norms[norms == 0] = 1.0
    try:
        # The triangular factor has the same right singular vectors and few rows.
        triangle = np.linalg.qr(matrix / norms, mode="r")
        return np.asarray(np.linalg.svd(triangle)[2][-1] / norms, dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
