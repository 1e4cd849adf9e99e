"""The form of evaluation is part of the answer: the forms of polynomials and rational functions.

`polynomial_forms` and `rational_forms` give them all, `cheapest_forms` those that cost a target
least.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

from odp.approximations.arithmetic import CoefficientRangeError
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression, constant, variable
from odp.approximations.forms.polynomial_forms import (
    Builder,
    Coefficient,
    chebyshev_blocks,
    divide,
    polynomial_builders,
    trimmed,
)
from odp.approximations.forms.polynomials import clenshaw, horner
from odp.approximations.forms.preprocessed_forms import preprocessed_forms
from odp.approximations.target import Target

__all__ = ["by_cost", "cheapest_forms", "chebyshev_forms", "polynomial_forms", "rational_forms"]

Form = tuple[str, Expression]
_Polynomial = Sequence[Coefficient]
_RationalBuilder = Callable[["_Quotient", Expression], Expression]


class _Quotient:
    """``p/q`` with a monic q, and ``whole + rest/q`` with a rest of smaller degree than q.

    Raises:
        ApproximationError: if q is zero.
        CoefficientRangeError: if a coefficient is not finite.
    """

    def __init__(self, numerator: _Polynomial, denominator: _Polynomial) -> None:
        above, below = _checked(numerator), _checked(denominator)
        leading = Fraction(below[-1])
        if not leading:
            raise ApproximationError("the denominator of a rational function is zero")
        self.q = [Fraction(c) / leading for c in below]
        self.p = [Fraction(c) / leading for c in above]
        self.improper = len(self.p) >= len(self.q)
        self.whole, self.rest = [Fraction(0)], self.p
        if self.improper:
            quotient, remainder = divide(self.p, self.q)
            self.whole, self.rest = list(trimmed(quotient)), list(trimmed(remainder))

    @property
    def shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return _shape(self.p), _shape(self.q)


def polynomial_forms(
    coefficients: Sequence[Coefficient],
    t: Expression,
    *,
    preprocessed: bool = False,
    radius: float = 1.0,
) -> Iterator[Form]:
    """All forms of evaluation of one polynomial, Horner first.

    Args:
        coefficients: ascending; floats or fractions, taken as exact.
        t: the variable, any expression.
        preprocessed: also those that replace the coefficients by other constants, which may cancel
            in the evaluation; see `preprocessed_forms` and `paterson_stockmeyer`.
        radius: largest ``|t|``, where `preprocessed` compares.

    Yields:
        Name and expression.

    >>> x = variable("x")
    >>> [name for name, _ in polynomial_forms([1.0, 2.0, 3.0], x)]
    ['horner', 'even_odd']
    """
    given = _checked(coefficients)
    for name, build in polynomial_builders(len(given) - 1, preprocessed=preprocessed):
        yield name, build(given, t)
    if preprocessed:
        yield from preprocessed_forms(given, t, radius)


def chebyshev_forms(coefficients: Sequence[Coefficient], t: Expression) -> Iterator[Form]:
    """All forms of evaluation of a Chebyshev series in t on [-1, 1], Clenshaw's first.

    Args:
        coefficients: of T[0], T[1], ...; floats or fractions, taken as exact.
        t: the variable.
    """
    given = _checked(coefficients)
    yield "clenshaw", clenshaw(given, t)
    width = 2
    while width < len(given):
        yield f"chebyshev_blocks({width})", chebyshev_blocks(given, t, width)
        width *= 2


def rational_forms(
    numerator: Sequence[Coefficient],
    denominator: Sequence[Coefficient],
    t: Expression,
    *,
    preprocessed: bool = False,
    radius: float = 1.0,
) -> Iterator[Form]:
    """All forms of evaluation of ``p(t) / q(t)``, Horner in both first.

    The denominator is monic, which saves a multiplication.  Both polynomials use the same form and
    so share the powers of t.  Where p has no smaller degree than q, ``s + r/q`` with the polynomial
    part divided out has one multiplication less than ``p/q``.

    Args:
        numerator: ascending; floats or fractions, taken as exact.
        denominator: likewise, of degree 1 at least.
        t: the variable, any expression.
        preprocessed: as in `polynomial_forms`; also the continued fraction, which divides as often
            as the degree of the denominator and hardly multiplies.
        radius: largest ``|t|``.

    Yields:
        Name and expression.
    """
    quotient = _Quotient(numerator, denominator)
    for name, build in _rational_builders(quotient, preprocessed=preprocessed).items():
        yield name, build(quotient, t)
    if preprocessed:
        yield from _preprocessed_quotients(quotient, t, radius)


def _rational_builders(quotient: _Quotient, *, preprocessed: bool) -> dict[str, _RationalBuilder]:
    """The forms that depend only on which coefficients are 0 or 1."""
    builders: dict[str, _RationalBuilder] = {}
    largest = max(len(quotient.p), len(quotient.q)) - 1
    for name, build in polynomial_builders(largest, preprocessed=preprocessed):
        builders[name] = _over(build)
        if quotient.improper:
            builders[f"{name}, remainder"] = _with_remainder(build)
    if preprocessed:
        builders["continued_fraction"] = _continued_fraction
    return builders


def _over(build: Builder) -> _RationalBuilder:
    return lambda quotient, t: build(quotient.p, t) / build(quotient.q, t)


def _with_remainder(build: Builder) -> _RationalBuilder:
    return lambda quotient, t: (
        build(quotient.rest, t) / build(quotient.q, t) + build(quotient.whole, t)
    )


def _continued_fraction(quotient: _Quotient, t: Expression) -> Expression:
    """``w0 + c1/(w1 + c2/(w2 + ...))`` by Euclid's algorithm; the w after the first are monic."""
    steps: list[tuple[list[Fraction], Fraction]] = []
    above, below, whole, rest = quotient.p, quotient.q, quotient.whole, quotient.rest
    while any(rest):
        leading = rest[-1]
        steps.append((whole, leading))
        above, below = below, [c / leading for c in rest]
        divided, remainder = divide(above, below)
        whole, rest = list(trimmed(divided)), list(trimmed(remainder))
    result = horner(whole, t)
    for whole, leading in reversed(steps):
        result = constant(leading) / result + horner(whole, t)
    return result


