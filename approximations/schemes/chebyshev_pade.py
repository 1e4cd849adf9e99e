"""Chebyshev-Pade: rational functions from the Chebyshev points, linearised.

Numerator and denominator are Chebyshev series whose linearised residual ``P - f Q`` is small at
the Chebyshev points (the least-squares form of H. J. Maehly's Chebyshev-Pade equations), reweighted
a few times by the denominator found before (H. L. Loeb), so that the residual becomes the error.

Two devices make it work on wide domains:

- symmetry: ``f(x) = c + x R(x^2)`` or ``R(x^2)``;
- a Moebius variable ``t = (u - g)/(u + g)``: a rational function of type (n, n) or (n-1, n) in t is
  one of the same type in u, but in t a narrow transition or many decades of u become a smooth
  function on [-1, 1].

At a branch point (asin at 1, acosh at 1) the poles gather so closely that rounding the coefficients
to float32 moves them across each other: about 5e-3 is the limit of this form there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.polynomial import chebyshev as series
from numpy.typing import NDArray

from odp.approximations.approximant import Parameters
from odp.approximations.expression import Expression, variable
from odp.approximations.function import Function
from odp.approximations.interval import Interval
from odp.approximations.polynomials import (
    CoefficientRangeError,
    Variable,
    chebyshev_nodes,
    clenshaw,
    float32_constant,
    full_length,
    horner,
)
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["ChebyshevPadeScheme"]

Array = NDArray[np.float64]

_LARGEST_TYPE = 11
_REWEIGHTINGS = 5
_NODES = 200
# Reweighting gains up to a factor of 3 or so after the second time.
_HOPELESS = 20.0
_WIDE_RATIO = 1e4
# Closer than float32 resolves is useless: rounding the coefficients moves the nearest poles.
_BRANCH_GAP = 1e-6


class ChebyshevPadeScheme(Scheme):
    """Rational functions with one division."""

    name = "chebyshev_pade"
    summary = "rational function from the Chebyshev points, one division"
    parameters: ClassVar[Mapping[str, str]] = {
        "numerator": "degree of the numerator (in x^2 for functions with a symmetry)",
        "denominator": "degree of the denominator (likewise)",
        "form": "raw, scaled (by a power of two), horner or clenshaw (mapped to [-1, 1])",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Every function that is finite on the domain."""
        return True

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Types (m, n) with m = n-1, n, n+1 by cost, in the plain and the Moebius variable."""
        problem = _Problem(request)
        for m, n in _types():
            if not request.wants(problem.cost(m, n), numerator=m, denominator=n):
                continue
            fits = [
                fit for scale in problem.scales if (fit := problem.fit(m, n, scale)) is not None
            ]
            for fit in sorted(fits, key=lambda fit: fit.error):
                if not request.accepts(fit.error):
                    continue
                yield from problem.expressions(fit, request)


def _types() -> list[tuple[int, int]]:
    pairs = [(n + d, n) for n in range(1, _LARGEST_TYPE + 1) for d in (-1, 0, 1)]
    return sorted(pairs, key=lambda pair: (sum(pair), -pair[0]))


@dataclass(frozen=True)
class _Fit:
    """Chebyshev coefficients in the variable of `scale`, and the error at the nodes."""

    m: int
    n: int
    scale: float
    numerator: Array
    denominator: Array
    error: float


class _Problem:
    """The function in the variable u that the rational function is made in."""

    def __init__(self, request: Request) -> None:
        function, domain = request.function, request.domain
        self.error = request.error
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
        """Default cost of the raw form: a monic denominator saves one multiplication."""
        return m + (n - 1) + 3 + (self.odd or self.even) + self.odd

    def fit(self, m: int, n: int, scale: float) -> _Fit | None:
        """The rational function of type (m, n) in u, or None if it has a pole on the domain."""
        v = self.variable
        moebius = math.isfinite(scale)
        if moebius and m > n:
            return None
        s = chebyshev_nodes(_NODES)
        origin = min(v.lo, 0.0)
        if moebius:
            lo, hi = self._moebius_bounds(scale)
            t = (lo + hi) / 2 + (hi - lo) / 2 * s
            u = np.clip(origin + scale * (1 + t) / (1 - t), v.lo, v.hi)
            if v.lo > 0 and v.hi / v.lo > _WIDE_RATIO:
                # The points in t come no closer to its ends than 1e-5: log x on twelve decades
                # was fitted to 0.6 at the points and missed by more between them.
                decades = math.sqrt(v.lo * v.hi) * (v.hi / v.lo) ** (s / 2)
                u = np.concatenate([u, np.clip(decades, v.lo, v.hi)])
                t = (u - scale) / (u + scale)
                s = (2 * t - lo - hi) / (hi - lo)
        else:
            if self.branch_hi or self.branch_lo:
                # Poles gather exponentially at a branch point, closer than Chebyshev points do.
                gap = np.geomspace(_BRANCH_GAP, 1.0, _NODES)
                ends = [(self.branch_hi, 1 - gap), (self.branch_lo, gap - 1)]
                s = np.concatenate([s, *(end for wanted, end in ends if wanted)])
            t, u = s, v.points(s)
        x = np.sqrt(u) if self.odd or self.even else u
        whole = self.function.numpy(x)
        target: Array = (whole - float(self.shift)) / x if self.odd else whole
        weight: Array = np.asarray(x, dtype=np.float64).copy() if self.odd else np.ones_like(x)
        if self.relative:
            with np.errstate(divide="ignore"):
                weight /= np.abs(whole)
        if not (np.isfinite(target).all() and np.isfinite(weight).all()):
            return None
        # (1 - t) = 2 g / (u + g) lowers the degree of the numerator in u.
        factor = (1 - t) ** (n - m) if moebius else 1.0
        numerator_basis = series.chebvander(s, m) * (np.ones_like(t) * factor)[:, None]
        denominator_basis: Array = np.asarray(series.chebvander(s, n), dtype=np.float64)
        solved = _solve(numerator_basis, denominator_basis, target, weight, self.error)
        if solved is None:
            return None
        p, q, error = solved
        return _Fit(m, n, scale, p, q, error)

    def _monomials(self, fit: _Fit) -> tuple[Array, Array]:
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

    def expressions(self, fit: _Fit, request: Request) -> Iterator[Candidate]:
        """The forms of evaluation of one rational function."""
        base = self.cost(fit.m, fit.n)
        v = self.variable
        decades = v.lo > 0 and v.hi / v.lo > _WIDE_RATIO
        for form, extra in (("raw", 0), ("scaled", 1), ("horner", 2), ("clenshaw", 2)):
            if not request.wants(base + extra, form=form):
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
                f"chebyshev_pade ({fit.m},{fit.n}){symmetry} of {self.function.name}, {form}",
            )

    def _assemble(self, fit: _Fit, form: str) -> Expression:
        v = self.variable
        numerator, denominator = self._monomials(fit)
        x = variable("x")
        if form == "raw":
            p, q = (horner(c.tolist(), v.base) for c in (numerator, denominator))
        elif form == "scaled":
            # Powers of a large variable overflow float32; those of x * 2^-j do not.
            exponent = math.frexp(max(abs(self.domain.lo), abs(self.domain.hi)))[1]
            x = x * float32_constant(2.0**-exponent)
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
        return quotient + float32_constant(self.shift)


def _moebius_to_monomials(
    coefficients: Array, lo: float, hi: float, origin: float, scale: float
) -> Array:
    """(w + g)^n C((w - g)/(w + g)) as ascending coefficients in u = w + origin."""
    t_series = Chebyshev(coefficients, domain=[lo, hi]).convert(kind=Polynomial, domain=[-1, 1])
    in_t = full_length(t_series.coef, len(coefficients))
    n = len(in_t) - 1
    minus, plus = Polynomial([-scale - origin, 1.0]), Polynomial([scale - origin, 1.0])
    total = Polynomial([0.0])
    for power, coefficient in enumerate(in_t):
        total = total + coefficient * minus**power * plus ** (n - power)
    return full_length(total.coef, n + 1)


def _solve(
    numerator_basis: Array, denominator_basis: Array, target: Array, weight: Array, wanted: float
) -> tuple[Array, Array, float] | None:
    """Reweighted linear least squares for P - f Q; None where the denominator changes sign."""
    columns = numerator_basis.shape[1]
    matrix = np.hstack([numerator_basis, -target[:, None] * denominator_basis])
    reweight = np.ones_like(target)
    best: tuple[Array, Array, float] | None = None
    for iteration in range(_REWEIGHTINGS):
        if iteration > 1 and best is not None and best[2] > _HOPELESS * wanted:
            break
        system = matrix * (weight * reweight)[:, None]
        # Columns of very different size (a function over many decades) would spoil the SVD.
        norms = np.linalg.norm(system, axis=0)
        norms[norms == 0] = 1.0
        try:
            solution = np.linalg.svd(system / norms, full_matrices=False)[2][-1] / norms
        except np.linalg.LinAlgError:
            return best
        p, q = solution[:columns], solution[columns:]
        divisor = denominator_basis @ q
        largest = float(np.abs(divisor).max())
        if not math.isfinite(largest) or largest == 0.0:
            return best
        if not (divisor > 0).all() and not (divisor < 0).all():
            reweight = 1 / np.maximum(np.abs(divisor), 1e-4 * largest)
            continue
        error = float((np.abs(numerator_basis @ p / divisor - target) * weight).max())
        if best is None or error < best[2]:
            best = (p, q, error)
        reweight = 1 / np.maximum(np.abs(divisor), 1e-13 * largest)
    return best
