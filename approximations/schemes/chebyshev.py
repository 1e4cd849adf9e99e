"""Interpolation at Chebyshev nodes, with parity, and as p(x/2^k)^(2^k) for exp.

Source: L. N. Trefethen, Approximation Theory and Approximation Practice, chapters 2 to 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.polynomial import chebyshev as series
from numpy.typing import NDArray

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import CoefficientRangeError
from odp.approximations.expression import Expression, variable
from odp.approximations.forms.polynomials import Variable, chebyshev_nodes, coefficient, interpolate
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.schemes.scheme import Candidate, Request, Scheme, in_form

__all__ = ["ChebyshevScheme"]

Array = NDArray[np.float64]

_LARGEST_DEGREE = 48
_FORMS: tuple[str, ...] = ("raw", "horner", "clenshaw")


class ChebyshevScheme(Scheme):
    """Polynomials that interpolate at Chebyshev nodes."""

    name = "chebyshev"
    summary = "interpolation at Chebyshev nodes; for exp also raised to a power of two"
    parameters: ClassVar[Mapping[str, str]] = {
        "degree": "degree of the polynomial",
        "form": "raw, horner or clenshaw: the variable as it is or mapped to [-1, 1]",
        "squarings": "k of p(x/2^k)^(2^k), exp only",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Every function that is finite on the domain has interpolants."""
        return True

    def automatic(self, function: Function, domain: Interval) -> bool:
        """Only the powers for exp: elsewhere the minimax polynomial of a degree is closer."""
        return function.name == "exp"

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Degrees in ascending order; for exp pairs of degree and squarings by cost."""
        if request.function.name == "exp":
            yield from _squared(request)
        elif "squarings" not in request.parameters:
            yield from _plain(request)


def _plain(request: Request) -> Iterator[Candidate]:
    function, domain = request.function, request.domain
    x = variable("x")
    centre = function.centre
    shift = Fraction(0)
    odd, step = False, 1
    polynomial_variable = Variable(x, domain.lo, domain.hi)
    if domain.contains(0.0) and (centre is not None or function.parity == "even"):
        polynomial_variable = Variable(x * x, 0.0, domain.magnitude**2)
        odd, step = centre is not None, 2
        shift = centre or Fraction(0)

    def estimate(coefficients: Array) -> float:
        base = points * points if step == 2 else points
        span = polynomial_variable.hi - polynomial_variable.lo
        t = (2 * base - polynomial_variable.lo - polynomial_variable.hi) / span
        value = series.chebval(t, coefficients) * (points if odd else 1.0) + float(shift)
        error = np.abs(value - exact)
        if not request.relative:
            return float(error.max())
        return float((error[exact != 0] / np.abs(exact[exact != 0])).max())

    points = _coarse_grid(domain)
    exact = function.numpy(points)
    scale = float(np.abs(exact).max())
    start = _first_useful_degree(
        function, domain, request.error * (scale if request.relative else 1.0)
    )
    for degree in range(2 if step == 2 and not odd else 1, _LARGEST_DEGREE + 1, step):
        if degree < start and "degree" not in request.parameters:
            continue
        if step == 2:
            cost = request.polynomial_cost(degree // 2) + request.cost(1 + odd)
        else:
            cost = request.polynomial_cost(degree)
        if not request.wants(cost, degree=degree):
            continue
        coefficients = _coefficients(
            request, polynomial_variable, degree, odd=odd, step=step, shift=shift
        )
        if not request.accepts(estimate(coefficients)):
            continue
        for form in _FORMS:
            extra = request.cost(form != "raw", form != "raw")
            if not request.wants(cost + extra, form=form):
                continue
            try:
                inner = getattr(polynomial_variable, form)(coefficients)
                expression = (x * inner if odd else inner) + coefficient(shift)
            except CoefficientRangeError:
                continue
            yield Candidate(
                expression,
                Parameters(degree=degree, form=form),
                f"chebyshev degree {degree} of {function.name}{in_form(form)}",
            )


def _coarse_grid(domain: Interval) -> Array:
    """Points that show an error's size: over the domain, and at all scales of a positive one."""
    points = [(domain.lo + domain.hi) / 2 + domain.width / 2 * chebyshev_nodes(257)]
    points.append(np.array([domain.lo, domain.hi]))
    if domain.lo > 0:
        points.append(np.geomspace(domain.lo, domain.hi, 128))
    return np.clip(np.concatenate(points), domain.lo, domain.hi)


