"""Steps towards x^(-1/q) without a division, with the best constants for what is still missing.

In terms of ``z = x^(1/q) y``, which is 1 where y is right, and ``w = x y^q = z^q`` a step is
``z <- z P(w)`` with a polynomial P.  From the defining equation, ``y = y0 (1 - r)^(-1/q)`` with
``r = 1 - x y0^q``: cut after r^m this is a step of order m + 1, Newton's for m = 1.  It is best at
z = 1.  For z anywhere in [rho, 1] the best P is the one that brings z P(w) closest to 1 throughout,
a linear minimax problem; since a step maps an interval to an interval, and a scale common to all z
can be absorbed by the step before, taking the best step each time is the best composition (N.
Amsel, D. Persson, C. Musco, R. Gower, The Polar Express, arXiv 2505.16932, theorem 3.1; E. Lee, J.
Lee, J. No, Y. Kim, Minimax approximation of sign function by composite polynomial, 2020).

Scaling y before each step makes P's leading coefficient 1, so a step takes m = 1, 2 or 4 additive
constants and 0, 1 or 2 multiplications beside those for w and for y P: m = 3 would cost as much as
m = 4, whose quartic has Knuth's form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from odp.approximations.expression import Expression
from odp.approximations.polynomials import CoefficientRangeError, coefficient
from odp.approximations.preprocessed_forms import knuth_quartic
from odp.approximations.remez import Problem, minimax

__all__ = [
    "ORDERS",
    "Step",
    "apply_polynomial",
    "best_step",
    "best_steps",
    "error_after",
    "inverse_root_series",
    "normalised",
    "plain_steps",
    "polynomial_products",
]

Array = NDArray[np.float64]

ORDERS = (2, 3, 5)
"""Orders of convergence of the steps; the degree of P is one less."""

_POINTS = 300
# An error below this is rounding: the series' own constants are as good.
_NEGLIGIBLE = 2.0**-46
_TABLE_POINTS = 40


@cache
def inverse_root_series(root: int, degree: int) -> tuple[Fraction, ...]:
    """Coefficients in w of the step of order `degree` + 1 for x^(-1/root), derived by sympy.

    >>> inverse_root_series(2, 1)
    (Fraction(3, 2), Fraction(-1, 2))
    """
    import sympy

    r, w = sympy.symbols("r w")
    # y^(-root) = x solved for y: y0 (x y0^root)^(-1/root), with x y0^root = 1 - r.
    exact = (1 - r) ** sympy.Rational(-1, root)
    series = sympy.series(exact, r, 0, degree + 1).removeO()
    polynomial = sympy.Poly(sympy.expand(series.subs(r, 1 - w)), w)
    coefficients = [Fraction(int(c.p), int(c.q)) for c in reversed(polynomial.all_coeffs())]
    return tuple(coefficients)


@dataclass(frozen=True)
class Step:
    """A step ``z <- z P(z^root)`` on an interval of z that ends at 1.

    Attributes:
        coefficients: of P, ascending.
        error: largest |z P - 1| on the interval.
    """

    coefficients: tuple[float, ...]
    error: float


@lru_cache(maxsize=4096)
def best_step(root: int, order: int, rho: float) -> Step:
    """The step of an order that brings z in [rho, 1] closest to 1.

    Args:
        root: q of x^(-1/q).
        order: one of `ORDERS`.
        rho: lower end of the interval, between 0 and 1.
    """
    degree = order - 1
    low = rho**root
    t = -np.cos(np.linspace(0.0, np.pi, _POINTS))
    # Dense near the lower end in proportion: there z varies by orders of magnitude.
    w = np.unique(
        np.concatenate([(1 + low) / 2 + (1 - low) / 2 * t, np.geomspace(low, 1, _POINTS)])
    )
    w[0], w[-1] = low, 1.0
    z = w ** (1 / root)
    position = (2 * w - 1 - low) / (1 - low)
    # What the series leaves, about the middle of the interval, is small: less is lost in rounding.
    middle = ((1 + rho) / 2) ** root
    series = [float(c) * middle ** -(j + 1 / root) for j, c in enumerate(_floats(root, degree))]
    missing = 1 - z * np.polynomial.polynomial.polyval(w, series)
    left = float(np.abs(missing).max())
    if left < _NEGLIGIBLE:
        return Step(tuple(series), left)
    basis = z[:, None] * np.polynomial.chebyshev.chebvander(position, degree)
    fit = minimax(Problem(basis, np.ones((w.size, 1)), missing, np.ones_like(w)))
    if fit is None or fit.error >= left:
        return Step(tuple(series), left)
    correction = Chebyshev(fit.p / fit.q[0], domain=[low, 1.0]).convert(kind=Polynomial).coef
    padded = np.concatenate([correction, np.zeros(degree + 1 - len(correction))])
    return Step(tuple(float(c) for c in np.asarray(series) + padded), fit.error)


@cache
def _floats(root: int, degree: int) -> tuple[float, ...]:
    return tuple(float(c) for c in inverse_root_series(root, degree))


@cache
def _table(root: int, order: int) -> tuple[Array, Array]:
    """Logarithms of log(1/rho) before and after the best step."""
    # From where the error is still well above float64's rounding.
    before = np.geomspace(2 * 1e-11 ** (1 / order), 45.0, _TABLE_POINTS)
    errors = np.array([best_step(root, order, math.exp(-d)).error for d in before])
    after = np.log1p(errors) - np.log1p(-np.minimum(errors, 1 - 1e-16))
    return np.log(before), np.log(np.maximum(after, 1e-300))


def error_after(root: int, order: int, rho: float) -> float:
    """The error of the best step, to 1 %, without fitting it: for choosing a sequence of steps."""
    if rho >= 1.0:
        return 0.0
    before, after = _table(root, order)
    spread = math.log(-math.log(rho))
    if spread < before[0]:
        # There the error is a power of the spread.
        slope = (after[1] - after[0]) / (before[1] - before[0])
        later = float(after[0] + slope * (spread - before[0]))
    else:
        later = float(np.interp(spread, before, after))
    return math.tanh(math.exp(later) / 2)


def best_steps(
    root: int, orders: tuple[int, ...], rho: float, margin: float
) -> tuple[float, list[tuple[float, ...]], float]:
    """Polynomials of a sequence of best steps, for z that starts in [rho, 1] times a scale.

    Args:
        root: q of x^(-1/q).
        orders: order of every step.
        rho: lower end of the interval of z at the start, in units of its upper end.
        margin: how far above its interval rounding may carry z, as a share.

    Returns:
        The upper end of z that the seed must have, the coefficients of every step's P(w),
        ascending, and the final largest |z - 1|.
    """
    polynomials: list[tuple[float, ...]] = []
    upper, error = 1.0, (1 - rho) / (1 + rho)
    if not orders:
        return 2 / (1 + rho), [], error
    for order in orders:
        rho = rho / (1 + margin)
        step = best_step(root, order, rho)
        # The step is made for z up to 1; what reaches it is up to `upper`, and a little more.
        unit = upper * (1 + margin) if polynomials else 1.0
        polynomials.append(
            tuple(c * unit ** -(j * root + 1) for j, c in enumerate(step.coefficients))
        )
        upper, error = 1 + step.error, step.error
        rho = (1 - error) / (1 + error)
    return 1 / (1 + margin), polynomials, error


def plain_steps(
    root: int, orders: tuple[int, ...], rho: float
) -> tuple[float, list[tuple[float, ...]], float]:
    """The same with the series' own constants, which are best at z = 1, in every step."""
    low, high = 2 * rho / (1 + rho), 2 / (1 + rho)
    if orders:
        # A seed above this limit would change the sign of a step of order 2.
        series = _floats(root, orders[0] - 1)
        limit = 0.999 * (-series[0] / series[1]) ** (1 / root) if orders[0] == 2 else high
        low, high = low * min(1.0, limit / high), min(high, limit)
    upper = high
    polynomials: list[tuple[float, ...]] = []
    for order in orders:
        series = _floats(root, order - 1)
        polynomials.append(series)
        # z P(w) changes its direction at z = 1 alone.
        z = np.array([low, high, *([1.0] if low <= 1 <= high else [])])
        mapped = z * np.polynomial.polynomial.polyval(z**root, series)
        low, high = float(mapped.min()), float(mapped.max())
        if low <= 0:
            return upper, polynomials, math.inf
    return upper, polynomials, max(abs(1 - low), abs(1 - high))


