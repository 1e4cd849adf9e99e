"""Steps towards x^(-1/q) with the best constants for what is still missing.

In terms of ``z = x^(1/q) y``, which is 1 where y is right, and ``w = x y^q = z^q`` a step is
``z <- z R(w)``.  From the defining equation, ``y = y0 (1 - r)^(-1/q)`` with ``r = 1 - x y0^q``: cut
after r^m this is a step of order m + 1 without a division, Newton's for m = 1; the (1,1) Pade
approximant is Halley's.  They are best at z = 1.  For z anywhere in [rho, 1] the best R is the one
that brings z R(w) closest to 1 throughout, a linear or rational minimax problem; since a step maps
an interval to an interval, and a scale common to all z can be absorbed by the step before, taking
the best step each time is the best composition (N. Amsel, D. Persson, C. Musco, R. Gower, The Polar
Express, arXiv 2505.16932, theorem 3.1; E. Lee, J. Lee, J. No, Y. Kim, Minimax approximation of sign
function by composite polynomial, 2020).

Scaling y before each step makes the leading coefficient of a polynomial R, or the 1 of Halley's
``1 + c/(w + g)``, equal to 1: no step multiplies by a constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from odp.approximations.arithmetic import CoefficientRangeError
from odp.approximations.expression import Expression
from odp.approximations.fits.remez import Problem, minimax
from odp.approximations.forms.polynomials import coefficient
from odp.approximations.forms.preprocessed_forms import knuth_quartic
from odp.approximations.schemes.root_seeds import best_seed

__all__ = [
    "STEPS",
    "Step",
    "StepCost",
    "StepKind",
    "best_step",
    "best_steps",
    "error_after",
    "inverse_root_series",
    "normalised",
    "plain_steps",
]

Array = NDArray[np.float64]

StepKind = Literal["newton", "third", "fifth", "halley"]


@dataclass(frozen=True)
class StepCost:
    """What R(w) takes: its order of convergence, and operations besides those for w and y R."""

    order: int
    multiplications: int
    divisions: int
    additions: int


STEPS: dict[StepKind, StepCost] = {
    "newton": StepCost(2, 0, 0, 1),
    "third": StepCost(3, 1, 0, 2),
    # A quartic in Knuth's form; a cubic would take as many multiplications.
    "fifth": StepCost(5, 2, 0, 5),
    "halley": StepCost(3, 0, 1, 2),
}
"""The kinds of step; operations follow each other, so that depth is their sum."""

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
    """A step ``y <- y R(w)``.

    Attributes:
        kind: which one.
        values: ascending coefficients of a polynomial R, or (factor, offset, shift) of
            ``shift + factor/(w + offset)``.
        error: largest |z R - 1| on the interval [rho, 1] that it was made for.
    """

    kind: StepKind
    values: tuple[float, ...]
    error: float

    def apply(self, z: Array, root: int) -> Array:
        """Z after the step."""
        w = z**root
        if self.kind == "halley":
            factor, offset, shift = self.values
            return np.asarray(z * (shift + factor / (w + offset)))
        return np.asarray(z * np.polynomial.polynomial.polyval(w, np.array(self.values)))

    def scaled(self, root: int, before: float, after: float) -> Step:
        """The same step between ``y before`` and ``y after``: ``after z' = before z R(..)``."""
        gain = after / before
        if self.kind == "halley":
            factor, offset, shift = self.values
            power = before**root
            return Step(
                self.kind, (gain * factor * power, offset * power, gain * shift), self.error
            )
        values = (c * gain * before ** -(j * root) for j, c in enumerate(self.values))
        return Step(self.kind, tuple(values), self.error)

    def factor(self, w: Expression) -> Expression:
        """R(w) of a step from `normalised`.

        Raises:
            CoefficientRangeError: for a constant that is not finite.
        """
        c = [*self.values[:-1], float(round(self.values[-1]))]
        if not all(map(math.isfinite, c)):
            raise CoefficientRangeError("a step has a constant that is not finite")
        if self.kind == "halley":
            return coefficient(c[0]) / (w + coefficient(c[1])) + 1
        if self.kind == "newton":
            return coefficient(c[0]) - w
        if self.kind == "third":
            return (w + coefficient(c[1])) * w + coefficient(c[0])
        return knuth_quartic(c, w)


@lru_cache(maxsize=4096)
def best_step(root: int, kind: StepKind, rho: float) -> Step:
    """The step of a kind that brings z in [rho, 1] closest to 1, for x^(-1/root).

    Raises:
        ArithmeticError: if the interval reaches zero, as over more decades than float64 has digits.
    """
    if not rho**root > 0:
        raise ArithmeticError(f"no step brings [{rho:g}, 1] closer to 1")
    if kind != "halley":
        return _best_polynomial(root, kind, rho)
    # z (s + c/(w + g)) with z = w^(1/root): the seed with a shift, for w in place of x.
    low = rho**root
    seed = best_seed(root, "shifted", 1 / low)
    factor, offset, shift = seed.values
    level, centre = 2 / (seed.peak * (1 + seed.rho)), math.sqrt(low)
    gain = level * centre ** (-1 / root)
    values = (gain * factor * centre, offset * centre, gain * shift)
    return Step(kind, values, (1 - seed.rho) / (1 + seed.rho))


