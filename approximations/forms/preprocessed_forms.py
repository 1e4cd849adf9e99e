"""Polynomials with preprocessed coefficients: fewer multiplications, new constants.

The constants are computed once from the coefficients: rationally, or as real roots.  Every form is
expanded again and compared with the polynomial before it is offered, so that it is that polynomial
to `AGREEMENT`.  How much the evaluation then loses to rounding is another matter, and must be
measured: large constants may cancel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from odp.approximations.expression import Expression, constant
from odp.approximations.forms.polynomial_forms import Coefficient

__all__ = ["AGREEMENT", "eve", "factored", "knuth_quartic", "preprocessed_forms"]

AGREEMENT = 1e-13
"""Largest sum of errors of the coefficients, as a share of the sum of the coefficients, each times
the largest power of the variable."""

# Farther away, in units of the radius, the powers of the shift cancel in the evaluation.
_FARTHEST_SHIFT = 64.0
# Between the leading coefficient and the largest; beyond, the zeros are no numbers to work with.
_MOST_BINARY_DIGITS = 100


def preprocessed_forms(
    coefficients: Sequence[Coefficient], t: Expression, radius: float = 1.0
) -> Iterator[tuple[str, Expression]]:
    """Those of the forms below that exist for this polynomial.

    Args:
        coefficients: ascending, the last one not zero.
        t: the variable.
        radius: largest ``|t|``, for the comparison.
    """
    degree = len(coefficients) - 1
    if degree == 4:
        yield "knuth", knuth_quartic(coefficients, t)
    # Below degree 5 it saves nothing; a polynomial without odd powers is one in t^2.
    if degree >= 5 and any(coefficients[1::2]):
        expression = eve(coefficients, t, radius)
        if expression is not None:
            yield "eve", expression
    if degree >= 3:
        for name, squares in (("factored", False), ("factored_squares", True)):
            expression = factored(coefficients, t, radius, squares=squares)
            if expression is not None:
                yield name, expression


def knuth_quartic(coefficients: Sequence[Coefficient], t: Expression) -> Expression:
    """A quartic in three multiplications and five additions instead of four and four.

    ``y = (t + a) t + b; ((y + s t + c) y + d) u4`` with s = 1 or -1, whichever has the smaller
    constants.  Exact (D. E. Knuth, The Art of Computer Programming, volume 2, section 4.6.4,
    equation 9).
    """
    u0, u1, u2, u3 = (Fraction(c) / Fraction(coefficients[4]) for c in coefficients[:4])
    options = []
    for sign in (1, -1):
        # y^2 + s t y: comparing powers of t gives 2a + s, and so on downwards.
        a = (u3 - sign) / 2
        rest = u2 - a * (a + sign)
        b = (u1 - a * rest) / sign
        c = rest - 2 * b
        options.append((abs(b) * (abs(b) + abs(c)), sign, a, b, c, u0 - b * (b + c)))
    _, sign, a, b, c, d = min(options)
    y = (t + constant(a)) * t + constant(b)
    inner = (y + t if sign == 1 else y - t) + constant(c)
    return (inner * y + constant(d)) * constant(coefficients[4])


def eve(
    coefficients: Sequence[Coefficient], t: Expression, radius: float = 1.0
) -> Expression | None:
    """Degree n >= 4 in ``floor(n/2) + 2`` multiplications and n additions or one more.

    With ``y = t - s`` and ``w = y^2`` the polynomial is ``(... (z (w - a1) + b1) ...) (w - am) +
    bm``, z of degree 1 or 2.  The a are the roots of the odd part in y, which are all real where
    all zeros of the polynomial but one lie on one side of s (J. Eve, The evaluation of polynomials,
    Numerische Mathematik 6, 1964; Knuth, volume 2, section 4.6.4, theorem E).

    Returns:
        None where rounding in the preprocessing is not within `AGREEMENT`.
    """
    scale = 2.0 ** math.ceil(math.log2(radius))
    scaled = _scaled(coefficients, scale)
    if scaled is None:
        return None
    real = np.sort(_zeros(scaled).real)
    # Few digits: a shift that is exact in every arithmetic.
    right, left = math.floor(float(real[1]) * 64) / 64, math.ceil(float(real[-2]) * 64) / 64
    shifts = [0.0] if right >= 0 or left <= 0 else sorted((right, left), key=abs)
    for shift in shifts:
        if abs(shift) > _FARTHEST_SHIFT:
            continue
        constants = _eve_constants(scaled, Fraction(shift))
        if constants is not None:
            return _eve_expression(*constants, t - constant(shift * scale), scale)
    return None


def _eve_constants(
    scaled: Sequence[Fraction], shift: Fraction
) -> tuple[list[float], list[tuple[float, float]]] | None:
    """Coefficients of z, and the (a, b) from the inside out, for a variable in [-1, 1]."""
    rest = _shifted(scaled, shift)
    allowed = AGREEMENT * float(sum(abs(c) for c in scaled))
    largest = 1.0 + abs(float(shift))
    product, lost = 1.0, 0.0
    pairs: list[tuple[float, float]] = []
    # The root of smallest magnitude is divided out last: then the constants stay smallest.
    for root in sorted(_zeros(rest[1::2]).real.tolist(), key=abs, reverse=True):
        quotient = rest[2:]
        for index in range(len(quotient) - 3, -1, -1):
            quotient[index] += Fraction(root) * quotient[index + 2]
        zeroth, first = (rest[k] + Fraction(root) * quotient[k] for k in (0, 1))
        value = float(zeroth)
        pairs.append((root, value))
        # What is left out: the odd remainder, and what rounding the even one to a float loses.
        lost += product * (float(abs(first)) * largest + float(abs(zeroth - Fraction(value))))
        product *= largest**2 + abs(root)
        rest = quotient
    if len(rest) > 3:
        return None
    inner = [float(c) for c in rest]
    lost += product * sum(
        float(abs(c - Fraction(f))) * largest**k
        for k, (c, f) in enumerate(zip(rest, inner, strict=True))
    )
    return (inner, pairs[::-1]) if lost <= allowed else None


def _eve_expression(
    inner: list[float], pairs: list[tuple[float, float]], y: Expression, scale: float
) -> Expression:
    """The form in ``y``, constants taken back from the variable of size 1: powers of two."""
    square = y * y
    power = scale ** -(2 * len(pairs))
    z = y * constant(inner[1] * power / scale) + constant(inner[0] * power)
    if len(inner) == 3:
        z = square * constant(inner[2] * power / scale**2) + z
    for root, value in pairs:
        power *= scale**2
        z = z * (square - constant(root * scale**2)) + constant(value * power)
    return z


def factored(
    coefficients: Sequence[Coefficient],
    t: Expression,
    radius: float = 1.0,
    *,
    squares: bool = False,
) -> Expression | None:
    """The product of the leading coefficient, ``t - r`` and ``(t + b) t + c``, in few levels.

    It keeps its relative accuracy at the real zeros.

    Args:
        coefficients: ascending, the last one not zero.
        t: the variable.
        radius: largest ``|t|``, for the comparison.
        squares: quadratic factors as ``t^2 + b t + c`` with one shared ``t^2``, and real zeros in
            pairs: fewer products of two values, more by constants.

    Returns:
        None where rounding the zeros is not within `AGREEMENT`.
    """
    scale = 2.0 ** math.ceil(math.log2(radius))
    scaled = _scaled(coefficients, scale)
    if scaled is None:
        return None
    zeros = _zeros(scaled)
    real = sorted((scale * zeros[zeros.imag == 0].real).tolist(), key=abs)
    pairs = scale * zeros[zeros.imag > 0]
    factors = [[z.real**2 + z.imag**2, -2 * z.real, 1.0] for z in pairs.tolist()]
    while squares and len(real) >= 2:
        a, b = real.pop(), real.pop()
        factors.append([a * b, -(a + b), 1.0])
    factors += [[-root, 1.0] for root in real]
    lost = _distance(scaled, scale, [Fraction(coefficients[-1])], *factors)
    if lost is None or lost > AGREEMENT * float(sum(abs(c) for c in scaled)):
        return None
    terms = [_factor(factor, t, squares=squares) for factor in factors]
    while len(terms) > 1:
        joined = [a * b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = joined + terms[len(joined) * 2 :]
    return terms[0] * constant(coefficients[-1])


def _factor(factor: list[float], t: Expression, *, squares: bool) -> Expression:
    if len(factor) == 2:
        return t + constant(factor[0])
    if squares:
        return t * t + t * constant(factor[1]) + constant(factor[0])
    return (t + constant(factor[1])) * t + constant(factor[0])


def _scaled(coefficients: Sequence[Coefficient], scale: float) -> list[Fraction] | None:
    """Coefficients in a variable of size 1; None where their size leaves no room in float64."""
    if abs(math.log2(scale)) > _MOST_BINARY_DIGITS:
        return None
    scaled = [Fraction(c) * Fraction(scale) ** k for k, c in enumerate(coefficients)]
    largest, room = max(abs(c) for c in scaled), Fraction(2) ** _MOST_BINARY_DIGITS
    fits = 1 / room**4 <= largest <= room**4 and abs(scaled[-1]) * room >= largest
    return scaled if fits else None


def _zeros(coefficients: Sequence[Fraction]) -> NDArray[np.complex128]:
    """Complex zeros of a polynomial with ascending coefficients, in float64."""
    return _complex_zeros(tuple(float(c) for c in reversed(coefficients)))


@lru_cache(maxsize=64)
def _complex_zeros(descending: tuple[float, ...]) -> NDArray[np.complex128]:
    return np.asarray(np.roots(descending), dtype=np.complex128)


def _shifted(coefficients: Sequence[Fraction], shift: Fraction) -> list[Fraction]:
    """Coefficients of ``p(y + shift)``."""
    result = list(coefficients)
    if shift:
        for start in range(len(result) - 1):
            for index in range(len(result) - 2, start - 1, -1):
                result[index] += shift * result[index + 1]
    return result


def _distance(
    scaled: Sequence[Fraction], scale: float, *factors: Sequence[Fraction | float]
) -> float | None:
    """Sum of the errors of the coefficients of a product; None where its degree is another.

    In integers, which are exact and 10 times as fast as fractions.
    """
    product, denominator = [1], 1
    for factor in factors:
        ratios = [c.as_integer_ratio() for c in factor]
        common = math.lcm(*(ratio[1] for ratio in ratios))
        numbers = [ratio[0] * (common // ratio[1]) for ratio in ratios]
        result = [0] * (len(product) + len(numbers) - 1)
        for i, left in enumerate(product):
            for j, right in enumerate(numbers):
                result[i + j] += left * right
        product, denominator = result, denominator * common
    if len(product) != len(scaled):
        return None
    power, lost = Fraction(1), 0.0
    for coefficient, number in zip(scaled, product, strict=True):
        lost += float(abs(coefficient - Fraction(number, denominator) * power))
        power *= Fraction(scale)
    return lost