def normalised(
    root: int, polynomials: list[tuple[float, ...]]
) -> tuple[float, list[tuple[float, ...]]]:
    """The same steps on a scaled y, so that the leading coefficients are 1 or -1.

    Returns:
        What y is multiplied by at the start, and the coefficients; at the end y is itself again.
    """
    scale = 1.0
    scaled: list[tuple[float, ...]] = []
    for c in reversed(polynomials):
        degree = len(c) - 1
        # y = s v, and the y of the next step is `scale` v': v' = v sum c_j s^(jq + 1) w^j / scale.
        s = (scale / abs(c[-1])) ** (1 / (1 + degree * root))
        scaled.append(tuple(c[j] * s ** (j * root + 1) / scale for j in range(degree + 1)))
        scale = s
    return 1 / scale, scaled[::-1]


def polynomial_products(order: int) -> int:
    """Multiplications of P(w) in a step of this order."""
    return {2: 0, 3: 1, 5: 2}[order]


def apply_polynomial(coefficients: tuple[float, ...], w: Expression) -> Expression:
    """A polynomial of degree 1, 2 or 4 in w with leading coefficient 1, or -1 for degree 1.

    Raises:
        CoefficientRangeError: for a constant that is not finite.
    """
    c = (*coefficients[:-1], float(round(coefficients[-1])))
    if not all(map(math.isfinite, c)):
        raise CoefficientRangeError("a step has a constant that is not finite")
    if len(c) == 2:
        return coefficient(c[0]) - w
    if len(c) == 3:
        return (w + coefficient(c[1])) * w + coefficient(c[0])
    return knuth_quartic(c, w)
