"""Pade approximants, and what follows from the one of exp: sigmoid, tanh and mish's gate.

Type (m, n) at a point, from the Taylor series and an exact linear solve over the rationals.  exp is
used as ``R(x/2^k)^(2^k)``.  Where R = (E + O)/(E - O) is diagonal, E even and O odd, the functions
that are rational in exp(x) need one division: with P = (E + O)^K and Q = (E - O)^K, K = 2^k,
sigmoid = P/(P + Q), tanh(x/2) = (P - Q)/(P + Q).  They stay within their range everywhere.

Source: G. A. Baker and P. Graves-Morris, Pade Approximants, 2nd ed., chapter 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import CoefficientRangeError
from odp.approximations.expression import Expression, variable
from odp.approximations.forms.polynomials import coefficient, horner
from odp.approximations.functions.function import Function
from odp.approximations.functions.registry import get_function
from odp.approximations.functions.taylor_coefficients import taylor_coefficients
from odp.approximations.interval import Interval
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["PadeScheme", "expansion_point", "pade_coefficients", "sparse_horner"]

_GATES = ("sigmoid", "tanh", "mish_gate")
_LARGEST_DEGREE = 6
_MOST_SQUARINGS = 16


class PadeScheme(Scheme):
    """Pade at a point; powers R(x/2^k)^(2^k) for exp and the functions made of it."""

    name = "pade"
    summary = "Pade at a point; R(x/2^k)^(2^k) for exp, sigmoid, tanh, mish_gate"
    parameters: ClassVar[Mapping[str, str]] = {
        "numerator": "degree of the numerator",
        "denominator": "degree of the denominator",
        "squarings": "k of R(x/2^k)^(2^k), for exp, sigmoid, tanh and mish_gate",
        "point": "where the Taylor series is taken, for the other functions",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Every function that is analytic somewhere on the domain."""
        return True

    def automatic(self, function: Function, domain: Interval) -> bool:
        """Only the powers and the exact cases: elsewhere Chebyshev-Pade is 10 to 1000 times closer.

        (facts: Pade(4,4) of sigmoid on [-8, 8] 9.4e-3, of the same type from the whole domain
        1.5e-4.)
        """
        return function.name in ("exp", "reciprocal", *_GATES) or (
            function.exponent is not None and function.exponent.denominator == 1
        )

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """By cost; for exp over types and squarings, otherwise over types at one point."""
        name = request.function.name
        if name in ("exp", *_GATES):
            if "point" not in request.parameters:
                yield from _powers(request)
        elif "squarings" not in request.parameters:
            yield from _at_point(request)


@lru_cache(maxsize=4096)
def pade_coefficients(
    function: str | Function, m: int, n: int, point: Fraction = Fraction(0)
) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]] | None:
    """Exact coefficients of the Pade approximant of type (m, n), the denominator's first being 1.

    Args:
        function: a function, or its registered name.
        m: degree of the numerator.
        n: degree of the denominator.
        point: where the Taylor series is taken; the coefficients are in ``x - point``.

    Returns:
        Ascending coefficients of numerator and denominator, or None for a degenerate type.

    >>> pade_coefficients("exp", 1, 1)
    ((Fraction(1, 1), Fraction(1, 2)), (Fraction(1, 1), Fraction(-1, 2)))
    """
    import sympy

    c = taylor_coefficients(get_function(function), point, m + n + 1)
    if c is None:
        return None

    def series(index: int) -> sympy.Rational:
        return sympy.Rational(c[index].numerator, c[index].denominator) if index >= 0 else 0

    q = [Fraction(1)]
    if n:
        system = sympy.Matrix(n, n, lambda i, j: series(m + i - j))
        right = sympy.Matrix(n, 1, lambda i, _: -series(m + i + 1))
        if system.det() == 0:
            return None
        q += [Fraction(int(v.p), int(v.q)) for v in system.LUsolve(right)]
    p = [sum((c[i - j] * q[j] for j in range(min(i, n) + 1)), Fraction(0)) for i in range(m + 1)]
    return tuple(p), tuple(q)


