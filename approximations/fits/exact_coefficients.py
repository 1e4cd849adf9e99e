"""The coefficients of a fit as exact fractions: no rounding on the way to powers of x."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from odp.approximations.fits.fit_coefficients import monomials, numerator_series
from odp.approximations.fits.fit_problem import FitProblem, TypeFit

__all__ = ["chebyshev_series", "exact_coefficients"]

Coefficients = list[Fraction]


def exact_coefficients(
    problem: FitProblem, fit: TypeFit
) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    """Numerator and denominator of a fit, the constant and linear term of a symmetry included.

    Args:
        problem: what was fitted.
        fit: the fit.

    Returns:
        Ascending coefficients of powers of x.  The first coefficient of the denominator that is
        not zero is 1.
    """
    p, q = _in_u(problem, fit)
    if problem.symmetric:
        p, q = _in_squares(p), _in_squares(q)
    if problem.odd:
        p = [Fraction(0), *p]
    for power, value in ((0, problem.shift), (1, problem.slope)):
        if value:
            p = _sum(p, [Fraction(0)] * power + [value * c for c in q])
    unit = next(c for c in q if c)
    return tuple(c / unit for c in p), tuple(c / unit for c in q)


def chebyshev_series(coefficients: Sequence[Fraction], lo: Fraction, hi: Fraction) -> list[float]:
    """Powers of u as a Chebyshev series in ``(2 u - lo - hi)/(hi - lo)``, rounded once."""
    half, middle = (hi - lo) / 2, (hi + lo) / 2
    result: Coefficients = [Fraction(0)]
    for coefficient in reversed(coefficients):
        # t T_k = (T_(k+1) + T_|k-1|)/2.
        product = [Fraction(0)] * (len(result) + 1)
        for k, c in enumerate(result):
            product[k] += middle * c
            product[k + 1] += half * c / 2
            product[abs(k - 1)] += half * c / 2
        result = _sum(product, [coefficient])
    return [float(c) for c in result[: len(coefficients)]]


def _in_u(problem: FitProblem, fit: TypeFit) -> tuple[Coefficients, Coefficients]:
    if fit.exact is not None:
        return list(fit.exact[0]), list(fit.exact[1])
    v = problem.variable
    lo, hi = Fraction(v.lo), Fraction(v.hi)
    if not fit.n:
        unit = Fraction(fit.denominator[0])
        if problem.gaps:
            return [Fraction(c) for c in monomials(problem, fit)[0].tolist()], [Fraction(1)]
        free = _affine([c / unit for c in _fractions(fit.numerator.tolist())], lo, hi)
        return [problem.fixed[k] for k in range(problem.leading_fixed)] + free, [Fraction(1)]
    numerator = _fractions(numerator_series(problem, fit).tolist())
    denominator = _fractions(fit.denominator.tolist())
    if math.isfinite(fit.scale):
        ends = [Fraction(bound) for bound in problem.moebius_bounds(fit.scale)]
        origin, scale = Fraction(min(v.lo, 0.0)), Fraction(fit.scale)
        p = _moebius(_affine(numerator, *ends), origin, scale)
        p = [c * (2 * scale) ** (fit.n - fit.m) for c in p]
        q = _moebius(_affine(denominator, *ends), origin, scale)
    else:
        p, q = _affine(numerator, lo, hi), _affine(denominator, lo, hi)
    if problem.fixed:
        p[0] = problem.fixed[0] * q[0]
    return p, q


def _fractions(values: Sequence[float]) -> Coefficients:
    return [Fraction(value) for value in values]


def _affine(series: Coefficients, lo: Fraction, hi: Fraction) -> Coefficients:
    """A Chebyshev series in ``(2 u - lo - hi)/(hi - lo)`` in powers of u, by Clenshaw's rule."""
    slope, shift = 2 / (hi - lo), -(lo + hi) / (hi - lo)
    current: Coefficients = [Fraction(0)]
    later: Coefficients = [Fraction(0)]
    for coefficient in reversed(series[1:]):
        doubled = [2 * c for c in _product(current, [shift, slope])]
        step = _sum(_sum(doubled, [-c for c in later]), [coefficient])
        current, later = step, current
    last = _sum(_product(current, [shift, slope]), [-c for c in later])
    whole = _sum(last, [series[0]])
    return (whole + [Fraction(0)] * len(series))[: len(series)]


def _moebius(in_t: Coefficients, origin: Fraction, scale: Fraction) -> Coefficients:
    """``(w + g)^n C((w - g)/(w + g))`` in powers of ``u = w + origin``."""
    n = len(in_t) - 1
    minus, plus = [-scale - origin, Fraction(1)], [scale - origin, Fraction(1)]
    result: Coefficients = [in_t[-1]]
    power: Coefficients = [Fraction(1)]
    for coefficient in reversed(in_t[:-1]):
        power = _product(power, plus)
        result = _sum(_product(result, minus), [coefficient * c for c in power])
    return (result + [Fraction(0)] * (n + 1))[: n + 1]


def _in_squares(coefficients: Coefficients) -> Coefficients:
    spread = [Fraction(0)] * (2 * len(coefficients) - 1)
    spread[::2] = coefficients
    return spread


def _product(a: Coefficients, b: Coefficients) -> Coefficients:
    result = [Fraction(0)] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            result[i + j] += x * y
    return result


def _sum(a: Coefficients, b: Coefficients) -> Coefficients:
    size = max(len(a), len(b))
    padded = [c + [Fraction(0)] * (size - len(c)) for c in (a, b)]
    return [x + y for x, y in zip(*padded, strict=True)]
