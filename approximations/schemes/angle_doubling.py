"""sin and cos on wide domains: values at x/2^k, then k doublings of the angle.

The rule ``2 c^2 - 1`` for the cosine multiplies an error by 4 each time, 4^k in all.  Two others
are better:

- ``v <- v (4 - 2v)`` for ``v = 1 - cos``: one multiplication.  Where the angle is small, v is, and
  its relative error stays; only after the angle has passed pi is an error multiplied by 4 again, so
  that an angle a at the end has about (a/pi)^2 roundings.
- a squaring of ``c + i s``: ``(c - s)(c + s)`` and ``2 c s``, two multiplications.  It loses no
  more than rounding the argument itself, the angle times a rounding, and keeps the sine odd.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial, chebyshev
from numpy.typing import NDArray

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import CoefficientRangeError, FloatArithmetic
from odp.approximations.expression import Expression, variable
from odp.approximations.fits.remez import Problem, minimax
from odp.approximations.forms.polynomials import Variable, coefficient, full_length, horner
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["AngleDoublingScheme"]

Array = NDArray[np.float64]

_MOST_DOUBLINGS = 20
_POINTS = 257
# Beyond pi the sine of the first angle, by which errors are weighed, vanishes.
_FARTHEST = 2.5
# The first term of a series of errors is right to a small factor where it is small.
_HOPELESS = 20.0
_LARGEST_DEGREE = 15


class AngleDoublingScheme(Scheme):
    """1 - cos, or the pair (cos, sin), of x/2^k by polynomials, then k doublings."""

    name = "angle_doubling"
    summary = "1 - cos or the pair of cos and sin at x/2^k, then k doublings of the angle"
    parameters: ClassVar[Mapping[str, str]] = {
        "doublings": "k: how often the angle is doubled",
        "degree": "degree of the cosine polynomial; the sine's is one more or one less",
        "form": "versine (1 - cos, one multiplication a doubling) or pair (two, odd for sin)",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Only sin and cos."""
        return function.name in ("sin", "cos")

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """By cost, those whose error after the doublings is small enough."""
        options = [
            # x^2, its multiple and powers, one multiplication per doubling.
            (request.cost(even // 2 + 1 + k, 1, depth=k), k, even, 0)
            for k in range(1, _MOST_DOUBLINGS + 1)
            for even in range(2, _LARGEST_DEGREE + 1, 2)
        ]
        options += [
            # x^2, the two polynomials, x times the odd one, two multiplications per doubling; the
            # last doubling computes one of the pair.
            (request.cost(even // 2 + (odd - 1) // 2 + 2 * k + 1, 2, depth=k), k, even, odd)
            for k in range(1, _MOST_DOUBLINGS + 1)
            for even in range(2, _LARGEST_DEGREE + 1, 2)
            for odd in (even - 1, even + 1)
        ]
        for cost, k, even, odd in sorted(options):
            form = "pair" if odd else "versine"
            if not request.wants(cost, doublings=k, degree=even, form=form):
                continue
            reach = request.domain.magnitude / 2 ** (k + 1)
            # The first term of the error in Chebyshev polynomials of the squared angle.
            expected = 2 * reach ** (even + 2) / math.factorial(even + 2)
            if 2.0**k * expected > _HOPELESS * request.error:
                continue
            degrees = f"{even} and {odd}" if odd else f"{even}"
            for built in _pair(request, k, even, odd) if odd else _versine(request, k, even):
                yield Candidate(
                    built,
                    Parameters(doublings=k, degree=even, form=form),
                    f"{request.function.name} by {k} angle doublings of degree {degrees}",
                )


def _pair(request: Request, k: int, even: int, odd: int) -> Iterator[Expression]:
    reach = request.domain.magnitude / 2**k
    cosine, cosine_error = _polynomial(reach, even, odd=False)
    sine, sine_error = _polynomial(reach, odd, odd=True)
    # Either error may turn fully into the wanted one.
    if request.accepts(2.0**k * max(cosine_error, sine_error)):
        with contextlib.suppress(CoefficientRangeError):
            yield _doubled(request.function.name, cosine, sine, reach, k)


def _versine(request: Request, k: int, degree: int) -> Iterator[Expression]:
    """1 - v after k doublings of ``v = 1 - cos``, an even polynomial that vanishes at 0."""
    domain = request.domain
    shift = math.pi / 2 if request.function.name == "sin" else 0.0
    reach = max(domain.hi - shift, shift - domain.lo) / 2**k
    if request.relative or reach > _FARTHEST:
        return
    arithmetic = request.target.arithmetic
    if isinstance(arithmetic, FloatArithmetic) and "form" not in request.parameters:
        turns, forgiven = reach * 2.0**k / math.pi, 8 * (1 + reach * 2.0**k)
        if (turns**2 - forgiven) * arithmetic.unit_roundoff > request.error:
            return
    x = variable("x")
    angle = x - coefficient(shift) if shift else x
    square = angle * angle
    # With a leading a^2/2 that no arithmetic rounds the error grows less with the whole angle.
    for exact in (False, True):
        if exact and degree == 2:
            continue
        coefficients, error = _versine_polynomial(reach, degree, exact=exact)
        if not request.accepts(2.0**k * error):
            continue
        # In the square of the whole angle: exact powers of two.
        scaled = [c * 4.0 ** (-k * (j + 1)) for j, c in enumerate(coefficients.tolist())]
        with contextlib.suppress(CoefficientRangeError):
            v = square * horner(scaled, square)
            for _ in range(k):
                v = v * (4 - (v + v))
            yield 1 - v


@lru_cache(maxsize=1024)
def _versine_polynomial(reach: float, degree: int, *, exact: bool) -> tuple[Array, float]:
    """Coefficients of p in ``1 - cos(a) = a^2 p(a^2)``, and the largest error over sin(a).

    `exact` sets p(0) = 1/2.
    """
    t = reach * np.sin(np.linspace(0.0, np.pi / 2, _POINTS))[1:]
    first = 2 if exact else 1
    basis = chebyshev.chebvander(2 * (t / reach) ** 2 - 1, degree // 2 - first)
    target = 2 * np.sin(t / 2) ** 2
    missing = target - t * t / 2 if exact else target
    columns = t[:, None] ** (2 * first) * basis
    fit = minimax(Problem(columns, np.ones((t.size, 1)), missing, 1 / np.sin(t)))
    if fit is None:
        return np.zeros(degree // 2), math.inf
    series = Chebyshev(fit.p / fit.q[0], domain=[0.0, reach * reach]).convert(kind=Polynomial)
    found = full_length(series.coef, degree // 2 + 1 - first)
    return np.concatenate([[0.5], found]) if exact else found, fit.error


@lru_cache(maxsize=1024)
def _polynomial(reach: float, degree: int, *, odd: bool) -> tuple[Array, float]:
    """Chebyshev coefficients in the squared argument on [0, reach^2], and the error."""
    t = reach * np.sin(np.linspace(0.0, np.pi / 2, _POINTS))
    basis = chebyshev.chebvander(2 * (t / reach) ** 2 - 1, degree // 2)
    # t p(t^2) has the error of the sine itself; at 0 it is 0 whatever p is.
    columns = np.asarray(t[1:, None] * basis[1:] if odd else basis, dtype=np.float64)
    target = np.sin(t[1:]) if odd else np.cos(t)
    fit = minimax(Problem(columns, np.ones((target.size, 1)), target, np.ones_like(target)))
    if fit is None:
        return np.zeros(degree // 2 + 1), math.inf
    return np.asarray(fit.p / fit.q[0], dtype=np.float64), fit.error


def _doubled(name: str, cosine: Array, sine: Array, reach: float, k: int) -> Expression:
    x = variable("x")
    # Polynomials in x^2 itself: the power of two in x/2^k goes into the coefficients exactly.
    square = Variable(x * x, 0.0, (reach * 2.0**k) ** 2)
    c = square.raw(cosine)
    s = x * square.raw(sine / 2.0**k)
    for step in range(k):
        last = step == k - 1
        product = c * s
        if last and name == "sin":
            return product + product
        c, s = (c - s) * (c + s), product + product
    return c