def _best_polynomial(root: int, kind: StepKind, rho: float) -> Step:
    degree = STEPS[kind].order - 1
    low = rho**root
    t = -np.cos(np.linspace(0.0, np.pi, _POINTS))
    # Dense near the lower end in proportion: there z varies by orders of magnitude.
    w = np.concatenate([(1 + low) / 2 + (1 - low) / 2 * t, np.geomspace(low, 1, _POINTS)])
    w = np.unique(np.clip(w, low, 1.0))
    z = w ** (1 / root)
    # What the series leaves, about the middle of the interval, is small: less is lost in rounding.
    middle = ((1 + rho) / 2) ** root
    series = [c * middle ** -(j + 1 / root) for j, c in enumerate(_floats(root, degree))]
    missing = 1 - z * np.polynomial.polynomial.polyval(w, series)
    left = float(np.abs(missing).max())
    if left < _NEGLIGIBLE:
        return Step(kind, tuple(series), left)
    position = (2 * w - 1 - low) / (1 - low)
    basis = z[:, None] * np.polynomial.chebyshev.chebvander(position, degree)
    fit = minimax(Problem(basis, np.ones((w.size, 1)), missing, np.ones_like(w)))
    if fit is None or fit.error >= left:
        return Step(kind, tuple(series), left)
    correction = Chebyshev(fit.p / fit.q[0], domain=[low, 1.0]).convert(kind=Polynomial).coef
    padded = np.concatenate([correction, np.zeros(degree + 1 - len(correction))])
    return Step(kind, tuple((np.asarray(series) + padded).tolist()), fit.error)


@cache
def _floats(root: int, degree: int) -> tuple[float, ...]:
    return tuple(float(c) for c in inverse_root_series(root, degree))


@cache
def _table(root: int, kind: StepKind) -> tuple[Array, Array]:
    """Logarithms of log(1/rho) before and after the best step."""
    # From where the error is still well above float64's rounding.
    before = np.geomspace(2 * 1e-11 ** (1 / STEPS[kind].order), 45.0 / root, _TABLE_POINTS)
    errors = np.array([best_step(root, kind, math.exp(-d)).error for d in before])
    after = np.log1p(errors) - np.log1p(-np.minimum(errors, 1 - 1e-16))
    return np.log(before), np.log(np.maximum(after, 1e-300))


def error_after(root: int, kind: StepKind, rho: float) -> float:
    """The error of the best step, to 3 %, without fitting it: for choosing a sequence of steps."""
    if rho >= 1.0:
        return 0.0
    if rho <= 0.0:
        return 1.0
    before, after = _table(root, kind)
    spread = math.log(-math.log(rho))
    if spread < before[0]:
        # There the error is a power of the spread.
        slope = (after[1] - after[0]) / (before[1] - before[0])
        later = float(after[0] + slope * (spread - before[0]))
    else:
        later = float(np.interp(spread, before, after))
    return math.tanh(math.exp(later) / 2)


def best_steps(
    root: int, kinds: tuple[StepKind, ...], rho: float, margin: float
) -> tuple[float, list[Step], float]:
    """A sequence of best steps, for z that starts in [rho, 1] times a scale.

    Args:
        root: q of x^(-1/q).
        kinds: kind of every step.
        rho: lower end of the interval of z at the start, in units of its upper end.
        margin: how far above its interval rounding may carry z, as a share.

    Returns:
        The upper end of z that the seed must have, the steps, and the final largest |z - 1|.
    """
    if not kinds:
        return 2 / (1 + rho), [], (1 - rho) / (1 + rho)
    steps: list[Step] = []
    upper, error = 1.0, 1.0
    for kind in kinds:
        rho = rho / (1 + margin)
        step = best_step(root, kind, rho)
        # The step is made for z up to 1; what reaches it is up to `upper`, and a little more.
        unit = upper * (1 + margin) if steps else 1.0
        steps.append(step.scaled(root, unit, 1.0))
        upper, error = 1 + step.error, step.error
        rho = (1 - error) / (1 + error)
    return 1 / (1 + margin), steps, error


def plain_steps(root: int, count: int, rho: float) -> tuple[float, list[Step], float]:
    """The same with Newton's own constants, which are best at z = 1, in every step."""
    series = _floats(root, 1)
    low, high = 2 * rho / (1 + rho), 2 / (1 + rho)
    if count:
        # A seed above this limit would change the sign of the step.
        limit = 0.999 * (-series[0] / series[1]) ** (1 / root)
        low, high = low * min(1.0, limit / high), min(high, limit)
    upper, step = high, Step("newton", series, math.nan)
    for _ in range(count):
        # z R(w) changes its direction at z = 1 alone.
        mapped = step.apply(np.array([low, high, *([1.0] if low <= 1 <= high else [])]), root)
        low, high = float(mapped.min()), float(mapped.max())
        if low <= 0:
            return upper, [step] * count, math.inf
    return upper, [step] * count, max(abs(1 - low), abs(1 - high))


def normalised(root: int, steps: list[Step]) -> tuple[float, list[Step]]:
    """The same steps on a scaled y, so that leading coefficients and shifts are 1 or -1.

    Returns:
        What y is multiplied by at the start, and the steps; at the end y is itself again.
    """
    after = 1.0
    found: list[Step] = []
    for step in reversed(steps):
        last, degree = abs(step.values[-1]), len(step.values) - 1
        power = 1 if step.kind == "halley" else 1 + degree * root
        # With y b for y before the step the last value becomes last (after/b) b^(-degree root).
        before = (after * last) ** (1 / power)
        found.append(step.scaled(root, before, after))
        after = before
    return after, found[::-1]
