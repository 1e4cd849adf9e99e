"""The linearised rational fit: least squares of ``P - f Q``, the start of the others.

Reweighted a few times by the denominator found before (H. L. Loeb's algorithm; C. Sanathanan and
J. Koerner, IEEE Trans. Automatic Control 8, 1963), so that the residual becomes the error.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from odp.approximations.fits.null_vector import null_vector
from odp.approximations.fits.remez import Problem

__all__ = ["linearised"]

Array = NDArray[np.float64]

_REWEIGHTINGS = 5
# Reweighting gains up to a factor of 3 or so after the second time.
_HOPELESS = 20.0


def linearised(system: Problem, wanted: float) -> tuple[Array, Array, float] | None:
    """Reweighted linear least squares for P - f Q.

    Args:
        system: what to fit.
        wanted: a weighted error to reach; where that is far away, fewer iterations are made.

    Returns:
        Coefficients of numerator and denominator and the largest weighted error; None where all
        denominators that were met change their sign.
    """
    columns = system.numerator.shape[1]
    matrix = np.hstack([system.numerator, -system.wanted])
    reweight = np.ones_like(system.target)
    best: tuple[Array, Array, float] | None = None
    for iteration in range(_REWEIGHTINGS):
        if iteration > 1 and best is not None and best[2] > _HOPELESS * wanted:
            break
        solution = null_vector(matrix * (system.weight * reweight)[:, None])
        if solution is None:
            return best
        p, q = solution[:columns], solution[columns:]
        divisor = system.denominator @ q
        largest = float(np.abs(divisor).max())
        if not math.isfinite(largest) or largest == 0.0:
            return best
        if not (divisor > 0).all() and not (divisor < 0).all():
            reweight = 1 / np.maximum(np.abs(divisor), 1e-4 * largest)
            continue
        error = float(np.abs(system.error(p, q)).max())
        if best is None or error < best[2]:
            best = (p, q, error)
        reweight = 1 / np.maximum(np.abs(divisor), 1e-13 * largest)
    return best
