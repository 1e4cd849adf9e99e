"""The coefficients of a fit in powers of its variable, in float64."""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.polynomial import chebyshev as series
from numpy.typing import NDArray

from odp.approximations.fits.fit_problem import FitProblem, TypeFit
from odp.approximations.forms.polynomials import full_length

__all__ = ["monomials", "numerator_series"]

Array = NDArray[np.float64]


def numerator_series(problem: FitProblem, fit: TypeFit) -> Array:
    """The whole numerator as a Chebyshev series, what is fixed of it included."""
    if not problem.fixed or not fit.n:
        return fit.numerator
    origin, lowered = problem.origin(fit.scale, fit.n - fit.m)
    whole = series.chebmul(fit.numerator, [-origin, 1.0])
    value = float(problem.fixed[0]) * float(series.chebval(origin, fit.denominator)) / lowered
    return full_length(series.chebadd(whole, [value]), fit.m + 1)


def monomials(problem: FitProblem, fit: TypeFit) -> tuple[Array, Array]:
    """Ascending coefficients in u of numerator and denominator, as the fit scales them."""
    v = problem.variable
    if fit.exact is not None:
        # Of a degenerate type the last coefficient may be exactly zero.
        unit = next(c for c in reversed(fit.exact[1]) if c)
        exact_p, exact_q = (np.array([float(c / unit) for c in part]) for part in fit.exact)
        return exact_p, exact_q
    if not fit.n:
        return _polynomial_monomials(problem, fit), np.ones(1)
    numerator, denominator = numerator_series(problem, fit), fit.denominator
    if not math.isfinite(fit.scale):
        return v.monomials(numerator), v.monomials(denominator)
    lo, hi = problem.moebius_bounds(fit.scale)
    origin = min(v.lo, 0.0)
    p = _moebius_to_monomials(numerator, lo, hi, origin, fit.scale)
    q = _moebius_to_monomials(denominator, lo, hi, origin, fit.scale)
    return p * (2 * fit.scale) ** (fit.n - fit.m), q


def _polynomial_monomials(problem: FitProblem, fit: TypeFit) -> Array:
    p = fit.numerator / fit.denominator[0]
    if not problem.fixed:
        return problem.variable.monomials(p)
    whole = np.zeros(fit.m + 1)
    if problem.gaps:
        free = [k for k in range(fit.m + 1) if k not in problem.fixed]
        whole[free] = p / problem.variable_magnitude ** np.array(free, dtype=np.float64)
    else:
        whole[problem.leading_fixed :] = problem.variable.monomials(p)
    for power, value in problem.fixed.items():
        whole[power] = float(value)
    return whole


def _moebius_to_monomials(
    coefficients: Array, lo: float, hi: float, origin: float, scale: float
) -> Array:
    """(w + g)^n C((w - g)/(w + g)) as ascending coefficients in u = w + origin."""
    t_series = Chebyshev(coefficients, domain=[lo, hi]).convert(kind=Polynomial, domain=[-1, 1])
    in_t = full_length(t_series.coef, len(coefficients))
    n = len(in_t) - 1
    if n * math.log2(scale + abs(origin) + 1.0) > 1000:
        # Beyond float64, where numpy's polynomials cannot be added.
        return np.full(n + 1, np.nan)
    minus, plus = Polynomial([-scale - origin, 1.0]), Polynomial([scale - origin, 1.0])
    total = Polynomial([0.0])
    for power, coefficient in enumerate(in_t):
        total = total + coefficient * minus**power * plus ** (n - power)
    return full_length(total.coef, n + 1)
