"""Fits as expressions: what a polynomial or rational function of a type costs, and its forms.

At a branch point (asin at 1, acosh at 1) the poles gather so closely that rounding the coefficients
to float32 moves them across each other: about 5e-3 is the limit of this form there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import CoefficientRangeError
from odp.approximations.expression import Expression, variable
from odp.approximations.fits.exact_coefficients import chebyshev_series
from odp.approximations.fits.fit_coefficients import monomials
from odp.approximations.fits.fit_problem import WIDE_RATIO, FitProblem, Parity, TypeFit
from odp.approximations.forms.evaluation_forms import by_cost, cheapest_forms, chebyshev_forms
from odp.approximations.forms.polynomials import clenshaw, coefficient, full_length, horner
from odp.approximations.forms.preprocessed_forms import preprocessed_forms
from odp.approximations.schemes.scheme import Candidate, Request, in_form
from odp.approximations.target import Target

__all__ = ["RationalProblem"]

Array = NDArray[np.float64]
Form = tuple[str, Expression]

# The cheapest, and one more that may round less.
_FORMS = 2
# Above, the constants cancel: Eve's form loses hundreds of roundings at degree 8 already.
_PREPROCESSED = range(3, 9)


class RationalProblem(FitProblem):
    """The function of a request in the variable u that it is fitted in, with costs and forms.

    Args:
        request: what is asked for.
        parity: see `FitProblem`.
        fixed: see `FitProblem`.
        weigh: weight of the error; None for that of the request.
    """

    def __init__(
        self,
        request: Request,
        *,
        parity: Parity = "auto",
        fixed: Mapping[int, Fraction] | None = None,
        weigh: Callable[[Array, Array], Array] | None = None,
    ) -> None:
        super().__init__(
            request.function,
            request.domain,
            weigh or request.weigh,
            parity=parity,
            fixed=fixed,
        )
        self.request = request

    def cost(self, m: int, n: int) -> float:
        """What the cheapest form of type (m, n) costs on the target; infinite if it cannot divide.

        Of a type with m >= n the polynomial part is divided out, which saves a multiplication.
        """
        return _cheapest(m, n, self.odd, self.symmetric, bool(self.slope), self.request.target)

    def least_cost(self, m: int, n: int) -> float:
        """A lower bound of `cost` that takes no time.

        No form of a quotient multiplies less often than Horner's, and some do so by constants;
        polynomials with preprocessed coefficients save up to half of the multiplications.
        """
        request, target = self.request, self.request.target
        products = m + n - 1 - (n <= m) if n else _least_products(m)
        cheaper = min(target.multiplication, target.constant_multiplication)
        return cheaper * products + request.cost(divisions=n > 0)

    def polynomial_cost(self, m: int) -> float:
        """What the cheapest form of a polynomial of degree m in u costs."""
        return self.cost(m, 0)

    def polynomials(self, fit: TypeFit, request: Request, scheme: str) -> Iterator[Candidate]:
        """The forms of evaluation of one polynomial, in u and in u mapped to [-1, 1]."""
        degree = self.degree(fit.m)
        base = self.polynomial_cost(fit.m)
        for basis in ("raw", "horner", "clenshaw"):
            extra = basis != "raw"
            if not request.wants(base + request.cost(extra, extra)):
                continue
            if basis != "raw" and self.gaps:
                # A coefficient within the polynomial stays as it is only in powers of u.
                continue
            for form, expression in self._polynomial(fit, basis):
                if request.wants(request.target.cost(expression.counts), form=form):
                    yield Candidate(
                        expression,
                        Parameters(degree=degree, form=form),
                        f"{scheme} degree {degree} of {self.function.name}{in_form(form)}",
                    )

    def _polynomial(self, fit: TypeFit, basis: str) -> Iterator[Form]:
        v, target = self.variable, self.request.target
        try:
            if basis == "raw":
                coefficients = monomials(self, fit)[0].tolist()
                if self.slope and fit.m == 1:
                    # A parabola: the linear term is on Horner's way.
                    parabola = [coefficients[0], float(self.slope), coefficients[1]]
                    yield "raw", horner(parabola, variable("x"))
                    return
                forms = _and_horner(coefficients, v.base, target)
                if not self.fixed:
                    forms += _preprocessed(coefficients, v.base, max(abs(v.lo), abs(v.hi)))
                yield from _named(basis, forms, self._whole)
                return
            t, bounds = v.normalised()
            series = Chebyshev(self._chebyshev(fit), domain=bounds)
            if basis == "horner":
                in_t = full_length(series.convert(kind=Polynomial).coef, len(series.coef))
                forms = _and_horner(in_t.tolist(), t, target)
                if not self.fixed:
                    forms += _preprocessed(in_t.tolist(), t, 1.0)
            else:
                series = series.convert(kind=Chebyshev, domain=[-1, 1])
                in_t = full_length(series.coef, len(series.coef))
                forms = by_cost(chebyshev_forms(in_t.tolist(), t), target)[:_FORMS]
            yield from _named(basis, forms, lambda inner: self._whole(self._with_fixed(inner)))
        except CoefficientRangeError:
            return

    def _chebyshev(self, fit: TypeFit) -> Array:
        """The polynomial as a Chebyshev series; without the fixed coefficients."""
        if fit.exact is None:
            return np.asarray(fit.numerator / fit.denominator[0], dtype=np.float64)
        unit = fit.exact[1][0]
        lo, hi = Fraction(self.variable.lo), Fraction(self.variable.hi)
        return np.array(chebyshev_series([c / unit for c in fit.exact[0]], lo, hi))

    def _with_fixed(self, inner: Expression) -> Expression:
        for power in reversed(range(self.leading_fixed)):
            inner = inner * self.variable.base + coefficient(self.fixed[power])
        return inner

    def _whole(self, quotient: Expression) -> Expression:
        """What a fit stands for: with the factor x, the linear term and the constant."""
        return _whole(quotient, self.odd, self.slope) + coefficient(self.shift)

    def rationals(self, fit: TypeFit, request: Request, scheme: str) -> Iterator[Candidate]:
        """The forms of evaluation of one rational function, in several variables."""
        base = self.cost(fit.m, fit.n)
        v = self.variable
        decades = v.lo > 0 and v.hi / v.lo > WIDE_RATIO
        symmetry = " in x^2" if self.symmetric else ""
        what = f"{scheme} ({fit.m},{fit.n}){symmetry} of {self.function.name}"
        for basis, extra in (("raw", 0), ("scaled", 1), ("horner", 1), ("clenshaw", 1)):
            if not request.wants(base + request.cost(extra, extra)):
                continue
            if basis in ("horner", "clenshaw") and (decades or self.fixed):
                # Over many decades an affine variable has no digits left for the small end; and
                # away from 0 no coefficient is the value there.
                continue
            for form, expression in self._rational(fit, basis):
                if request.wants(request.target.cost(expression.counts), form=form):
                    yield Candidate(
                        expression,
                        Parameters(numerator=fit.m, denominator=fit.n, form=form),
                        what + in_form(form),
                    )

    def _rational(self, fit: TypeFit, basis: str) -> Iterator[Form]:
        try:
            numerator, denominator = self._normalised(fit)
            if basis == "clenshaw":
                yield basis, self._whole(self._clenshaw(numerator, denominator))
                return
            p, q, u = self._in_basis(numerator, denominator, basis)
            if self.fixed:
                quotient = horner(p.tolist(), u) / horner(q.tolist(), u)
                yield basis, self._whole(quotient)
                return
            forms = _and_horner(p.tolist(), u, self.request.target, q.tolist())
            yield from _named(basis, forms, self._whole)
        except CoefficientRangeError:
            return

    def _in_basis(
        self, numerator: Array, denominator: Array, basis: str
    ) -> tuple[Array, Array, Expression]:
        """The coefficients in another variable, and that variable."""
        v, x = self.variable, variable("x")
        if basis == "scaled":
            # Powers of a large variable overflow float32; those of x * 2^-j do not.
            exponent = math.frexp(self.domain.magnitude)[1]
            x = x * coefficient(2.0**-exponent)
            step = 4.0**exponent if self.symmetric else 2.0**exponent
            p, q = (c * step ** np.arange(len(c)) for c in (numerator, denominator))
            return p, q, x * x if self.symmetric else x
        if basis == "horner":
            t, inverse = self._normalisation()
            p, q = (
                full_length(Polynomial(c)(inverse).coef, len(c)) for c in (numerator, denominator)
            )
            return p, q, t
        return numerator, denominator, v.base

    def _normalisation(self) -> tuple[Expression, Polynomial]:
        """The variable mapped to about [-1, 1], and the inverse of that map."""
        v = self.variable
        t, bounds = v.normalised()
        slope = (v.hi - v.lo) / (bounds[1] - bounds[0])
        return t, Polynomial([v.lo - slope * bounds[0], slope])

    def _clenshaw(self, numerator: Array, denominator: Array) -> Expression:
        t, inverse = self._normalisation()
        parts = []
        for c in (numerator, denominator):
            in_t = Polynomial(c)(inverse).convert(kind=Chebyshev)
            parts.append(full_length(in_t.coef, len(c)))
        p, q = (clenshaw((c / parts[1][-1]).tolist(), t) for c in parts)
        return p / q

    def _normalised(self, fit: TypeFit) -> tuple[Array, Array]:
        """Ascending coefficients in u; the denominator's last is 1, its first with a fixed value.

        Both are shorter than the type says where their last coefficients are zero.

        Raises:
            CoefficientRangeError: if the coefficient that becomes 1 is zero, or one is not finite.
        """
        numerator, denominator = (_without_last_zeros(c) for c in monomials(self, fit))
        unit = denominator[0 if self.fixed else -1]
        if unit == 0 or not np.isfinite([*numerator, *denominator]).all():
            raise CoefficientRangeError("the denominator cannot be scaled to 1")
        numerator, denominator = numerator / unit, denominator / unit
        if self.fixed:
            numerator[0] = float(self.fixed[0])
        return numerator, denominator


def _and_horner(
    coefficients: list[float],
    u: Expression,
    target: Target,
    denominator: list[float] | None = None,
) -> list[Form]:
    """The cheapest forms, and Horner's where others are cheaper: they may round too coarsely.

    A rational function with its polynomial part divided out has a multiplication less, but what is
    added may cancel.
    """
    forms = cheapest_forms(coefficients, u, target, denominator=denominator, limit=_FORMS)
    if denominator is None:
        plain = horner(coefficients, u)
    else:
        unit = denominator[-1]
        above, below = ([c / unit for c in part] for part in (coefficients, denominator))
        plain = horner(above, u) / horner(below, u)
    if target.cost(plain.counts) < math.inf and plain not in [form for _, form in forms]:
        forms.append(("horner", plain))
    return forms


def _preprocessed(coefficients: list[float], u: Expression, radius: float) -> list[Form]:
    """Forms with new constants: fewer multiplications, or as many as Horner's and less rounding."""
    if len(coefficients) - 1 not in _PREPROCESSED:
        return []
    return list(preprocessed_forms(coefficients, u, radius))


