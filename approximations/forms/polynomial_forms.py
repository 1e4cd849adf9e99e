"""Ways to evaluate one polynomial: the same value in exact arithmetic, at different costs.

Horner has the fewest multiplications without preprocessing.  Where a multiplication of two values
is dear and one by a constant is cheap (homomorphic encryption, secret sharing), or where depth is
dear, powers of the variable that are computed once and shared are better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TypeVar

from odp.approximations.expression import Expression, constant
from odp.approximations.forms.polynomials import coefficient, horner

__all__ = [
    "Builder",
    "Coefficient",
    "blocks",
    "chebyshev_blocks",
    "divide",
    "even_odd",
    "giant_steps",
    "paterson_stockmeyer",
    "polynomial_builders",
    "trimmed",
]

Coefficient = float | Fraction
C = TypeVar("C", bound=Coefficient)
Builder = Callable[[Sequence[Coefficient], Expression], Expression]


def even_odd(coefficients: Sequence[Coefficient], t: Expression) -> Expression:
    """Horner in ``t * t`` of the even and of the odd powers: half the levels for one more product.

    An even or odd polynomial takes half the multiplications.
    """
    square = t * t
    even = horner(coefficients[::2], square)
    if not any(coefficients[1::2]):
        return even
    return horner(coefficients[1::2], square) * t + even


class _Powers:
    """Powers of an expression, each from two of about half the exponent."""

    def __init__(self, t: Expression) -> None:
        self._known = {1: t}

    def __getitem__(self, exponent: int) -> Expression:
        power = self._known.get(exponent)
        if power is None:
            half = exponent // 2
            power = self._known[exponent] = self[exponent - half] * self[half]
        return power

    def sum(self, coefficients: Sequence[Coefficient]) -> Expression:
        """The polynomial with these coefficients, from its highest power down."""
        result = constant(0)
        for exponent in range(len(coefficients) - 1, 0, -1):
            if coefficients[exponent]:
                result = result + self[exponent] * coefficient(coefficients[exponent])
        return result + coefficient(coefficients[0])


def giant_steps(coefficients: Sequence[Coefficient], t: Expression, width: int) -> Expression:
    """Horner in ``t^width`` of blocks of `width` coefficients.

    ``width - 1 + degree / width`` products of two values, at best ``2 sqrt(degree)`` of them
    (M. S. Paterson, L. J. Stockmeyer, On the number of nonscalar multiplications necessary to
    evaluate polynomials, SIAM J. Comput. 2, 1973, algorithm A).
    """
    powers = _Powers(t)
    starts = range(0, len(coefficients), width)
    result = constant(0)
    for start in reversed(starts):
        if result.op != "constant" or result.value:
            result = result * powers[width]
        result = result + powers.sum(coefficients[start : start + width])
    return result


def blocks(coefficients: Sequence[Coefficient], t: Expression, width: int) -> Expression:
    """Blocks of `width` coefficients joined two by two: least depth.

    With `width` 2 this is Estrin's scheme (G. Estrin, Organization of computer systems, 1960): it
    has ``ceil(log2(degree + 1))`` levels of multiplications, those by constants included.
    """
    powers = _Powers(t)

    def join(part: Sequence[Coefficient]) -> Expression:
        if len(part) <= width:
            return powers.sum(part)
        split = width
        while 2 * split < len(part):
            split *= 2
        return join(part[split:]) * powers[split] + join(part[:split])

    return join(trimmed(coefficients))


def paterson_stockmeyer(
    coefficients: Sequence[Coefficient], t: Expression, width: int
) -> Expression:
    """About ``sqrt(2 degree) + log2(degree)`` products of two values, in few levels.

    Every step writes a monic polynomial as ``(t^s + c) q + r`` with ``q`` and ``r`` monic of the
    same degree and ``c`` of degree `width` at most: one product where `blocks` takes two
    (Paterson and Stockmeyer 1973, algorithm B).  The divisions are exact; the new constants may
    be large where the leading coefficient is small, so what rounding does must be measured.
    """
    powers = _Powers(t)
    given = [Fraction(c) for c in trimmed(coefficients)]
    leading = given[-1]

    def monic(part: list[Fraction]) -> Expression:
        degree = len(part) - 1
        if degree <= width:
            return powers.sum(part)
        split = width
        while 4 * split - 1 - degree <= width and 2 * split <= degree:
            split *= 2
        quotient, rest = part[split:], part[:split]
        if len(rest) < len(quotient):
            return monic(quotient) * powers[split] + powers_of(rest)
        factor, remainder = divide(rest, quotient)
        # One more q in r instead of in c makes r monic too, at no cost.
        factor[0] -= 1
        remainder = [a + b for a, b in zip(remainder, quotient, strict=True)]
        return (powers[split] + powers.sum(factor)) * monic(quotient) + monic(remainder)

    def powers_of(part: list[Fraction]) -> Expression:
        part = list(trimmed(part))
        if len(part) <= width + 1:
            return powers.sum(part)
        if len(part) <= 2 * width or not part[-1]:
            return powers.sum(part[width:]) * powers[width] + powers.sum(part[:width])
        return monic([c / part[-1] for c in part]) * constant(part[-1])

    if len(given) <= width + 1:
        return powers.sum(given)
    return monic([c / leading for c in given]) * constant(leading)


def divide(
    dividend: Sequence[Fraction], divisor: Sequence[Fraction]
) -> tuple[list[Fraction], list[Fraction]]:
    """Quotient and remainder by a monic polynomial; the remainder has the divisor's length."""
    rest = list(dividend)
    degree = len(divisor) - 1
    quotient = [Fraction(0)] * max(len(rest) - degree, 1)
    for power in range(len(rest) - 1 - degree, -1, -1):
        leading = quotient[power] = rest[power + degree]
        if leading:
            for index, below in enumerate(divisor):
                rest[power + index] -= leading * below
    rest = rest[:degree] + [Fraction(0)] * (degree + 1 - min(len(rest), degree))
    return quotient, rest