def _preprocessed_quotients(quotient: _Quotient, t: Expression, radius: float) -> Iterator[Form]:
    """Numerator and denominator in a preprocessed form where there is one, else in Horner's."""
    q = quotient.q
    below = dict(preprocessed_forms(q, t, radius))
    variants = [("", quotient.p, constant(0))]
    if quotient.improper:
        variants.append((", remainder", quotient.rest, horner(quotient.whole, t)))
    for suffix, p, whole in variants:
        above = dict(preprocessed_forms(p, t, radius))
        for name in above | below:
            top, bottom = above.get(name), below.get(name)
            value = (top or horner(p, t)) / (bottom or horner(q, t))
            yield name + suffix, value + whole


def cheapest_forms(
    coefficients: Sequence[Coefficient],
    t: Expression,
    target: Target,
    *,
    denominator: Sequence[Coefficient] | None = None,
    limit: int = 3,
    preprocessed: bool = False,
    radius: float = 1.0,
) -> list[Form]:
    """The cheapest forms of a polynomial, or of a rational function, for a target.

    Only those are built that a ranking of the shape (which coefficients are 0 or 1) puts first; the
    ranking of a shape is made once.

    Args:
        coefficients: of the polynomial or the numerator, ascending.
        t: the variable.
        target: whose costs decide; ties go to fewer additions, then to less depth.
        denominator: of a rational function.
        limit: how many at most.
        preprocessed: also forms with new constants; see `polynomial_forms`.
        radius: largest ``|t|``.

    Returns:
        Names and expressions, cheapest first; forms that the target cannot compute are left out.

    >>> from odp.approximations.target import get_target
    >>> cheapest_forms([1.0, 2.0, 3.0], variable("x"), get_target("float32"), limit=1)
    [('horner', Expression((3 * x + 2) * x + 1))]
    """
    if denominator is None:
        given = _checked(coefficients)
        names = _polynomial_ranking(_shape(given), target, preprocessed)[:limit]
        builders = dict(polynomial_builders(len(given) - 1, preprocessed=preprocessed))
        built = [(name, builders[name](given, t)) for name in names]
        if preprocessed:
            built.extend(preprocessed_forms(given, t, radius))
        return by_cost(built, target)[:limit]
    quotient = _Quotient(coefficients, denominator)
    names = _rational_ranking(*quotient.shape, target, preprocessed)[:limit]
    rational = _rational_builders(quotient, preprocessed=preprocessed)
    built = [(name, rational[name](quotient, t)) for name in names]
    if preprocessed:
        built.extend(_preprocessed_quotients(quotient, t, radius))
    return by_cost(built, target)[:limit]


def by_cost(forms: Iterable[Form], target: Target) -> list[Form]:
    """Those forms that the target can compute, cheapest first, every expression once."""
    ranked: dict[Expression, tuple[tuple[float, int, int], str]] = {}
    for name, expression in forms:
        counts = expression.counts
        cost = target.cost(counts)
        if cost < math.inf:
            ranked.setdefault(expression, ((cost, counts.additions, counts.depth), name))
    # The order among equals stays: Horner comes first.
    best = sorted(ranked.items(), key=lambda item: item[1][0])
    return [(name, expression) for expression, (_, name) in best]


def _checked(coefficients: _Polynomial) -> _Polynomial:
    """Coefficients without zeros at the end.

    Raises:
        CoefficientRangeError: if one is not finite.
    """
    for given in coefficients:
        if isinstance(given, float) and not math.isfinite(given):
            raise CoefficientRangeError(f"{given:g} cannot be a coefficient")
    return trimmed(coefficients)


def _shape(coefficients: _Polynomial) -> tuple[int, ...]:
    """0 and 1 where a coefficient is that, 2 elsewhere: all that the cost depends on."""
    return tuple(int(c) if c in (0, 1) else 2 for c in coefficients)


def _example(shape: tuple[int, ...], seed: int = 0) -> list[Fraction]:
    """Coefficients of that shape without any relation between them."""
    source = random.Random(seed)
    return [
        Fraction(source.randint(10**6, 10**7), 999983) if k == 2 else Fraction(k) for k in shape
    ]


@lru_cache(maxsize=1024)
def _polynomial_ranking(
    shape: tuple[int, ...], target: Target, preprocessed: bool
) -> tuple[str, ...]:
    """Names of the forms for a shape, cheapest first."""
    t, example = variable("t"), _example(shape)
    builders = polynomial_builders(len(shape) - 1, preprocessed=preprocessed)
    return tuple(name for name, _ in by_cost([(n, b(example, t)) for n, b in builders], target))


@lru_cache(maxsize=1024)
def _rational_ranking(
    above: tuple[int, ...], below: tuple[int, ...], target: Target, preprocessed: bool
) -> tuple[str, ...]:
    """Names of the forms for shapes of numerator and denominator, cheapest first."""
    t, quotient = variable("t"), _Quotient(_example(above), _example(below, 1))
    builders = _rational_builders(quotient, preprocessed=preprocessed)
    forms = [(name, build(quotient, t)) for name, build in builders.items()]
    return tuple(name for name, _ in by_cost(forms, target))
