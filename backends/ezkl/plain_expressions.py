"""Expressions for circuits whose numbers all have one scale, to which EZKL rounds every product.

It rounds constants, too: the form with the fewest products of a GELU ends in a factor of 1.5e-5,
which is 0 at a scale of 14 bits, and the witness was off by 0.11 at all scales.  So an expression
is tried in EZKL's arithmetic before it is taken, and polynomials also in x divided by a power of
two, which costs nothing there and makes all coefficients of a size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations import approximate
from odp.approximations.algebra import OperatorAlgebra
from odp.approximations.approximant import Approximant
from odp.approximations.arithmetic import FLOAT32, round_constants
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression
from odp.approximations.functions.registry import get_function
from odp.approximations.interval import Interval
from odp.approximations.target import TARGETS
from odp.backends.ezkl.expressions import lowest_degree
from odp.rewriter.calibration import Observation
from odp.rewriter.report import Skipped
from odp.rewriter.selection import Choice, Defaults, Selection, domain_of, mask_value_for
from odp.rewriter.site import Site

__all__ = ["error_at_scale", "select_for_scale", "with_even_coefficients"]

Array = NDArray[Any]

# Beyond that an expression says nothing about a weight of a softmax, the largest of which is 1.
_LARGEST_ERROR = 0.1
# Roundings on top of the error of the expression; the witness decides in the end.
_ROUNDED = 2.0
_POINTS = 1025


def select_for_scale(scale: int, native: Collection[str] = ()) -> Callable[..., Selection]:
    """A selector of expressions for numbers of one scale; nothing is clipped.

    A budget that roundings exceed is doubled until there is an expression: what the witness is off
    by in the end is measured.  What has none stays native, for which EZKL has tables.

    Args:
        scale: bits after the point.
        native: functions that stay as they are.
    """
    return partial(_select, scale=scale, native=native)


def _select(
    sites: Mapping[str, Site],
    observations: Mapping[str, Observation],
    defaults: Defaults,
    *,
    scale: int,
    native: Collection[str],
) -> Selection:
    selection = Selection({}, {}, [], mask_value_for(sites, observations))
    for site_id, site in sites.items():
        if site.function in native:
            continue
        try:
            approximant = _chosen(site, observations[site_id], defaults, selection, scale)
        except ApproximationError as error:
            selection.skipped[site_id] = Skipped(site.node, site.function, str(error))
            continue
        selection.choices[site_id] = Choice(approximant, "none", None, None)
    return selection


def _chosen(
    site: Site, seen: Observation, defaults: Defaults, selection: Selection, scale: int
) -> Approximant:
    options, function = site.request.rewrite, get_function(site.function)
    domain = domain_of(site, seen, defaults, selection.mask_value)
    parameters: dict[str, Any] = dict(options.scheme_parameters())
    if options.scheme is not None or options.formula is not None:
        # An expression that is spelled out is wanted whatever scales do to it.
        return approximate(
            function,
            domain,
            error=options.error if options.error is not None else math.inf,
            scheme=options.scheme,
            formula=options.formula,
            **parameters,
        )
    relative = function.relative or (function.name == "exp" and domain.hi > 1.0)
    budget = options.error if options.error is not None else defaults.error
    while budget <= _LARGEST_ERROR:
        cost = TARGETS["ezkl"].cost
        candidates = _candidates(site.function, domain, budget, relative)
        for one in sorted(candidates, key=lambda c: cost(c.expression.counts)):
            if error_at_scale(one, scale, relative) <= _ROUNDED * budget:
                return one
        budget *= 2.0
    raise ApproximationError(f"no expression for {site.function} survives a scale of {scale} bits")


def _candidates(
    name: str, domain: Interval, budget: float, relative: bool
) -> Iterator[Approximant]:
    try:
        cheapest = approximate(name, domain, error=budget, relative=relative, target="ezkl")
    except ApproximationError:
        return
    yield cheapest
    polynomial: Approximant | None = cheapest
    if cheapest.counts.divisions:
        try:
            polynomial = lowest_degree(name, domain, budget, relative)
        except ApproximationError:
            return
    assert polynomial is not None
    yield with_even_coefficients(polynomial)


# Polynomials


class _Polynomial:
    """Coefficients that Python's operators work on, exact."""

    def __init__(self, coefficients: list[Fraction]) -> None:
        self.coefficients = coefficients

    def __add__(self, other: _Polynomial) -> _Polynomial:
        return self._with(other, 1)

    def __sub__(self, other: _Polynomial) -> _Polynomial:
        return self._with(other, -1)

    def _with(self, other: _Polynomial, sign: int) -> _Polynomial:
        result = [Fraction(0)] * max(len(self.coefficients), len(other.coefficients))
        for power, value in enumerate(self.coefficients):
            result[power] += value
        for power, value in enumerate(other.coefficients):
            result[power] += sign * value
        return _Polynomial(result)

    def __mul__(self, other: _Polynomial) -> _Polynomial:
        result = [Fraction(0)] * (len(self.coefficients) + len(other.coefficients) - 1)
        for i, a in enumerate(self.coefficients):
            for j, b in enumerate(other.coefficients):
                result[i + j] += a * b
        return _Polynomial(result)


