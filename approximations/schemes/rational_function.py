"""Rational functions with one division: the problem of fitting one, and its forms of evaluation.

Two devices make fits work on wide domains:

- symmetry: ``f(x) = c + x R(x^2)`` or ``R(x^2)``;
- a Moebius variable ``t = (u - g)/(u + g)``: a rational function of type (m, n), m <= n, in t is
  one of the same type in u, but in t a narrow transition or many decades of u become a smooth
  function on [-1, 1].

At a branch point (asin at 1, acosh at 1) the poles gather so closely that rounding the coefficients
to float32 moves them across each other: about 5e-3 is the limit of this form there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.polynomial import chebyshev as series
from numpy.typing import NDArray

from odp.approximations.approximant import Parameters
from odp.approximations.expression import Expression, variable
from odp.approximations.interval import Interval
from odp.approximations.polynomials import (
    CoefficientRangeError,
    Variable,
    chebyshev_nodes,
    clenshaw,
    coefficient,
    full_length,
    horner,
)
from odp.approximations.remez import Problem
from odp.approximations.schemes.scheme import Candidate, Request

__all__ = ["RationalFit", "RationalProblem"]

Array = NDArray[np.float64]

_WIDE_RATIO = 1e4
# From here on Chebyshev points alone resolve the small end too coarsely.
_DECADES_RATIO = 30.0
# Closer than float32 resolves is useless: rounding the coefficients moves the nearest poles.
_BRANCH_GAP = 1e-6


@dataclass(frozen=True)
class RationalFit:
    """Chebyshev coefficients in the variable of `scale`, and the error at the nodes."""

    m: int
    n: int
    scale: float
    numerator: Array
    denominator: Array
    error: float


class RationalProblem:
    """The function in the variable u that the rational function is made in."""

    def __init__(self, request: Request) -> None:
        function, domain = request.function, request.domain
        self.error = request.error
        self.request = request
        self.function, self.domain, self.relative = function, domain, request.relative
        centre = function.centre
        symmetric = domain.contains(0.0) and not function.singularities
        if function.singularities and function.parity and domain.contains(0.0):
            symmetric = 0.0 not in function.singularities
        x = variable("x")
        self.odd = symmetric and centre is not None
        self.even = symmetric and function.parity == "even"
        self.shift = centre if self.odd and centre is not None else Fraction(0)
        # A relative error of c + odd part is not the relative error of the odd part.
        if self.odd or self.even:
            self.variable = Variable(x * x, 0.0, domain.magnitude**2)
        else:
            self.variable = Variable(x, domain.lo, domain.hi)
        self.scales = self._scales(domain)
        natural = function.domain
        folded = self.odd or self.even
        self._sampled: dict[tuple[float, int], tuple[Array, Array, Array, Array, Array]] = {}
        self.branch_hi = (domain.magnitude if folded else domain.hi) == natural.hi
        self.branch_lo = not folded and domain.lo == natural.lo

    def _scales(self, domain: Interval) -> list[float]:
        """Moebius scales g to try; infinity is the plain affine variable."""
        v = self.variable
        if v.lo > 0:
            return [math.inf, math.sqrt(v.lo * v.hi)] if v.hi / v.lo > 4 else [math.inf]
        # Where half of the variation has happened, seen from the lower end of u.
        u = v.lo + (v.hi - v.lo) * np.geomspace(1e-8, 1.0, 400)
        values = self._original(u)
        change = np.abs(values - values[0])
        half = u[int(np.argmax(change >= 0.5 * change.max()))] - v.lo
        if half * 8 >= v.hi - v.lo:
            return [math.inf]
        # Between the transition and the whole range: either end alone was measured to lose up to
        # 100 times (erf on [-200, 200], type (7,8): g = 4 8e-2, 200 7e-5, 1000 6e-5).
        return [math.inf, 2 * math.sqrt(float(half) * (v.hi - v.lo))]

    def _original(self, u: Array) -> Array:
        return self.function.numpy(np.sqrt(u) if self.odd or self.even else u)

    def cost(self, m: int, n: int) -> float:
        """Cost of the raw form: a monic denominator saves one multiplication."""
        request = self.request
        parts = request.polynomial_cost(m) + request.polynomial_cost(n, monic=True)
        return parts + request.cost(self.symmetric + self.odd, divisions=1)

    @property
    def symmetric(self) -> bool:
        """Whether the fit is in x^2."""
        return self.odd or self.even

    def degree(self, m: int) -> int:
        """Degree in x of a polynomial of degree m in u."""
        return 2 * m + self.odd if self.symmetric else m

    def polynomial_cost(self, m: int) -> float:
        """Cost of the raw form of a polynomial of degree m in u."""
        request = self.request
        return request.polynomial_cost(m) + request.cost(self.symmetric * (m > 0) + self.odd)

    def system(self, m: int, n: int, scale: float, count: int) -> Problem | None:
        """Bases, values and weights of type (m, n) at `count` points or more, ascending in u.

        None where the Moebius variable has no such type, or where the function is not finite.
        """
        moebius = math.isfinite(scale)
        if moebius and m > n:
            return None
        sampled = self._sampled.get((scale, count))
        if sampled is None:
            sampled = self._sampled[scale, count] = self._sample(scale, count)
        s, t, target, weight, basis = sampled
        if not (np.isfinite(target).all() and np.isfinite(weight).all()):
            return None
        if basis.shape[1] <= max(m, n):
            basis = np.asarray(series.chebvander(s, 2 * max(m, n, 4)), dtype=np.float64)
            self._sampled[scale, count] = s, t, target, weight, basis
        # (1 - t) = 2 g / (u + g) lowers the degree of the numerator in u.
        numerator: Array = basis[:, : m + 1]
        if moebius and n > m:
            numerator = np.asarray(numerator * ((1 - t) ** (n - m))[:, None], dtype=np.float64)
        return Problem(numerator, basis[:, : n + 1], target, weight)

    def _sample(self, scale: float, count: int) -> tuple[Array, Array, Array, Array, Array]:
        """Points normalised to [-1, 1], the variable t there, targets, weights, and no basis."""
        v = self.variable
        # With the ends: half of a decade-wide function's error may lie beyond the outermost node.
        s: Array = np.concatenate([[-1.0], -chebyshev_nodes(count), [1.0]])
        origin = min(v.lo, 0.0)
        if math.isfinite(scale):
            lo, hi = self._moebius_bounds(scale)
            t = (lo + hi) / 2 + (hi - lo) / 2 * s
            u = np.clip(origin + scale * (1 + t) / (1 - t), v.lo, v.hi)
            if v.lo > 0 and v.hi / v.lo > _WIDE_RATIO:
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
        x = np.sqrt(u) if self.symmetric else u
        whole = self.function.numpy(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            target: Array = (whole - float(self.shift)) / x if self.odd else whole
        weight: Array = np.asarray(x, dtype=np.float64).copy() if self.odd else np.ones_like(x)
        if self.relative:
            with np.errstate(divide="ignore", invalid="ignore"):
                weight /= np.abs(whole)
        defined = np.isfinite(target) & np.isfinite(weight)
        # Only an end may be a removable singularity: odd functions are divided by x.
        defined[1:-1] = True
        s, t, target, weight = (values[defined] for values in (s, t, target, weight))
        return s, t, target, weight, np.empty((s.size, 0))

    def _monomials(self, fit: RationalFit) -> tuple[Array, Array]:
        """Ascending coefficients in u, the denominator's last being 1."""
        v = self.variable
        if math.isfinite(fit.scale):
            lo, hi = self._moebius_bounds(fit.scale)
            origin = min(v.lo, 0.0)
            numerator = _moebius_to_monomials(fit.numerator, lo, hi, origin, fit.scale)
            numerator *= (2 * fit.scale) ** (fit.n - fit.m)
            denominator = _moebius_to_monomials(fit.denominator, lo, hi, origin, fit.scale)
        else:
            numerator, denominator = v.monomials(fit.numerator), v.monomials(fit.denominator)
        if denominator[-1] == 0 or not np.isfinite([*numerator, *denominator]).all():
            raise CoefficientRangeError("the denominator has a lower degree than its type")
        return numerator / denominator[-1], denominator / denominator[-1]

    def _moebius_bounds(self, scale: float) -> tuple[float, float]:
        """The range of (w - g)/(w + g), w being u from the lower end of its range or from 0."""
        origin = min(self.variable.lo, 0.0)
        lo, hi = (
            (w - origin - scale) / (w - origin + scale)
            for w in (self.variable.lo, self.variable.hi)
        )
        return lo, hi

    def expressions(self, fit: RationalFit, request: Request, scheme: str) -> Iterator[Candidate]:
        """The forms of evaluation of one rational function."""
        base = self.cost(fit.m, fit.n)
        v = self.variable
        decades = v.lo > 0 and v.hi / v.lo > _WIDE_RATIO
        for form, extra in (("raw", 0), ("scaled", 1), ("horner", 2), ("clenshaw", 2)):
            if not request.wants(base + request.cost(extra, extra), form=form):
                continue
            if decades and form in ("horner", "clenshaw"):
                # Over many decades an affine variable has no digits left for the small end.
                continue
            try:
                expression = self._assemble(fit, form)
            except CoefficientRangeError:
                continue
            symmetry = " in x^2" if self.odd or self.even else ""
            yield Candidate(
                expression,
                Parameters(numerator=fit.m, denominator=fit.n, form=form),
                f"{scheme} ({fit.m},{fit.n}){symmetry} of {self.function.name}, {form}",
            )

    def _assemble(self, fit: RationalFit, form: str) -> Expression:
        v = self.variable
        numerator, denominator = self._monomials(fit)
        x = variable("x")
        if form == "raw":
            p, q = (horner(c.tolist(), v.base) for c in (numerator, denominator))
        elif form == "scaled":
            # Powers of a large variable overflow float32; those of x * 2^-j do not.
            exponent = math.frexp(max(abs(self.domain.lo), abs(self.domain.hi)))[1]
            x = x * coefficient(2.0**-exponent)
            square = self.odd or self.even
            step = 4.0**exponent if square else 2.0**exponent
            parts = [c * step ** np.arange(len(c)) for c in (numerator, denominator)]
            if self.odd:
                parts[0] = parts[0] * 2.0**exponent
            p, q = (horner((c / parts[1][-1]).tolist(), x * x if square else x) for c in parts)
        else:
            t, bounds = v.normalised()
            slope = (v.hi - v.lo) / (bounds[1] - bounds[0])
            inverse = Polynomial([v.lo - slope * bounds[0], slope])
            parts = [
                full_length(Polynomial(c)(inverse).coef, len(c)) for c in (numerator, denominator)
            ]
            if form == "clenshaw":
                parts = [
                    full_length(Polynomial(c).convert(kind=Chebyshev).coef, len(c)) for c in parts
                ]
            build = horner if form == "horner" else clenshaw
            parts = [c / parts[1][-1] for c in parts]
            p, q = (build(c.tolist(), t) for c in parts)
        quotient = (x * p if self.odd else p) / q
        return quotient + coefficient(self.shift)


def _moebius_to_monomials(
    coefficients: Array, lo: float, hi: float, origin: float, scale: float
) -> Array:
    """(w + g)^n C((w - g)/(w + g)) as ascending coefficients in u = w + origin."""
    t_series = Chebyshev(coefficients, domain=[lo, hi]).convert(kind=Polynomial, domain=[-1, 1])
    in_t = full_length(t_series.coef, len(coefficients))
    n = len(in_t) - 1
    minus, plus = Polynomial([-scale - origin, 1.0]), Polynomial([scale - origin, 1.0])
    total = Polynomial([0.0])
    for power, factor in enumerate(in_t):
        total = total + factor * minus**power * plus ** (n - power)
    return full_length(total.coef, n + 1)
