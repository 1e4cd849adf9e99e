"""What a fit is made in: points, bases, values and weights of a function on a domain.

Three devices make fits work on wide domains and save operations:

- symmetry: ``f(x) = c + s x + x R(x^2)`` or ``c + s x + R(x^2)``;
- a Moebius variable ``t = (u - g)/(u + g)``: a rational function of type (m, n), m <= n, in t is
  one of the same type in u, but in t a narrow transition or many decades of u become a smooth
  function on [-1, 1];
- fixed coefficients leave the basis, so that what remains is an ordinary fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.polynomial import chebyshev as series
from numpy.typing import NDArray

from odp.approximations.errors import ApproximationError
from odp.approximations.expression import variable
from odp.approximations.fits.remez import Problem
from odp.approximations.forms.polynomials import Variable, chebyshev_nodes
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval

__all__ = ["FitProblem", "Parity", "TypeFit", "Weigh"]

Array = NDArray[np.float64]
Parity = Literal["auto", "none", "odd", "even"]
Weigh = Callable[[Array, Array], Array]

WIDE_RATIO = 1e4
"""From here on an affine variable has no digits left for the small end."""

# From here on Chebyshev points alone resolve the small end too coarsely.
_DECADES_RATIO = 30.0
# Closer than float32 resolves is useless: rounding the coefficients moves the nearest poles.
_BRANCH_GAP = 1e-6


@dataclass(frozen=True)
class TypeFit:
    """A fit of type (m, n) in the variable of a problem.

    Attributes:
        m: degree of the numerator in u.
        n: degree of the denominator in u; 0 for a polynomial.
        scale: g of the Moebius variable; infinite for the affine one.
        numerator: coefficients in the basis of the problem.
        denominator: likewise.
        error: largest weighted error at the points.
        bound: no fit of this type has a smaller one; 0 if nothing is known.
        exact: ascending coefficients in u of numerator and denominator, where they are known to
            more digits than the basis has.
    """

    m: int
    n: int
    scale: float
    numerator: Array
    denominator: Array
    error: float
    bound: float = 0.0
    exact: tuple[tuple[Fraction, ...], tuple[Fraction, ...]] | None = None


class FitProblem:
    """A function on a domain in the variable u that it is fitted in: x, or x^2 with a symmetry.

    Args:
        function: what to fit.
        domain: where.
        weigh: weight of the error at x, where the function has the given values.
        parity: ``auto`` uses the symmetry that the function has where the domain contains 0;
            ``none`` uses no symmetry; ``odd`` and ``even`` demand one.
        fixed: coefficients of powers of x that are given; of a rational function only that of
            ``x^0``, which is then its value at 0.

    Raises:
        ApproximationError: if the function does not have the parity that is demanded, or a fixed
            coefficient contradicts its symmetry.
    """

    def __init__(
        self,
        function: Function,
        domain: Interval,
        weigh: Weigh,
        *,
        parity: Parity = "auto",
        fixed: Mapping[int, Fraction] | None = None,
    ) -> None:
        self.function, self.domain, self.weigh = function, domain, weigh
        self.odd, self.even = self._symmetry(parity)
        inside = domain.lo < 0 < domain.hi
        centre, slope = function.centre, function.slope
        self.shift = centre if self.odd and inside and centre is not None else Fraction(0)
        self.slope = slope if self.even and inside and slope is not None else Fraction(0)
        x = variable("x")
        # x is this sign times the square root of u.
        self.sign = -1.0 if domain.hi <= 0 else 1.0
        self.symmetric = self.odd or self.even
        if self.symmetric:
            ends = sorted((abs(domain.lo), abs(domain.hi)))
            low = 0.0 if domain.contains(0.0) else ends[0] ** 2
            self.variable = Variable(x * x, low, ends[1] ** 2)
        else:
            self.variable = Variable(x, domain.lo, domain.hi)
        self.fixed = self._in_u(fixed or {})
        self.scales = self._scales(domain)
        natural = function.domain
        self.branch_hi = (domain.magnitude if self.symmetric else domain.hi) == natural.hi
        self.branch_lo = not self.symmetric and domain.lo == natural.lo
        self._sampled: dict[tuple[float, int], tuple[Array, Array, Array, Array, Array, Array]] = {}

    def _symmetry(self, parity: Parity) -> tuple[bool, bool]:
        """Whether the fit is ``c + x R(x^2)``, whether it is ``s x + R(x^2)``."""
        function, domain = self.function, self.domain
        odd = function.centre is not None
        even = function.parity == "even" or function.slope is not None
        if parity == "none":
            return False, False
        if parity == "auto":
            # A pole at 0 cannot be within the domain; other singularities come in pairs.
            paired = not function.singularities or function.parity is not None
            symmetric = domain.contains(0.0) and paired and 0.0 not in function.singularities
            return symmetric and odd, symmetric and even and not odd
        if domain.lo < 0 < domain.hi and not (odd if parity == "odd" else even):
            raise ApproximationError(
                f"{function.name} on {domain}: the function is not {parity}, even up to a constant"
                " or linear term; leave the parity out or choose a domain on one side of 0"
            )
        return parity == "odd", parity == "even"

    def _in_u(self, fixed: Mapping[int, Fraction]) -> dict[int, Fraction]:
        """Fixed coefficients of powers of x as those of powers of u."""
        where = f"{self.function.name} on {self.domain}"
        result: dict[int, Fraction] = {}
        for power, value in fixed.items():
            if not isinstance(power, int) or power < 0:
                raise ApproximationError(f"{where}: a power of x is 0, 1, 2, ..., not {power!r}")
            if not self.symmetric:
                result[power] = value
            elif power % 2 == self.odd:
                result[power // 2] = value
            elif value != (self.shift if power == 0 else self.slope if power == 1 else 0):
                raise ApproximationError(
                    f"{where}: the fit uses the function's symmetry, in which the coefficient of"
                    f" x^{power} is not free; pass parity='none' to fix it"
                )
        return result

    def _scales(self, domain: Interval) -> list[float]:
        """Moebius scales g to try; infinity is the plain affine variable."""
        v = self.variable
        if v.lo > 0:
            return [math.inf, math.sqrt(v.lo * v.hi)] if v.hi / v.lo > 4 else [math.inf]
        # Where half of the variation has happened, seen from the lower end of u.
        u = v.lo + (v.hi - v.lo) * np.geomspace(1e-8, 1.0, 400)
        values = self.function.numpy(self._x(u)) - float(self.slope) * self._x(u)
        change = np.abs(values - values[0])
        half = u[int(np.argmax(change >= 0.5 * change.max()))] - v.lo
        if half * 8 >= v.hi - v.lo:
            return [math.inf]
        # Between the transition and the whole range: either end alone was measured to lose up to
        # 100 times (erf on [-200, 200], type (7,8): g = 4 8e-2, 200 7e-5, 1000 6e-5).
        return [math.inf, 2 * math.sqrt(float(half) * (v.hi - v.lo))]

    def _x(self, u: Array) -> Array:
        return self.sign * np.sqrt(u) if self.symmetric else u

    def degree(self, m: int) -> int:
        """Degree in x of a polynomial of degree m in u."""
        return 2 * m + self.odd if self.symmetric else m

    @property
    def leading_fixed(self) -> int:
        """How many coefficients from that of u^0 on are fixed without a gap."""
        return next(k for k in range(len(self.fixed) + 1) if k not in self.fixed)

    @property
    def gaps(self) -> bool:
        """Whether fixed coefficients follow a free one."""
        return len(self.fixed) > self.leading_fixed

    @property
    def alternates(self) -> bool:
        """Whether the best fits are those whose error alternates, which Remez's exchange needs.

        Powers of u with gaps are a Chebyshev system only on one side of 0.
        """
        return not (self.gaps and self.variable.lo < 0 < self.variable.hi)

    @property
    def forced_error(self) -> float:
        """The weighted error at 0 that a fixed value there leaves; 0 if there is none."""
        if 0 not in self.fixed or self.odd or not self.domain.contains(0.0):
            return 0.0
        zero = np.zeros(1)
        exact = self.function.numpy(zero)
        error = np.abs(float(self.fixed[0]) - exact) * self.weigh(zero, exact)
        return float(error[0])

    def system(self, m: int, n: int, scale: float, count: int) -> Problem | None:
        """Bases, values and weights of type (m, n) at `count` points or more, ascending in u.

        None where the Moebius variable has no such type, where the function is not finite, or
        where everything is fixed.
        """
        moebius = math.isfinite(scale)
        if moebius and (m > n or n == 0):
            return None
        sampled = self._sampled.get((scale, count))
        if sampled is None:
            sampled = self._sampled[scale, count] = self._sample(scale, count)
        s, t, u, target, weight, basis = sampled
        if not (np.isfinite(target).all() and np.isfinite(weight).all()):
            return None
        if basis.shape[1] <= max(m, n):
            basis = np.asarray(series.chebvander(s, 2 * max(m, n, 4)), dtype=np.float64)
            self._sampled[scale, count] = s, t, u, target, weight, basis
        # (1 - t) = 2 g / (u + g) lowers the degree of the numerator in u.
        lowered = (1 - t) ** (n - m) if moebius and n > m else np.ones_like(t)
        if self.fixed and n:
            return self._fixed_value(m, n, scale, s, lowered, target, weight, basis)
        if self.fixed:
            return self._fixed_coefficients(m, u, target, weight, basis)
        numerator = np.asarray(basis[:, : m + 1] * lowered[:, None], dtype=np.float64)
        return Problem(numerator, basis[:, : n + 1], target, weight)

    def _sample(self, scale: float, count: int) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Points normalised to [-1, 1], the variables t and u, targets, weights, and no basis."""
        v = self.variable
        # With the ends: half of a decade-wide function's error may lie beyond the outermost node.
        s: Array = np.concatenate([[-1.0], -chebyshev_nodes(count), [1.0]])
        origin = min(v.lo, 0.0)
        if math.isfinite(scale):
            lo, hi = self.moebius_bounds(scale)
            t = (lo + hi) / 2 + (hi - lo) / 2 * s
            u = np.clip(origin + scale * (1 + t) / (1 - t), v.lo, v.hi)
            if v.lo > 0 and v.hi / v.lo > WIDE_RATIO:
                # The points in t come no closer to its ends than 1e-5: log x on twelve decades
                # was fitted to 0.6 at the points and missed by more between them.
                decades = math.sqrt(v.lo * v.hi) * (v.hi / v.lo) ** (s / 2)
                u = np.sort(np.concatenate([u, np.clip(decades, v.lo, v.hi)]))
                t = (u - scale) / (u + scale)
                s = (2 * t - lo - hi) / (hi - lo)
        else:
            if self.branch_hi or self.branch_lo:
                # Poles gather exponentially at a branch point, closer than Chebyshev points do.
                gap = np.geomspace(_BRANCH_GAP, 1.0, count)
                ends = [(self.branch_hi, 1 - gap), (self.branch_lo, gap - 1)]
                s = np.unique(np.concatenate([s, *(end for wanted, end in ends if wanted)]))
            if v.lo > 0 and v.hi / v.lo > _DECADES_RATIO:
                decades = np.geomspace(v.lo, v.hi, count)[1:-1]
                inner = (2 * decades - v.lo - v.hi) / (v.hi - v.lo)
                s = np.unique(np.concatenate([s, inner]))
            t, u = s, v.points(s)
        x = self._x(u)
        whole = self.function.numpy(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            target: Array = whole - float(self.shift) - float(self.slope) * x
            weight = self._weight(x, whole)
            if self.odd:
                target, weight = target / x, weight * np.abs(x)
        defined = np.isfinite(target) & np.isfinite(weight)
        # Only an end may be a removable singularity: odd functions are divided by x.
        defined[1:-1] = True
        s, t, u, target, weight = (values[defined] for values in (s, t, u, target, weight))
        return s, t, u, target, weight, np.empty((s.size, 0))

    def _weight(self, x: Array, values: Array) -> Array:
        """The weight at x; with a symmetry the larger one of x and -x, whose errors are alike."""
        weight = np.asarray(self.weigh(x, values), dtype=np.float64)
        if not self.symmetric:
            return weight
        mirrored = np.asarray(self.weigh(-x, self.function.numpy(-x)), dtype=np.float64)
        lo, hi = self.domain.lo, self.domain.hi
        # Rounding in the square root must not push an end out of the domain.
        slack = 1e-12 * self.domain.magnitude
        here, there = ((lo - slack <= y) & (y <= hi + slack) for y in (x, -x))
        return np.where(here & there, np.fmax(weight, mirrored), np.where(here, weight, mirrored))

    def _fixed_coefficients(
        self, m: int, u: Array, target: Array, weight: Array, basis: Array
    ) -> Problem | None:
        """A polynomial some of whose coefficients are given: the others fit what is left."""
        known = sum((float(c) * u**k for k, c in self.fixed.items()), np.zeros_like(u))
        first = self.leading_fixed
        free = [k for k in range(first, m + 1) if k not in self.fixed]
        if not free or max(self.fixed) > m:
            return None
        keep = u != 0
        u, left = u[keep], (target - known)[keep]
        if not self.gaps:
            # Divided by u^first, what is left is an ordinary polynomial with a weight.
            power = u**first
            numerator, left = basis[keep, : m + 1 - first], left / power
            weight = weight[keep] * np.abs(power)
        else:
            size = self.variable_magnitude
            numerator = np.stack([(u / size) ** k for k in free], axis=1)
            weight = weight[keep]
        return Problem(numerator, np.ones((u.size, 1)), left, weight)

    def _fixed_value(
        self,
        m: int,
        n: int,
        scale: float,
        s: Array,
        lowered: Array,
        target: Array,
        weight: Array,
        basis: Array,
    ) -> Problem | None:
        """A rational function with a given value at u = 0: ``P = value Q(0) + (u - 0) ...``."""
        if set(self.fixed) != {0}:
            raise ApproximationError(
                f"{self.function.name} on {self.domain}: of a rational function only the value at 0"
                " can be fixed, as fixed={0: value}"
            )
        if m == 0:
            return None
        origin, lowered_there = self.origin(scale, n - m)
        there = series.chebvander(np.array([origin]), n)
        numerator = (lowered * (s - origin))[:, None] * basis[:, :m]
        offset = float(self.fixed[0]) * (lowered / lowered_there)[:, None] * there
        # The error changes its sign with s - origin; only where that is 0 is it not free.
        weight = weight * np.where(s < origin, -1.0, 1.0)
        return Problem(numerator, basis[:, : n + 1], target, weight, np.asarray(offset))

    def origin(self, scale: float, power: int) -> tuple[float, float]:
        """U = 0 as a normalised point, and ``(1 - t)^power`` there."""
        v = self.variable
        if not math.isfinite(scale):
            return -(v.lo + v.hi) / (v.hi - v.lo), 1.0
        lo, hi = self.moebius_bounds(scale)
        w = -min(v.lo, 0.0)
        t = (w - scale) / (w + scale)
        return (2 * t - lo - hi) / (hi - lo), (1 - t) ** power if power > 0 else 1.0

    def points(self, fit: TypeFit, count: int) -> Array:
        """The points x of `system` for a fit."""
        if (fit.scale, count) not in self._sampled:
            self._sampled[fit.scale, count] = self._sample(fit.scale, count)
        u = self._sampled[fit.scale, count][2]
        return self._x(u[u != 0] if self.fixed and not fit.n else u)

    @property
    def variable_magnitude(self) -> float:
        """Largest |u|."""
        return max(abs(self.variable.lo), abs(self.variable.hi))

    def moebius_bounds(self, scale: float) -> tuple[float, float]:
        """The range of (w - g)/(w + g), w being u from the lower end of its range or from 0."""
        origin = min(self.variable.lo, 0.0)
        lo, hi = (
            (w - origin - scale) / (w - origin + scale)
            for w in (self.variable.lo, self.variable.hi)
        )
        return lo, hi