def _first_useful_degree(function: Function, domain: Interval, target: float) -> int:
    """A degree below which no polynomial can meet the target absolute error.

    The tail of a Chebyshev series bounds every polynomial's error from below:
    max |f - p| >= sqrt(sum of squares of the coefficients after the degree / 2).
    """
    count = 256
    points = (domain.lo + domain.hi) / 2 + domain.width / 2 * chebyshev_nodes(count)
    coefficients = interpolate(function.numpy(points))
    tails = np.sqrt(np.cumsum(coefficients[::-1] ** 2)[::-1] / 2)
    useful = np.flatnonzero(tails <= target)
    return int(useful[0]) - 1 if useful.size else count


def _coefficients(
    request: Request, square: Variable, degree: int, *, odd: bool, step: int, shift: Fraction
) -> Array:
    """Chebyshev coefficients, in the variable of the polynomial, of the interpolant."""
    function = request.function
    if step == 1:
        return interpolate(function.numpy(square.points(chebyshev_nodes(degree + 1))))
    nodes = chebyshev_nodes(degree // 2 + 1)
    magnitude = math.sqrt(square.hi)
    if odd and request.relative:
        # f(x)/x interpolated in x^2 has a small error relative to x, as f has.
        x = np.sqrt(square.points(nodes))
        return interpolate((function.numpy(x) - float(shift)) / x)
    # The interpolant in x at symmetric nodes has the parity of f; as values of a polynomial in
    # x^2 at that variable's own nodes it needs no change of basis.
    whole = interpolate(function.numpy(magnitude * chebyshev_nodes(degree + 1)) - float(shift))
    whole[(0 if odd else 1) :: 2] = 0.0
    x = np.sqrt(square.points(nodes))
    values = series.chebval(x / magnitude, whole)
    return interpolate(np.asarray(values / x if odd else values, dtype=np.float64))


def _squared(request: Request) -> Iterator[Candidate]:
    """p_d(x/2^k)^(2^k) for exp: d + k multiplications, the 1/2^k inside the coefficients."""
    pairs = sorted(
        ((degree, k) for degree in range(1, 13) for k in range(13)),
        key=lambda pair: (sum(pair), pair[1]),
    )
    forms: dict[str, Callable[[Array, Variable], Expression]] = {
        "raw": lambda c, v: v.raw(c),
        "horner": lambda c, v: v.horner(c),
        "clenshaw": lambda c, v: v.clenshaw(c),
    }
    for degree, k in pairs:
        cost = request.polynomial_cost(degree) + request.cost(k, depth=k)
        if not request.wants(cost, degree=degree, squarings=k):
            continue
        found = _best_window(request, degree, k)
        if found is None:
            continue
        coefficients, window = found
        for form, build in forms.items():
            if k and form != "raw":
                continue
            extra = request.cost(form != "raw", form != "raw")
            if not request.wants(cost + extra, form=form):
                continue
            try:
                expression = build(coefficients, window)
            except CoefficientRangeError:
                continue
            for _ in range(k):
                expression = expression * expression
            inner = f"exp(x/2^{k}), {k} squarings" if k else "exp"
            yield Candidate(
                expression,
                Parameters(degree=degree, squarings=k, form=form),
                f"chebyshev degree {degree} of {inner}",
            )


def _best_window(request: Request, degree: int, k: int) -> tuple[Array, Variable] | None:
    """Interpolate exp(x/2^k) on the part of the domain that carries the error of the power.

    The absolute error of p^(2^k) is 2^k * p's error * exp(x (1 - 2^-k)): it lives near the upper
    end.  So p interpolates on a window [hi - w, hi]; w is the best of a geometric series, by the
    error of the whole power on the whole domain.

    Returns:
        Chebyshev coefficients and their variable, or None if no window meets the error.
    """
    domain = request.domain
    scale = 2.0**k
    x = np.concatenate(
        [
            domain.lo + domain.width * (1 - chebyshev_nodes(129)) / 2,
            domain.hi - np.geomspace(domain.width * 1e-4, domain.width, 128),
            [domain.lo, domain.hi],
        ]
    )
    exact = np.exp(x)
    best, best_error = None, math.inf
    for fraction in np.geomspace(1.0, min(1.0, 2.0 / domain.width), 16) if k else (1.0,):
        low = domain.hi - domain.width * float(fraction)
        window = Variable(variable("x"), low, domain.hi)
        nodes = window.points(chebyshev_nodes(degree + 1))
        coefficients = interpolate(np.exp(nodes / scale))
        with np.errstate(all="ignore"):
            t = (2 * x - (low + domain.hi)) / (domain.hi - low)
            value = series.chebval(t, coefficients)
            for _ in range(k):
                value = value * value
            error = np.abs(value - exact) / (exact if request.relative else 1.0)
        largest = float(error.max())
        if largest < best_error:
            best, best_error = (coefficients, window), largest
        if domain.width * float(fraction) <= 2.0:
            break
    return best if request.accepts(best_error) else None