def _named(
    basis: str, forms: list[Form], whole: Callable[[Expression], Expression]
) -> Iterator[Form]:
    """The forms under the names of variable and form; plain Horner and Clenshaw need no name."""
    for name, expression in forms:
        further = [part for part in name.split(", ") if part not in ("horner", "clenshaw")]
        variable_name = [] if basis == "raw" and further else [basis]
        yield ", ".join([*variable_name, *further]), whole(expression)


def _without_last_zeros(coefficients: Array) -> Array:
    return np.trim_zeros(coefficients, "b") if coefficients.any() else coefficients[:1]


def _whole(quotient: Expression, odd: bool, slope: Fraction) -> Expression:
    x = variable("x")
    value = x * quotient if odd else quotient
    return value + x * coefficient(slope) if slope else value


@lru_cache(maxsize=4096)
def _cheapest(m: int, n: int, odd: bool, symmetric: bool, slope: bool, target: Target) -> float:
    """Cost of the cheapest form of a type with coefficients that have no relation."""
    x = variable("x")
    u = x * x if symmetric else x
    if slope and m == 1 and not n:
        u, m, slope = x, 2, False
    # Arithmetic progressions had a remainder of degree 0 in type (2, 2).
    p = [Fraction(k**3 + 3 * k + 5, 7) for k in range(m + 1)]
    q = [Fraction(5 * k * k + 3 * k + 2, 13) for k in range(n)] + [Fraction(1)] if n else None
    forms = cheapest_forms(p, u, target, denominator=q, limit=1)
    if not forms:
        return math.inf
    cost = target.cost(_whole(forms[0][1], odd, Fraction(int(slope), 3)).counts)
    # Whether a polynomial has a preprocessed form is seen when its coefficients are known.
    return cost if n else cost - target.multiplication * (m - _least_products(m))


def _least_products(m: int) -> int:
    """Multiplications of a polynomial of degree m: Knuth's quartic has 3, Eve's form m // 2 + 2."""
    if m == 4:
        return 3
    return m // 2 + 2 if m in _PREPROCESSED and m > 4 else m
