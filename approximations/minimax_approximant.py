"""`minimax`: the best polynomial or rational function of a given type, with a proof.

The search (`approximate`) asks which type is cheapest for an error; here the type is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.approximant import Approximant
from odp.approximations.arithmetic import CoefficientRangeError, round_constants
from odp.approximations.choose import checked_domain
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression
from odp.approximations.fits.exact_coefficients import exact_coefficients
from odp.approximations.fits.fit_problem import Parity, TypeFit
from odp.approximations.fits.minimax_fit import CONVERGED, FINE_POINTS, fit_type
from odp.approximations.fits.remez import alternation
from odp.approximations.functions.function import Function
from odp.approximations.functions.registry import get_function
from odp.approximations.interval import Interval
from odp.approximations.longer_proof import longer_proof
from odp.approximations.measure import Measurement, measure, measurement_grid
from odp.approximations.schemes import Candidate, Request
from odp.approximations.schemes.rational_function import RationalProblem
from odp.approximations.search import Search, SearchProblem
from odp.approximations.target import Target, get_target
from odp.approximations.tolerance import Histogram, Tolerance

__all__ = ["MinimaxApproximant", "MinimaxFit", "minimax"]

Array = NDArray[np.float64]
Weight = Callable[[Array], Any] | str | Histogram
Number = int | float | Fraction

_LARGEST_DEGREE = 64
# A form of evaluation that loses less than this by rounding its coefficients is good enough.
_CLOSE = 1.001


@dataclass(frozen=True)
class MinimaxFit:
    """A fit before its coefficients were rounded for a target.

    Attributes:
        numerator: exact ascending coefficients of powers of x.
        denominator: likewise; ``(1,)`` for a polynomial.
        error: largest weighted error, at 2400 points or more.
        bound: no function of this type has a smaller one (de la Vallee Poussin's, in floating
            point: a number, not a proof); 0 where nothing is known.
        extrema: points at which the weighted error alternates in sign, ascending; a minimax fit has
            one more than it has free coefficients, with one height.
    """

    numerator: tuple[Fraction, ...]
    denominator: tuple[Fraction, ...]
    error: float
    bound: float
    extrema: tuple[float, ...]

    @property
    def is_minimax(self) -> bool:
        """Whether nothing of this type is better by more than 1 %.

        False means that this was not shown: where the error is within a few roundings of float64
        it cannot be.
        """
        return self.error <= CONVERGED * self.bound


@dataclass(frozen=True, repr=False)
class MinimaxApproximant(Approximant):
    """An approximant with the fit that it was rounded from.

    Attributes:
        fit: coefficients, extrema and the bound for all functions of this type.
    """

    fit: MinimaxFit = field(kw_only=True)


def minimax(
    function: str | Function,
    domain: Interval | tuple[float, float],
    degree: int | tuple[int, int],
    *,
    relative: bool = False,
    weight: Weight | None = None,
    parity: str | None = None,
    fixed: Mapping[int, Number] | None = None,
    target: str | Target = "float64",
) -> MinimaxApproximant:
    """The polynomial or rational function of a type with the smallest largest error on a domain.

    Args:
        function: a registered name, an expression of one variable, or a Function.
        domain: finite bounds, lower below upper.
        degree: degree in x of a polynomial, or a pair (m, n) for numerator and denominator.  Where
            ``f(x) - c`` is odd or ``f(x) - s x`` even and 0 is in the domain, the fit has that
            symmetry, as the best one has, and ``c`` or ``s x`` comes on top of the type.
        relative: whether the relative error is minimised.
        weight: positive weight of the error: a function of an array of points, an expression in
            ``x`` as text, or a `Histogram` of inputs.  The proven errors are without it.
        parity: ``"odd"`` or ``"even"`` demand a symmetry also where 0 is not in the domain;
            ``"none"`` forbids the use of one; None uses the one that there is.
        fixed: coefficients by their power of x: ``{0: 1}`` makes the value at 0 exactly 1.  Of a
            rational function only the value at 0 can be fixed.
        target: whose numbers the coefficients are rounded to; its costs choose the form of
            evaluation among those that keep the error.

    Returns:
        The approximant; its `fit` has the coefficients before rounding, the extrema and the bound.

    Raises:
        ApproximationError: one line, for an argument that cannot be used, a relative error at a
            zero, or a type without a fit that is finite on the domain.

    >>> a = minimax("exp", (-1, 1), 5)
    >>> round(a.absolute_error, 7), a.fit.is_minimax, len(a.fit.extrema)
    (4.52e-05, True, 7)
    >>> float(minimax("exp", (-1, 1), 5, fixed={0: 1})(0.0))
    1.0
    """
    chosen = get_function(function)
    interval = checked_domain(domain)
    chosen.check_domain(interval)
    place = get_target(target)
    where = f"minimax of {chosen.name} on {interval}"
    m, n = _checked_type(degree, where)
    # No budget: the proof is to be as close to the error seen as any.
    tolerance = Tolerance(relative=math.inf) if relative else Tolerance(absolute=math.inf)
    request = Request(chosen, interval, math.inf, relative, target=place)
    weigh = _checked_weight(weight, where, interval)
    if relative and chosen.parity != "odd" and measurement_grid(chosen, interval).has_zero:
        raise ApproximationError(
            f"{where}: the function has a zero there, so a relative error has no maximum;"
            " minimise the absolute error or give a weight"
        )
    problem = RationalProblem(
        request,
        parity=_checked_parity(parity, where),
        fixed=_checked_fixed(fixed, where),
        weigh=lambda x, values: request.weigh(x, values) * weigh(x),
    )
    if problem.odd and m == 0:
        # No odd function is left but zero; a constant is.
        problem = RationalProblem(
            request,
            parity="none",
            fixed=_checked_fixed(fixed, where),
            weigh=lambda x, values: request.weigh(x, values) * weigh(x),
        )
    in_u = ((m - problem.odd) // 2, n // 2) if problem.symmetric else (m, n)
    fit = fit_type(problem, *in_u, thorough=True)
    if fit is None:
        raise ApproximationError(
            f"{where}: no function of type ({m},{n}) that is finite there was found;"
            " try another type, or a domain further from the function's singularities"
        )
    candidate, measured = _best_form(problem, fit, weigh, place, where)
    found = Search(
        SearchProblem(chosen, interval, tolerance, place, ("minimax",), candidate.parameters)
    )
    found.best = (candidate, measured, "minimax")
    proven = longer_proof(found.result())
    return MinimaxApproximant(**vars(replace(proven, tolerance=None)), fit=_exact(problem, fit))


def _exact(problem: RationalProblem, fit: TypeFit) -> MinimaxFit:
    numerator, denominator = exact_coefficients(problem, fit)
    system = problem.system(fit.m, fit.n, fit.scale, FINE_POINTS)
    extrema: tuple[float, ...] = ()
    if system is not None:
        peaks = alternation(system.error(fit.numerator, fit.denominator), system.reference_size)
        points = problem.points(fit, FINE_POINTS)[peaks]
        extrema = tuple(sorted(points.tolist()))
    return MinimaxFit(numerator, denominator, fit.error, fit.bound, extrema)


def _best_form(
    problem: RationalProblem,
    fit: TypeFit,
    weigh: Callable[[Array], Array],
    target: Target,
    where: str,
) -> tuple[Candidate, Measurement]:
    """The cheapest form of evaluation whose rounded coefficients keep the error of the fit."""
    request = problem.request
    forms = problem.rationals if fit.n else problem.polynomials
    measured = []
    for candidate in _rounded(forms(fit, request, "minimax"), target):
        measurement = measure(candidate.expression, problem.function, problem.domain)
        error = _weighted_error(candidate.expression, problem, weigh)
        if math.isfinite(error) and math.isfinite(measurement.error(request.relative)):
            cost = target.cost(candidate.expression.counts)
            measured.append((cost, error, candidate, measurement))
    if not measured:
        raise ApproximationError(
            f"{where}: the coefficients of this type are out of the range of {target.name};"
            " narrow the domain or lower the degree"
        )
    limit = _CLOSE * min(error for _, error, _, _ in measured)
    *_, candidate, measurement = min(
        (entry for entry in measured if entry[1] <= limit), key=lambda entry: entry[:2]
    )
    return candidate, measurement


def _rounded(candidates: Iterator[Candidate], target: Target) -> Iterator[Candidate]:
    from odp.approximations.arithmetic import FLOAT64, FloatArithmetic

    arithmetic = target.arithmetic
    if not isinstance(arithmetic, FloatArithmetic):
        arithmetic = FLOAT64
    for candidate in candidates:
        try:
            yield replace(candidate, expression=round_constants(candidate.expression, arithmetic))
        except CoefficientRangeError:
            continue


def _weighted_error(
    expression: Expression, problem: RationalProblem, weigh: Callable[[Array], Array]
) -> float:
    grid = measurement_grid(problem.function, problem.domain)
    with np.errstate(all="ignore"):
        value = expression(grid.points) if expression.variables else float(expression.value)
        weight = problem.request.weigh(grid.points, grid.reference) * weigh(grid.points)
        error = np.abs(value - grid.reference) * weight
    # A relative error at a common zero of an odd function is 0/0 there.
    return float(error[~np.isnan(error)].max()) if not np.isnan(error).all() else math.inf


def _checked_type(degree: Any, where: str) -> tuple[int, int]:
    pair = degree if isinstance(degree, tuple) else (degree, 0)
    whole = all(isinstance(d, int) and not isinstance(d, bool) for d in pair)
    if len(pair) != 2 or not whole or not all(0 <= d <= _LARGEST_DEGREE for d in pair):
        raise ApproximationError(
            f"{where}: a degree is a whole number from 0 to {_LARGEST_DEGREE}, or a pair of them"
            f" for numerator and denominator, not {degree!r}"
        )
    return int(pair[0]), int(pair[1])


def _checked_parity(parity: Any, where: str) -> Parity:
    known: dict[Any, Parity] = {None: "auto", "none": "none", "odd": "odd", "even": "even"}
    if not isinstance(parity, str | None) or parity not in known:
        raise ApproximationError(
            f"{where}: parity is 'odd', 'even', 'none' or None, not {parity!r}"
        )
    return known[parity]


def _checked_fixed(fixed: Any, where: str) -> dict[int, Fraction]:
    try:
        return {power: Fraction(value) for power, value in (fixed or {}).items()}
    except (TypeError, ValueError, OverflowError, AttributeError):
        raise ApproximationError(
            f"{where}: fixed coefficients are finite numbers by power of x, as in {{0: 1}},"
            f" not {fixed!r}"
        ) from None


def _checked_weight(weight: Any, where: str, domain: Interval) -> Callable[[Array], Array]:
    """The weight as a function of an array of points; checked to be positive and finite."""
    if weight is None:
        return np.ones_like
    if isinstance(weight, Histogram):
        return weight.weight
    if isinstance(weight, str):
        text = get_function(weight)
        evaluate: Callable[[Array], Any] = text.numpy
    elif callable(weight):
        evaluate = weight
    else:
        raise ApproximationError(
            f"{where}: a weight is a function of x, an expression as text or a Histogram,"
            f" not {weight!r}"
        )

    def checked(x: Array) -> Array:
        try:
            values = np.broadcast_to(np.asarray(evaluate(x), dtype=np.float64), x.shape)
        except (TypeError, ValueError, ArithmeticError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ApproximationError(
                f"{where}: the weight is no function of an array of points ({reason})"
            ) from None
        inside = values[(x >= domain.lo) & (x <= domain.hi)]
        if not (np.isfinite(inside).all() and (inside > 0).all()):
            raise ApproximationError(
                f"{where}: a weight must be positive and finite on the whole domain"
            )
        return values

    return checked