def with_even_coefficients(approximant: Approximant) -> Approximant:
    """The same polynomial by Horner's rule in x divided by a power of two that covers its domain.

    Args:
        approximant: without a division.
    """
    algebra = OperatorAlgebra(lambda value: _Polynomial([value]))
    x = _Polynomial([Fraction(0), Fraction(1)])
    found = approximant.expression.emit(algebra, x=x).coefficients
    domain = approximant.domain
    size = Fraction(2) ** math.ceil(math.log2(max(abs(domain.lo), abs(domain.hi))))
    coefficients = [value * size**power for power, value in enumerate(found)]
    u = Expression.variable("x") * Expression.constant(1 / size)
    return replace(
        approximant,
        expression=round_constants(_horner(coefficients, u), FLOAT32),
        description=f"{approximant.description}, by Horner's rule in x/{float(size):g}",
        # The proof was for other constants, which differ in the last bit of float32.
        error_kind="measured",
    )


def _horner(coefficients: list[Fraction], u: Expression) -> Expression:
    odd, even = coefficients[1::2], coefficients[2::2]
    if not any(even) and len(odd) > 1:
        return u * _horner_of(odd, u * u) + Expression.constant(coefficients[0])
    if not any(odd) and even:
        return _horner_of(coefficients[::2], u * u)
    return _horner_of(coefficients, u)


def _horner_of(coefficients: list[Fraction], u: Expression) -> Expression:
    last = max((i for i, value in enumerate(coefficients) if value), default=0)
    result = Expression.constant(coefficients[last])
    for value in reversed(coefficients[:last]):
        result = result * u + Expression.constant(value) if value else result * u
    return result


# EZKL's arithmetic


@dataclass(frozen=True)
class _Rounded:
    """Numbers at a scale that Python's operators work on as EZKL does."""

    values: Array
    scale: int
    free: bool = False

    def __add__(self, other: _Rounded) -> _Rounded:
        return _Rounded(self.values + other.values, self.scale)

    def __sub__(self, other: _Rounded) -> _Rounded:
        return _Rounded(self.values - other.values, self.scale)

    def __mul__(self, other: _Rounded) -> _Rounded:
        product = self.values * other.values
        # Only the label moves where a power of two divides.
        is_free = self.free or other.free
        return _Rounded(product if is_free else _rounded(product, self.scale), self.scale)

    def __truediv__(self, other: _Rounded) -> _Rounded:
        with np.errstate(divide="ignore"):
            inverse = _rounded(1.0 / other.values, self.scale)
        return self * _Rounded(inverse, self.scale)


def _rounded(values: Array, scale: int) -> Array:
    return np.ldexp(np.rint(np.ldexp(values, scale)), -scale)


def error_at_scale(approximant: Approximant, scale: int, relative: bool) -> float:
    """Largest error on a grid when all numbers have one scale, as EZKL computes.

    Args:
        approximant: any.
        scale: bits after the point.
        relative: whether the error is relative.
    """

    def constant(value: Fraction) -> _Rounded:
        free = 0 < value < 1 and value.numerator == 1 and value.denominator.bit_count() == 1
        number = np.array(float(value))
        return _Rounded(number if free else _rounded(number, scale), scale, free)

    domain = approximant.domain
    points = _rounded(np.linspace(domain.lo, domain.hi, _POINTS), scale)
    points = np.unique(np.clip(points, domain.lo, domain.hi))
    found = approximant.expression.emit(OperatorAlgebra(constant), x=_Rounded(points, scale))
    exact = np.asarray(approximant.function.numpy(points), np.float64)
    with np.errstate(invalid="ignore"):
        error = np.abs(found.values - exact)
    if relative:
        error = error / np.abs(exact)
    return float(np.nan_to_num(error, nan=math.inf, posinf=math.inf).max())