def _powers(request: Request) -> Iterator[Candidate]:
    """R(x/2^k)^(2^k) and the gates made of it, by default cost."""
    gate = request.function.name
    options: list[tuple[float, int, int, int]] = []
    for m in range(1 if gate != "exp" else 0, _LARGEST_DEGREE + 1):
        for n in range(1 if gate != "exp" else 0, _LARGEST_DEGREE + 1):
            if m + n == 0 or (gate != "exp" and m != n):
                continue
            for k in range(_MOST_SQUARINGS + 1):
                options.append((_power_cost(request, m, n, k), m, n, k))
    for cost, m, n, k in sorted(options):
        if not request.wants(cost, numerator=m, denominator=n, squarings=k):
            continue
        estimate = _power_error(request, m, n, k)
        if not request.accepts(estimate):
            continue
        for scaled in (False, True):
            if scaled and (not n or not request.wants(cost + request.cost(1, 1))):
                continue
            try:
                expression = _power_expression(request, m, n, k, scaled=scaled)
            except (CoefficientRangeError, OverflowError):
                continue
            inner = f"exp(x/2^{k}), {k} squarings" if k else "exp(x)"
            what = "" if gate == "exp" else f"{gate} from "
            yield Candidate(
                expression,
                Parameters(numerator=m, denominator=n, squarings=k),
                f"{what}pade ({m},{n}) of {inner}",
            )


def _power_cost(request: Request, m: int, n: int, k: int) -> float:
    gate = request.function.name
    base = {1: 0, 2: 2}.get(m, m + 1) if m == n else m + max(n - 1, 0)
    if gate == "exp":
        return request.cost(base + k, min(base, 2), divisions=n > 0, depth=k)
    products = base + 2 * k + (2 if gate == "mish_gate" else 0)
    return request.cost(products, min(base, 2), divisions=1, depth=k)


def _power_error(request: Request, m: int, n: int, k: int) -> float:
    """The error of the power on a coarse grid, in float64."""
    import numpy as np

    coefficients = pade_coefficients("exp", m, n)
    if coefficients is None:
        return math.inf
    domain, gate = request.domain, request.function.name
    x = np.unique(
        np.concatenate(
            [
                np.linspace(domain.lo, domain.hi, 257),
                np.clip(np.geomspace(1e-2, domain.magnitude, 128), domain.lo, domain.hi),
                np.clip(-np.geomspace(1e-2, domain.magnitude, 128), domain.lo, domain.hi),
            ]
        )
    )
    p, q = (np.array([float(c) for c in reversed(part)]) for part in coefficients)
    with np.errstate(all="ignore"):
        y = x * (2.0 if gate == "tanh" else 1.0) / 2.0**k
        ratio = np.polyval(p, y) / np.polyval(q, y)
        w = ratio
        for _ in range(k):
            w = w * w
        if gate == "exp":
            value = w
        elif gate == "sigmoid":
            value = 1 / (1 + 1 / w)
        elif gate == "tanh":
            value = 1 - 2 / (1 + w)
        else:
            value = 1 - 2 / (w * (w + 2) + 2)
        exact = request.function.numpy(x)
        error = np.abs(value - exact) / (np.abs(exact) if request.relative else 1.0)
    if not request.relative or (exact != 0).all():
        largest = float(error.max())
    else:
        largest = float(error[exact != 0].max())
    return math.inf if math.isnan(largest) else largest


def _power_expression(request: Request, m: int, n: int, k: int, *, scaled: bool) -> Expression:
    gate = request.function.name
    coefficients = pade_coefficients("exp", m, n)
    if coefficients is None:
        raise CoefficientRangeError("degenerate type")
    argument_scale = Fraction(2 if gate == "tanh" else 1, 2**k)
    x = variable("x")
    p, q = ([c * argument_scale**i for i, c in enumerate(part)] for part in coefficients)
    if m == n:
        # The leading coefficient of E or O is made 1, which saves a multiplication; `scaled`
        # brings numerator and denominator back to about 1 by a power of two, so that their
        # powers do not overflow float32.
        lead = abs(p[-1])
        p = [c / lead for c in p]
        if scaled:
            power = _power_of_two_scale(request, [float(c) for c in p], k)
            if power == 1:
                raise CoefficientRangeError("the unscaled form is the same")
            p = [c * power for c in p]
        square = x * x
        even = horner([float(c) for c in p[0::2]], square)
        odd = x * horner([float(c) for c in p[1::2]], square)
        upper, lower = even + odd, even - odd
    else:
        if scaled:
            raise CoefficientRangeError("only the diagonal has a scaled form")
        lead = q[-1] if n else Fraction(1)
        upper = horner([float(c / lead) for c in p], x)
        lower = horner([float(c / lead) for c in q], x)
    if gate == "exp":
        value = upper / lower if n else upper
        for _ in range(k):
            value = value * value
        return value
    for _ in range(k):
        upper, lower = upper * upper, lower * lower
    if gate == "sigmoid":
        return upper / (upper + lower)
    if gate == "tanh":
        return (upper - lower) / (upper + lower)
    product = upper * (upper + (lower + lower))
    square_lower = lower * lower
    return product / (product + (square_lower + square_lower))


