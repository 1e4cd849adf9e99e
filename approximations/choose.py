"""The choice: the cheapest expression over all schemes that meets an error budget on a target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from numbers import Real

from odp.approximations import cache
from odp.approximations.approximant import Approximant, Parameters, ParameterValue
from odp.approximations.arithmetic import FixedPointArithmetic
from odp.approximations.errors import ApproximationError
from odp.approximations.formula_approximant import FORMULA, check_formula, formula_approximant
from odp.approximations.functions.function import Function
from odp.approximations.functions.registry import get_function
from odp.approximations.interval import Interval
from odp.approximations.measure import measurement_grid
from odp.approximations.schemes import SCHEMES
from odp.approximations.search import (
    SearchProblem,
    check_parameters,
    check_scheme,
    find_scheme,
    search,
)
from odp.approximations.target import Target, get_target
from odp.approximations.tolerance import Histogram, Tolerance

__all__ = ["approximate", "checked_domain", "checked_tolerance"]

_DEFAULT_ERROR = 1e-5

# A proof is a little above the largest error seen; the other tries are for the rare expression
# whose largest error lies between the points that were looked at.
_MARGINS = (1 - 2.0**-10, 0.9, 0.5)
# Errors asked for one after the other when the operations are given: a factor of 4 is about one
# multiplication; then a little less than what was found, until there is nothing.
_STEP = 4.0
_SHARPER = 1 - 1e-6

Error = float | tuple[float, float, float] | Tolerance


def approximate(
    function: str | Function,
    domain: Interval | tuple[float, float],
    *,
    error: Error | None = None,
    operations: float | None = None,
    relative: bool | None = None,
    target: str | Target = "float32",
    histogram: Histogram | None = None,
    scheme: str | None = None,
    formula: str | None = None,
    **parameters: ParameterValue,
) -> Approximant:
    """The cheapest rational expression for a function on a domain within an error budget.

    Candidates are measured on a dense grid against the function, with all coefficients already
    rounded to the target's numbers; for float32 they must also keep the budget when evaluated in
    float32, down to a floor of a few roundings.  The errors of the chosen one are then proven
    where that takes at most about half a second (`Approximant.error_kind`).

    Args:
        function: a registered name (``exp``, ``rsqrt``, ``pow(0.75)``, ...), an expression of one
            variable (``x*exp(-x**2)``) or a Function.
        domain: where the error must hold; finite bounds, lower below upper.
        error: largest error, absolute or relative as `relative` says; or a `Tolerance`, or its
            three parts (absolute, relative, float32 ulps), which are added.  Infinity asks only
            for the cheapest (with fixed parameters, for exactly that) expression.  Default 1e-5,
            on integers 1.1 times what rounding the result alone costs.
        operations: instead of `error`: the largest cost on the target (for ``float32``,
            multiplications plus three times the divisions); the smallest error wins.
        relative: whether `error` is relative.  None means as the function declares, and relative
            too where `error` is below half an ulp of the largest value on the domain, so that no
            absolute error of that size exists (unless the function has a zero there that no form
            of the expression keeps).
        target: a name from `TARGETS`, which decides the costs and the arithmetic, with
            ``{scale=S,guard=G}`` for integers at scale 2^S; or a `Target`.
        histogram: how frequent inputs are; the budget may be exceeded where they are rare.
        scheme: a name from `SCHEMES`; None lets them compete.
        formula: the expression itself instead of a scheme, to have it measured and proven like any
            other: assignments separated by ``;``, then the result, of numbers, ``x``, names
            assigned before, ``+ - * / **`` (see `formula_expression`).  It is taken whatever its
            error, unless `error` is given.
        **parameters: parameters of that scheme to fix, for example ``degree=5``.

    Returns:
        The approximant; asking again for the same one costs a dictionary lookup, or in another
        process the reading of a small file (see `odp.approximations.cache`).

    Raises:
        ApproximationError: one line, for a bad function, domain, error, target, scheme, parameter
            or formula, or if no expression reaches the error.

    >>> approximate("exp", (-10, 0), error=1e-4).absolute_error <= 1e-4
    True
    >>> approximate("exp", (-10, 0), operations=6).absolute_error < 5e-5
    True
    >>> approximate("exp", (-1, 0), formula="(1+x/8)**8").cost.multiplications
    3
    """
    chosen = get_function(function)
    interval = checked_domain(domain)
    place = get_target(target)
    if formula is not None:
        check_formula(chosen.name, formula, scheme, parameters)
        chosen.check_domain(interval)
        tolerance = _formula_tolerance(
            chosen, interval, error, operations, relative, place, histogram
        )
        spelled = Parameters(**{FORMULA: " ".join(formula.split())})
        return _by_formula(SearchProblem(chosen, interval, tolerance, place, (FORMULA,), spelled))
    if operations is not None:
        if error is not None:
            raise ApproximationError(
                f"{chosen.name}: give an error or a number of operations, not both"
            )
        number = isinstance(operations, Real) and not isinstance(operations, bool)
        if not number or not 0 <= operations < math.inf:
            raise ApproximationError(
                f"{chosen.name}: operations must be zero or a positive number, not {operations!r}"
            )
    if parameters and scheme is None:
        raise ApproximationError(
            f"{chosen.name}: the parameter {next(iter(parameters))!r} needs a scheme;"
            f" name one of {', '.join(SCHEMES)}"
        )
    if scheme is not None:
        check_parameters(find_scheme(scheme), parameters)
    chosen.check_domain(interval)
    tolerance = checked_tolerance(chosen, interval, error, relative, place, histogram)
    if scheme is not None:
        check_scheme(find_scheme(scheme), chosen, interval)
    names = None if scheme is None else (scheme,)
    problem = SearchProblem(chosen, interval, tolerance, place, names, Parameters(**parameters))
    if operations is not None:
        return _within(replace(problem, largest_cost=float(operations)))
    return _approximate(problem)


def _formula_tolerance(
    function: Function,
    domain: Interval,
    error: Error | None,
    operations: float | None,
    relative: bool | None,
    target: Target,
    histogram: Histogram | None,
) -> Tolerance:
    """What error a formula may have: any, unless one is given."""
    if operations is not None:
        raise ApproximationError(
            f"{function.name}: a formula has the operations that it spells out; leave out"
            " operations"
        )
    given = math.inf if error is None else error
    tolerance = checked_tolerance(function, domain, given, relative, target, histogram)
    if math.isfinite(max(tolerance.absolute, tolerance.relative, tolerance.ulps)):
        return tolerance
    if tolerance.histogram is not None:
        raise ApproximationError(
            f"{function.name}: a histogram weighs the error allowed, and a formula is taken"
            " whatever its error; give an error, or leave out the histogram"
        )
    # Of errors without a limit only the kind matters.
    relative_only = tolerance.kind == "relative"
    return Tolerance(relative=math.inf) if relative_only else Tolerance(absolute=math.inf)


def _default_error(
    function: Function, domain: Interval, relative: bool | None, target: Target
) -> float:
    arithmetic = target.arithmetic
    if not isinstance(arithmetic, FixedPointArithmetic):
        return _DEFAULT_ERROR
    from odp.approximations.fixed_point.certified import NEAR_LIMIT, rounding_limit

    kind = function.relative if relative is None else relative
    return NEAR_LIMIT * rounding_limit(function, domain, arithmetic.scale, kind)


def checked_domain(domain: Interval | tuple[float, float]) -> Interval:
    """The domain as an Interval.

    Raises:
        ApproximationError: if it is not one.
    """
    if isinstance(domain, Interval):
        return domain
    try:
        lo, hi = domain
    except (TypeError, ValueError):
        raise ApproximationError(
            f"a domain is an Interval or a pair of numbers, not {domain!r}"
        ) from None
    return Interval(lo, hi)


def checked_tolerance(
    function: Function,
    domain: Interval,
    error: Error | None,
    relative: bool | None,
    target: Target,
    histogram: Histogram | None = None,
) -> Tolerance:
    """The budget that a user's `error` and `relative` mean for a function on a domain.

    Without an error it is 1e-5, on integers 1.1 times what rounding the result alone costs.

    Raises:
        ApproximationError: if the error is not a positive number, a triple or a Tolerance.
    """
    where = f"{function.name} on {domain}"
    if relative not in (None, True, False):
        raise ApproximationError(
            f"{where}: relative is True, False or None (as the function declares), not {relative!r}"
        )
    if not isinstance(histogram, Histogram | None):
        raise ApproximationError(
            f"{where}: a histogram is a Histogram, made by Histogram.of(inputs), not"
            f" {type(histogram).__name__}"
        )
    if error is None:
        error = _default_error(function, domain, relative, target)
    if isinstance(error, Tolerance):
        return replace(error, histogram=histogram) if histogram else error
    if isinstance(error, tuple):
        if len(error) != 3:
            raise ApproximationError(
                f"{where}: an error of several parts is (absolute, relative, ulps), not {error!r}"
            )
        return Tolerance(*error, histogram=histogram)
    number = isinstance(error, Real) and not isinstance(error, bool)
    if not number or math.isnan(error) or error <= 0:
        raise ApproximationError(f"{where}: error must be a positive number, not {error!r}")
    grid = measurement_grid(function, domain)
    odd = function.parity == "odd"
    if relative and grid.has_zero and not odd:
        raise ApproximationError(
            f"{where}: the function has a zero there, so a relative error has no maximum; ask for"
            " an absolute error, or for both as error=(absolute, relative, 0)"
        )
    if relative is None:
        unreachable = error < target.arithmetic.unit_roundoff * grid.scale
        zero_is_kept = odd and 0.0 not in function.singularities
        defined = zero_is_kept or not grid.has_zero
        fixed = isinstance(target.arithmetic, FixedPointArithmetic)
        relative = defined and (function.relative or (unreachable and not fixed))
    parts = {"relative" if relative else "absolute": float(error)}
    return Tolerance(**parts, histogram=histogram)


def _remembered(
    question: str, problem: SearchProblem, answer: Callable[[SearchProblem], Approximant]
) -> Approximant:
    """The answer that is on disk, or a new one."""
    kept = cache.load(problem, question)
    if kept:
        return kept[0]
    found = answer(problem)
    cache.store(problem, question, [found])
    return found


@lru_cache(maxsize=4096)
def _approximate(problem: SearchProblem) -> Approximant:
    return _remembered("cheapest", problem, _cheapest)


@lru_cache(maxsize=1024)
def _within(problem: SearchProblem) -> Approximant:
    return _remembered("sharpest", problem, _sharpest)


@lru_cache(maxsize=1024)
def _by_formula(problem: SearchProblem) -> Approximant:
    return _remembered(FORMULA, problem, formula_approximant)


def _cheapest(problem: SearchProblem) -> Approximant:
    """The cheapest within the budget, whose proof keeps the budget as well."""
    if isinstance(problem.target.arithmetic, FixedPointArithmetic):
        from odp.approximations.fixed_point import answer

        return answer.cheapest(problem)
    mixed = problem.tolerance.kind == "mixed"
    # What keeps a mixed budget may have no proof: half of the budget would be paid for nothing.
    for margin in _MARGINS[:2] if mixed else _MARGINS:
        inside = problem.tolerance.scaled(margin)
        found = search(replace(problem, tolerance=inside))
        if found.best is None:
            # In the user's own numbers, not in those of the margin.
            raise found.failure(problem.tolerance)
        approximant = found.result()
        proven = approximant.error_kind == "certified"
        if proven if mixed else approximant.error <= problem.error:
            break
    if not mixed and approximant.error > problem.error:
        raise ApproximationError(
            f"{problem.function.name} on {problem.domain}: what has {problem.tolerance} at"
            f" {measurement_grid(problem.function, problem.domain).points.size} points has"
            f" {approximant.error:.2g} between them; cut the domain where the function is steep"
        )
    return replace(approximant, tolerance=problem.tolerance)


def _sharpest(problem: SearchProblem) -> Approximant:
    """The smallest error at a cost of at most the problem's largest."""
    if isinstance(problem.target.arithmetic, FixedPointArithmetic):
        from odp.approximations.fixed_point import answer

        return replace(answer.sharpest(problem), tolerance=None)
    shape = problem.tolerance
    start = 1.0 / max(shape.absolute, shape.relative, shape.ulps)
    if shape.kind == "absolute":
        # A function may be zero on all of the domain.
        start *= measurement_grid(problem.function, problem.domain).scale or 1.0
    limited = replace(problem, tolerance=shape.scaled(start))
    best = search(limited)
    if best.best is None:
        raise best.failure()
    while not best.exhausted:
        sharper = limited.tolerance.scaled(best.error_share / _STEP)
        found = search(replace(limited, tolerance=sharper))
        if found.best is None:
            break
        limited, best = found.problem, found
    while not best.exhausted:
        sharper = limited.tolerance.scaled(best.error_share * _SHARPER)
        found = search(replace(limited, tolerance=sharper))
        if found.best is None:
            break
        limited, best = found.problem, found
    # The operations were the budget; of errors only the kind was asked for.
    return replace(best.result(), tolerance=None)
