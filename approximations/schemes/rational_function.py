"""Fits as expressions: what a polynomial or rational function of a type costs, and its forms.

At a branch point (asin at 1, acosh at 1) the poles gather so closely that rounding the coefficients
to float32 moves them across each other: about 5e-3 is the limit of this form there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from odp.approximations.approximant import Parameters
from odp.approximations.exact_coefficients import chebyshev_series
from odp.approximations.expression import Expression, constant, variable
from odp.approximations.fit_coefficients import monomials
from odp.approximations.fit_problem import WIDE_RATIO, FitProblem, Parity, TypeFit
from odp.approximations.polynomials import (
    CoefficientRangeError,
    clenshaw,
    coefficient,
    full_length,
    horner,
)
from odp.approximations.schemes.scheme import Candidate, Request

__all__ = ["RationalProblem"]

Array = NDArray[np.float64]


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
        """Least cost of type (m, n): a monic denominator saves one multiplication."""
        request = self.request
        parts = request.polynomial_cost(m) + request.polynomial_cost(n, monic=True)
        return parts + self._around(divisions=1)

    def polynomial_cost(self, m: int) -> float:
        """Least cost of a polynomial of degree m in u."""
        if self.slope and m == 1:
            # A parabola: the linear term is on Horner's way.
            return self.request.polynomial_cost(2)
        return self.request.polynomial_cost(m) + self._around(squares=m > 0)

    def _around(self, *, squares: bool = True, divisions: int = 0) -> float:
        """What the square of x, the factor x and the linear term cost."""
        products = (self.symmetric and squares) + self.odd + bool(self.slope)
        return self.request.cost(products, bool(self.slope), divisions)

    def _whole(self, dividend: Expression, divisor: Expression) -> Expression:
        """What a fit stands for: its quotient with the factor x, the linear term, the constant."""
        x = variable("x")
        value = (x * dividend if self.odd else dividend) / divisor
        if self.slope:
            value = value + x * coefficient(self.slope)
        return value + coefficient(self.shift)

    def polynomials(self, fit: TypeFit, request: Request, scheme: str) -> Iterator[Candidate]:
        """The forms of evaluation of one polynomial."""
        base = self.polynomial_cost(fit.m)
        degree = self.degree(fit.m)
        for form in ("raw", "horner", "clenshaw"):
            extra = request.cost(form != "raw", form != "raw")
            if not request.wants(base + extra, form=form):
                continue
            if form != "raw" and self.gaps:
                # A coefficient within the polynomial stays as it is only in powers of u.
                continue
            try:
                if self.slope and fit.m == 1 and form == "raw":
                    constant_term, leading = monomials(self, fit)[0].tolist()
                    expression = horner([constant_term, float(self.slope), leading], variable("x"))
                else:
                    expression = self._whole(self._polynomial(fit, form), constant(1))
            except CoefficientRangeError:
                continue
            yield Candidate(
                expression,
                Parameters(degree=degree, form=form),
                f"{scheme} degree {degree} of {self.function.name}, {form}",
            )

    def _polynomial(self, fit: TypeFit, form: str) -> Expression:
        v = self.variable
        if self.gaps:
            return horner(monomials(self, fit)[0].tolist(), v.base)
        p = fit.numerator / fit.denominator[0]
        if fit.exact is not None:
            if form == "raw":
                return horner(monomials(self, fit)[0].tolist(), v.base)
            unit = fit.exact[1][0]
            exact = [c / unit for c in fit.exact[0]]
            p = np.array(chebyshev_series(exact, Fraction(v.lo), Fraction(v.hi)))
        inner: Expression = getattr(v, form)(p)
        for power in reversed(range(self.leading_fixed)):
            inner = inner * v.base + coefficient(self.fixed[power])
        return inner

    def rationals(self, fit: TypeFit, request: Request, scheme: str) -> Iterator[Candidate]:
        """The forms of evaluation of one rational function."""
        base = self.cost(fit.m, fit.n)
        v = self.variable
        decades = v.lo > 0 and v.hi / v.lo > WIDE_RATIO
        for form, extra in (("raw", 0), ("scaled", 1), ("horner", 2), ("clenshaw", 2)):
            if not request.wants(base + request.cost(extra, extra), form=form):
                continue
            if form in ("horner", "clenshaw") and (decades or self.fixed):
                # Over many decades an affine variable has no digits left for the small end; and
                # away from 0 no coefficient is the value there.
                continue
            try:
                expression = self._whole(*self._rational(fit, form))
            except CoefficientRangeError:
                continue
            symmetry = " in x^2" if self.symmetric else ""
            yield Candidate(
                expression,
                Parameters(numerator=fit.m, denominator=fit.n, form=form),
                f"{scheme} ({fit.m},{fit.n}){symmetry} of {self.function.name}, {form}",
            )

    def _rational(self, fit: TypeFit, form: str) -> tuple[Expression, Expression]:
        numerator, denominator = self._normalised(fit)
        if form == "raw":
            u = self.variable.base
            return horner(numerator.tolist(), u), horner(denominator.tolist(), u)
        if form == "scaled":
            # Powers of a large variable overflow float32; those of x * 2^-j do not.
            exponent = math.frexp(self.domain.magnitude)[1]
            x = variable("x") * coefficient(2.0**-exponent)
            step = 4.0**exponent if self.symmetric else 2.0**exponent
            parts = [c * step ** np.arange(len(c)) for c in (numerator, denominator)]
            if not self.fixed:
                parts = [c / parts[1][-1] for c in parts]
            u = x * x if self.symmetric else x
            return horner(parts[0].tolist(), u), horner(parts[1].tolist(), u)
        v = self.variable
        t, bounds = v.normalised()
        slope = (v.hi - v.lo) / (bounds[1] - bounds[0])
        inverse = Polynomial([v.lo - slope * bounds[0], slope])
        parts = [full_length(Polynomial(c)(inverse).coef, len(c)) for c in (numerator, denominator)]
        if form == "clenshaw":
            parts = [full_length(Polynomial(c).convert(kind=Chebyshev).coef, len(c)) for c in parts]
        build = horner if form == "horner" else clenshaw
        p, q = (build((c / parts[1][-1]).tolist(), t) for c in parts)
        return p, q

    def _normalised(self, fit: TypeFit) -> tuple[Array, Array]:
        """Ascending coefficients in u; the denominator's last is 1, its first with a fixed value.

        Raises:
            CoefficientRangeError: if that coefficient is zero, or one is not finite.
        """
        numerator, denominator = monomials(self, fit)
        unit = denominator[0 if self.fixed else -1]
        if unit == 0 or not np.isfinite([*numerator, *denominator]).all():
            raise CoefficientRangeError("the denominator has a lower degree than its type")
        numerator, denominator = numerator / unit, denominator / unit
        if self.fixed:
            numerator[0] = float(self.fixed[0])
        return numerator, denominator
