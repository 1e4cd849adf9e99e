"""First values for steps towards x^(-1/q), centred on the domain.

On [a, b] everything depends on the ratio b/a alone: with x = t sqrt(ab) a seed is made for t in
[1/r, r].  What counts is how far ``z = x^(1/q) y`` spreads, not where it lies: the steps take any
scale, so every seed here minimises the ratio of the smallest to the largest z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from odp.approximations.expression import Expression, variable
from odp.approximations.fits.remez import Problem, minimax
from odp.approximations.forms.polynomials import coefficient, horner
from odp.approximations.forms.preprocessed_forms import knuth_quartic

__all__ = ["SEEDS", "Seed", "SeedKind", "best_seed"]

Array = NDArray[np.float64]

SeedKind = Literal["constant", "linear", "quadratic", "quartic", "rational", "shifted"]

SEEDS: dict[SeedKind, tuple[int, int, int]] = {
    "constant": (0, 0, 0),
    "linear": (1, 1, 0),
    "quadratic": (2, 1, 0),
    "quartic": (3, 1, 0),
    "rational": (0, 0, 1),
    "shifted": (0, 0, 1),
}
"""Multiplications, those of them by a constant, and divisions of each seed, all in sequence."""

_POINTS = 400
# On a narrower domain a quotient with a shift has no error that float64 could level.
_NARROWEST = 1.05


@dataclass(frozen=True)
class Seed:
    """A seed for t in [1/r, r]: a polynomial in t, or ``shift + factor/(t + offset)``.

    Attributes:
        kind: its form.
        values: ascending coefficients, or (factor, offset, shift).
        rho: the smallest z over the largest.
        peak: the largest z.
    """

    kind: SeedKind
    values: tuple[float, ...]
    rho: float
    peak: float

    def expression(self, centre: float, scale: float) -> Expression:
        """The seed in ``x = t centre``, times `scale`.

        Raises:
            CoefficientRangeError: for a constant that is not finite.
        """
        x = variable("x")
        if self.kind in ("rational", "shifted"):
            factor, offset, shift = self.values
            quotient = coefficient(scale * factor * centre) / (x + coefficient(offset * centre))
            return quotient + coefficient(scale * shift)
        if self.kind == "quartic":
            # The leading coefficient goes into the variable: Knuth's form then is monic.
            root = (scale * self.values[4]) ** 0.25
            c = [scale * value / root**j for j, value in enumerate(self.values[:4])]
            return knuth_quartic([*c, 1.0], x * coefficient(root / centre))
        return horner([scale * c * centre**-j for j, c in enumerate(self.values)], x)


@lru_cache(maxsize=4096)
def best_seed(root: int, kind: SeedKind, ratio: float) -> Seed:
    """The seed of a kind for x^(-1/root) on a domain with this ratio of its bounds."""
    r = math.sqrt(max(ratio, _NARROWEST))
    t = np.geomspace(1 / r, r, _POINTS)
    if kind != "constant":
        # The straight parts of a seed vary with t, not with its logarithm.
        linear = (r + 1 / r) / 2 - (r - 1 / r) / 2 * np.cos(np.linspace(0.0, np.pi, _POINTS))
        t = np.unique(np.clip(np.concatenate([t, linear]), 1 / r, r))
    power = t ** (1 / root)
    if kind in ("rational", "shifted"):
        values = _quotient(root, kind, r, t, power)
    else:
        degree = {"constant": 0, "linear": 1, "quadratic": 2, "quartic": 4}[kind]
        values = _polynomial(degree, t, power)
    if kind in ("rational", "shifted"):
        z = power * (values[0] / (t + values[1]) + values[2])
    else:
        z = power * np.polynomial.polynomial.polyval(t, values)
    low, high = float(z.min()), float(z.max())
    return Seed(kind, values, max(low / high, 0.0), high)


def _polynomial(degree: int, t: Array, power: Array) -> tuple[float, ...]:
    """The polynomial p that brings t^(1/q) p(t) closest to 1."""
    middle, half = (t[0] + t[-1]) / 2, (t[-1] - t[0]) / 2
    basis = power[:, None] * np.polynomial.chebyshev.chebvander((t - middle) / half, degree)
    ones = np.ones((t.size, 1))
    fit = minimax(Problem(basis, ones, np.ones_like(t), np.ones_like(t)))
    if fit is None:
        return (1.0,)
    series = np.polynomial.Chebyshev(fit.p / fit.q[0], domain=[t[0], t[-1]])
    return tuple(float(c) for c in series.convert(kind=np.polynomial.Polynomial).coef)


def _quotient(root: int, kind: SeedKind, r: float, t: Array, power: Array) -> tuple[float, ...]:
    """(factor, offset, shift) of the best ``shift + factor/(t + offset)``; shift 0 if not asked."""
    if kind == "rational":
        # z is equal at both ends; for 1/x it is exact.
        low, high = r ** (-1 / root), r ** (1 / root)
        return (1.0, (low * r - high / r) / (high - low) if root > 1 else 0.0, 0.0)
    # In (t - 1)/(t + 1) both ends of a wide domain are as near as on a narrow one.
    basis = np.stack([np.ones_like(t), (t - 1) / (t + 1)], axis=1)
    problem = Problem(power[:, None] * basis, basis, np.ones_like(t), np.ones_like(t))
    fit = minimax(problem, start=(np.array([1.0, 0.0]), np.array([1.0, 0.0])))
    assert fit is not None  # The start has no pole.
    (p0, p1), (q0, q1) = fit.p, fit.q
    # (p0 + p1) t + p0 - p1 over (q0 + q1) t + q0 - q1.
    shift, offset = (p0 + p1) / (q0 + q1), (q0 - q1) / (q0 + q1)
    return float((p0 - p1) / (q0 + q1) - shift * offset), float(offset), float(shift)