def chebyshev_blocks(coefficients: Sequence[Coefficient], t: Expression, width: int) -> Expression:
    """The Chebyshev series with these coefficients in few levels, its coefficients staying small.

    Chebyshev polynomials up to `width` and doublings of it come from ``T[a+b] = 2 T[a] T[b] -
    T[a-b]``; a longer series is ``q T[s] + r``, q and r being series again.  Monomials of degree 45
    and more have coefficients that no float can hold; these do not.

    Args:
        coefficients: of ``T[0]``, ``T[1]``, ...
        t: with values in about [-1, 1].
        width: length of the series that are summed directly; a power of two is best.
    """
    known: dict[int, Expression] = {0: constant(1), 1: t}

    def chebyshev(index: int) -> Expression:
        if index not in known:
            half = index // 2
            a, b = chebyshev(index - half), chebyshev(half)
            known[index] = (a + a) * b - chebyshev(index - 2 * half)
        return known[index]

    def join(part: list[Fraction]) -> Expression:
        if len(part) <= width:
            result = constant(0)
            for index in range(len(part) - 1, 0, -1):
                if part[index]:
                    result = result + chebyshev(index) * constant(part[index])
            return result + constant(part[0])
        split = width
        while 2 * split < len(part):
            split *= 2
        quotient = [part[split], *(2 * c for c in part[split + 1 :])]
        rest = part[:split]
        for offset, reflected in enumerate(part[split + 1 :], start=1):
            rest[split - offset] -= reflected
        return join(quotient) * chebyshev(split) + join(rest)

    return join([Fraction(c) for c in trimmed(coefficients)])


def polynomial_builders(
    degree: int, *, preprocessed: bool = False
) -> Iterator[tuple[str, Builder]]:
    """Every form for polynomials of this degree, by name; Horner comes first.

    Args:
        degree: of the polynomial.
        preprocessed: also `paterson_stockmeyer`, whose constants are not the coefficients.
    """
    yield "horner", horner
    if degree >= 2:
        yield "even_odd", even_odd
    if degree >= 3:
        yield "estrin", _with_width(blocks, 2)
    widest = min(degree - 1, 2 * math.isqrt(degree) + 2)
    for width in range(3, widest + 1):
        yield f"blocks({width})", _with_width(blocks, width)
    for width in range(2, widest + 1):
        yield f"giant_steps({width})", _with_width(giant_steps, width)
    if preprocessed:
        for width in range(1, widest + 1):
            if degree > width + 1:
                yield f"paterson_stockmeyer({width})", _with_width(paterson_stockmeyer, width)


def _with_width(
    form: Callable[[Sequence[Coefficient], Expression, int], Expression], width: int
) -> Builder:
    return lambda coefficients, t: form(coefficients, t, width)


def trimmed(coefficients: Sequence[C]) -> Sequence[C]:
    """Without zeros at the end, but never empty."""
    length = len(coefficients)
    while length > 1 and not coefficients[length - 1]:
        length -= 1
    return coefficients[:length]