def _power_of_two_scale(request: Request, p: list[float], k: int) -> Fraction:
    """The largest power of two that keeps the powers of numerator and denominator below 2^120."""
    largest = 0.0
    for x in (request.domain.lo, request.domain.hi, 0.0):
        for sign in (1, -1):
            largest = max(largest, abs(sum(c * (sign * x) ** i for i, c in enumerate(p))))
    exponent = 2**k * (2 if request.function.name == "mish_gate" else 1)
    shift = math.floor(118 / exponent - math.log2(largest))
    return Fraction(1, 2 ** max(-shift, 0))


def _at_point(request: Request) -> Iterator[Candidate]:
    """Plain Pade of a function at one point, by the number of operations."""
    function = request.function
    fixed = request.parameters.get("point")
    point = expansion_point(function, request.domain) if fixed is None else Fraction(float(fixed))
    x = variable("x")
    shifted = x - coefficient(point) if point else x
    types = [
        (m, n)
        for m in range(_LARGEST_DEGREE + 3)
        for n in range(_LARGEST_DEGREE + 3)
        if 0 < m + n <= 2 * _LARGEST_DEGREE
    ]
    symmetric = function.centre is not None or function.parity == "even"

    def least(m: int, n: int) -> float:
        share = 2 if symmetric else 1
        products = (m + max(n - 1, 0)) // share
        return request.cost(products, min(products, 2), divisions=n > 0)

    for m, n in sorted(types, key=lambda t: (least(*t), t[0])):
        cost = least(m, n)
        if not request.wants(cost, numerator=m, denominator=n):
            continue
        coefficients = pade_coefficients(function, m, n, point)
        if coefficients is None:
            continue
        p, q = coefficients
        if not p[-1] or not q[-1]:
            # A degenerate type repeats a smaller one.
            continue
        if function.name == "reciprocal":
            p, q, argument = _unshift(p, point), _unshift(q, point), x
        else:
            argument = shifted
        try:
            numerator = sparse_horner([c / q[-1] for c in p], argument)
            denominator = sparse_horner([c / q[-1] for c in q], argument)
        except CoefficientRangeError:
            continue
        where = f" at {float(point):g}" if point else ""
        yield Candidate(
            numerator / denominator,
            Parameters(numerator=m, denominator=n, point=float(point)),
            f"pade ({m},{n}) of {function.name}{where}",
        )


def _unshift(coefficients: tuple[Fraction, ...], point: Fraction) -> tuple[Fraction, ...]:
    """Coefficients in x of a polynomial given in x - point, exactly."""
    result = [Fraction(0)] * len(coefficients)
    for power, c in enumerate(coefficients):
        for i in range(power + 1):
            result[i] += c * math.comb(power, i) * (-point) ** (power - i)
    return tuple(result)


def sparse_horner(coefficients: list[Fraction], t: Expression) -> Expression:
    """Horner, in t^2 where every other coefficient is zero.

    Args:
        coefficients: ascending.
        t: the variable.
    """
    values = [float(c) for c in coefficients]
    if len(values) > 2 and not any(coefficients[1::2]):
        return horner(values[0::2], t * t)
    if len(values) > 1 and not any(coefficients[0::2]):
        return t * horner(values[1::2], t * t)
    return horner(values, t)


def expansion_point(function: Function, domain: Interval, *, geometric: bool = True) -> Fraction:
    """The centre of a domain, where a series is taken unless the user says otherwise.

    Args:
        function: with a symmetry about 0 the centre is 0, where the domain contains it.
        domain: finite.
        geometric: whether the geometric mean is the centre for functions of positive scale.
    """
    symmetric = function.centre is not None or function.parity is not None
    if geometric and function.positive_scale and domain.ratio < math.inf:
        centre = math.copysign(math.sqrt(abs(domain.lo) * abs(domain.hi)), domain.lo)
    elif domain.contains(0.0) and symmetric:
        return Fraction(0)
    else:
        centre = (domain.lo + domain.hi) / 2
    # A short binary number near the centre: its subtraction is then exact for most inputs.
    mantissa, exponent = math.frexp(centre)
    return Fraction(round(mantissa * 64), 64) * Fraction(2) ** exponent
