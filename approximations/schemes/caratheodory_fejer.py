"""Caratheodory-Fejer polynomials: almost minimax by one eigenvalue problem, without an exchange.

The Chebyshev coefficients after degree d form a Hankel matrix.  Its largest eigenvalue is the
error of the best extension of the series to negative powers, and the eigenvector gives the
extension; what of it falls on the degrees up to d corrects the truncated series.  For smooth
functions the result has the minimax error to many digits: exp on [-1, 1], degree 5, to 5e-6.

Source: M. H. Gutknecht and L. N. Trefethen, Real polynomial Chebyshev approximation by the
Caratheodory-Fejer method, SIAM J. Numer. Anal. 19 (1982).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.polynomial import chebyshev as series
from numpy.typing import NDArray

from odp.approximations.fits.fit_problem import TypeFit
from odp.approximations.forms.polynomials import chebyshev_nodes, interpolate
from odp.approximations.schemes.rational_function import RationalProblem
from odp.approximations.schemes.scheme import Candidate, ComparisonScheme, Request

__all__ = ["CaratheodoryFejerScheme", "caratheodory_fejer"]

Array = NDArray[np.float64]

_LARGEST_DEGREE = 48
_TERMS = 256
_POINTS = 700
# More of the series changes the error of what decays so slowly by less than a percent.
_LARGEST_MATRIX = 128
# Rounding of the cosine transform.
_NOISE = 2.0**-46


class CaratheodoryFejerScheme(ComparisonScheme):
    """Near-minimax polynomials."""

    name = "caratheodory_fejer"
    summary = "near-minimax polynomial by an eigenvalue problem; for comparison"
    parameters: ClassVar[Mapping[str, str]] = {
        "degree": "degree of the polynomial",
        "form": "form of evaluation",
    }

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Degrees in ascending order."""
        problem = RationalProblem(request)
        coefficients = _series(problem)
        if not np.isfinite(coefficients).all():
            return
        share = request.error if request.mixed else 1.0
        for m in range(_LARGEST_DEGREE // (2 if problem.symmetric else 1) + 1):
            degree = problem.degree(m)
            if not request.wants(problem.polynomial_cost(m), degree=degree):
                continue
            fit = _fit(problem, coefficients, m)
            if fit is not None and request.accepts(fit.error * share):
                yield from problem.polynomials(fit, request, self.name)


def caratheodory_fejer(coefficients: Array, degree: int) -> tuple[Array, float]:
    """The Caratheodory-Fejer polynomial of a Chebyshev series.

    Args:
        coefficients: of T[0], T[1], ...; more than `degree` + 2 of them.
        degree: of the polynomial.

    Returns:
        Its Chebyshev coefficients, and the eigenvalue, which estimates its largest error.

    >>> t = np.cos((2 * np.arange(32) + 1) * np.pi / 64)
    >>> p, level = caratheodory_fejer(interpolate(np.exp(t)), 5)
    >>> round(level, 10)
    4.52055e-05
    """
    import scipy.linalg

    tail = coefficients[degree + 1 :][:_LARGEST_MATRIX]
    values, vectors = np.linalg.eigh(scipy.linalg.hankel(tail))
    largest = int(np.argmax(np.abs(values)))
    first, rest = vectors[0, largest], vectors[1:, largest]
    # The extension to T[-degree], ..., T[degree], from the top down.
    extended = list(tail[::-1])
    for _ in range(2 * degree + 1):
        extended.append(-float(np.dot(extended[: -len(rest) - 1 : -1], rest) / first))
    low = np.array(extended[::-1][: 2 * degree + 1])
    polynomial = np.array(coefficients[: degree + 1])
    polynomial[0] -= low[degree]
    polynomial[1:] -= low[degree + 1 :] + low[:degree][::-1]
    return polynomial, float(abs(values[largest]))


def _series(problem: RationalProblem) -> Array:
    """Chebyshev coefficients on the domain, or on [-a, a] with a symmetry, of what is fitted."""
    domain = problem.domain
    lo, hi = domain.lo, domain.hi
    if problem.symmetric:
        lo, hi = -domain.magnitude, domain.magnitude
    x = (lo + hi) / 2 + (hi - lo) / 2 * chebyshev_nodes(_TERMS)
    values = problem.function.numpy(x) - float(problem.shift) - float(problem.slope) * x
    coefficients = interpolate(values)
    if problem.symmetric:
        coefficients[(0 if problem.odd else 1) :: 2] = 0.0
    # Rounding at the end of the series would be most of a short tail.
    size = np.abs(coefficients)
    last = int(np.flatnonzero(size > _NOISE * size.max())[-1]) if size.any() else 0
    return coefficients[: last + 1]


def _fit(problem: RationalProblem, coefficients: Array, m: int) -> TypeFit | None:
    degree = problem.degree(m)
    padded = np.concatenate([coefficients, np.zeros(max(degree + 4 - len(coefficients), 0))])
    if len(coefficients) <= degree + 1:
        polynomial = padded[: degree + 1]
    else:
        polynomial, _ = caratheodory_fejer(padded, degree)
    if problem.symmetric:
        # The same polynomial in x^2, from its values: no change of basis.
        v = problem.variable
        x = np.sqrt(v.points(chebyshev_nodes(m + 1)))
        values = series.chebval(x / math.sqrt(v.hi), polynomial)
        polynomial = interpolate(np.asarray(values / x if problem.odd else values))
    system = problem.system(m, 0, math.inf, _POINTS)
    if system is None:
        return None
    error = float(np.abs(system.error(polynomial, np.ones(1))).max())
    return TypeFit(m, 0, math.inf, polynomial, np.ones(1), error)
