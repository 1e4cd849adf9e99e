"""The choice: the cheapest expression over all schemes that meets an error budget."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from functools import lru_cache

from odp.approximations.approximant import Approximant, Parameters, ParameterValue
from odp.approximations.certify import certify
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression
from odp.approximations.function import Function
from odp.approximations.functions import get_function
from odp.approximations.interval import Interval
from odp.approximations.measure import (
    UNIT_ROUNDOFF,
    Measurement,
    measure,
    measurement_grid,
    safe_interval,
)
from odp.approximations.schemes import SCHEMES, Candidate, Request, Scheme, default_cost

__all__ = ["approximate", "find_scheme"]


# A proof is a little above the largest error seen; the second try is for the rare expression whose
# largest error lies between the points that were looked at.
_MARGINS = (1 - 2.0**-10, 0.9)


def approximate(
    function: str | Function,
    domain: Interval | tuple[float, float],
    *,
    error: float = 1e-5,
    relative: bool | None = None,
    scheme: str | None = None,
    **parameters: ParameterValue,
) -> Approximant:
    """The cheapest rational expression for a function on a domain within an error budget.

    Cost is multiplications plus three times the divisions.  Candidates are measured on a dense
    grid against the function, with all coefficients already rounded to float32; they must also
    keep the budget when evaluated in float32, down to a floor of a few roundings.  The errors of
    the chosen one are then proven where that takes about a tenth of a second (`error_kind`).

    Args:
        function: a registered name (``exp``, ``rsqrt``, ``pow(0.75)``, ...) or a Function.
        domain: where the error must hold; finite bounds, lower below upper.
        error: largest error; infinity asks only for the cheapest (with fixed parameters, for
            exactly that) expression.
        relative: whether `error` is relative.  None means as the function declares, and relative
            too where `error` is below half an ulp (float32) of the largest value on the domain, so
            that no absolute error of that size exists (unless the function has a zero there that
            no form of the expression keeps).
        scheme: a name from `SCHEMES`; None lets them compete.
        **parameters: parameters of that scheme to fix, for example ``degree=5``.

    Returns:
        The approximant; asking again for the same one costs a dictionary lookup.

    Raises:
        ApproximationError: one line, for a bad domain, error, scheme or parameter, or if no
            expression reaches the error.

    >>> approximate("exp", (-10, 0), error=1e-4).absolute_error <= 1e-4
    True
    """
    chosen = get_function(function) if isinstance(function, str) else function
    interval = _interval(domain)
    if not isinstance(error, (int, float)) or math.isnan(error) or error <= 0:
        raise ApproximationError(
            f"{chosen.name} on {interval}: error must be a positive number, not {error!r}"
        )
    if parameters and scheme is None:
        raise ApproximationError(
            f"{chosen.name}: the parameter {next(iter(parameters))!r} needs a scheme;"
            f" name one of {', '.join(SCHEMES)}"
        )
    if scheme is not None:
        check_parameters(find_scheme(scheme), parameters)
    chosen.check_domain(interval)
    return _approximate(chosen, interval, float(error), relative, scheme, Parameters(**parameters))


def find_scheme(name: str) -> Scheme:
    """The scheme called `name`.

    Raises:
        ApproximationError: for an unknown name.
    """
    if name in SCHEMES:
        return SCHEMES[name]
    near = difflib.get_close_matches(name, SCHEMES, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(SCHEMES)}"
    raise ApproximationError(f"unknown scheme {name!r}: {hint}")


def _interval(domain: Interval | tuple[float, float]) -> Interval:
    if isinstance(domain, Interval):
        return domain
    try:
        lo, hi = domain
    except (TypeError, ValueError):
        raise ApproximationError(
            f"a domain is an Interval or a pair of numbers, not {domain!r}"
        ) from None
    return Interval(lo, hi)


def check_parameters(scheme: Scheme, parameters: Mapping[str, ParameterValue]) -> None:
    """Refuse parameters that a scheme does not have.

    Raises:
        ApproximationError: naming the first one, and those that there are.
    """
    for name in parameters:
        if name not in scheme.parameters:
            raise ApproximationError(
                f"scheme {scheme.name} has no parameter {name!r};"
                f" it has {', '.join(scheme.parameters)}"
            )


@lru_cache(maxsize=4096)
def _approximate(
    function: Function,
    domain: Interval,
    error: float,
    relative: bool | None,
    scheme: str | None,
    parameters: Parameters,
) -> Approximant:
    if scheme is not None and not find_scheme(scheme).applies(function, domain):
        raise ApproximationError(
            f"scheme {scheme} does not apply to {function.name} on {domain};"
            " leave the scheme out to see what does"
        )
    grid = measurement_grid(function, domain)
    if relative is None:
        unreachable = error < UNIT_ROUNDOFF * grid.scale
        zero_is_kept = function.parity == "odd" and 0.0 not in function.singularities
        defined = zero_is_kept or not grid.has_zero
        relative = defined and (function.relative or unreachable)
    names = None if scheme is None else (scheme,)
    for margin in _MARGINS:
        approximant = _search(
            function, domain, error * margin, relative, names, parameters
        ).result()
        if approximant.error <= error:
            break
    return approximant


def _search(
    function: Function,
    domain: Interval,
    error: float,
    relative: bool,
    names: tuple[str, ...] | None,
    parameters: Parameters,
) -> _Search:
    """The cheapest candidate of the named schemes, or of all that compete."""
    grid = measurement_grid(function, domain)
    floor = grid.relative_floor if relative else grid.float32_floor
    search = _Search(function, domain, error, relative, max(error, floor))
    for name, scheme in SCHEMES.items():
        chosen = name in names if names else scheme.automatic(function, domain)
        if chosen and scheme.applies(function, domain):
            search.run(scheme, parameters)
    return search


@lru_cache(maxsize=4096)
def _part(
    name: str, domain: Interval, error: float, relative: bool, names: tuple[str, ...] | None
) -> Expression:
    """An expression that a scheme builds a larger one from."""
    function = get_function(name)
    function.check_domain(domain)
    search = _search(function, domain, error, relative, names, Parameters())
    if search.best is None:
        raise search.failure()
    return search.best[0].expression


class _Search:
    """The best candidate so far, over schemes."""

    def __init__(
        self, function: Function, domain: Interval, error: float, relative: bool, float32: float
    ) -> None:
        self.function, self.domain = function, domain
        self.error, self.relative, self.float32_limit = error, relative, float32
        self.best: tuple[Candidate, Measurement, str] | None = None
        self.best_cost = (math.inf, math.inf)
        self.reached = (math.inf, "")

    def run(self, scheme: Scheme, parameters: Parameters) -> None:
        """Take the candidates of one scheme until one of them meets the budget."""
        request = Request(
            self.function,
            self.domain,
            self.error,
            self.relative,
            parameters,
            cost_limit=self.best_cost[0] + 0.5,
            approximate=_part,
        )
        for candidate in scheme.candidates(request):
            counts = candidate.expression.counts
            cost = (default_cost(counts), float(counts.additions))
            if cost >= self.best_cost:
                continue
            measured = measure(candidate.expression, self.function, self.domain)
            reached = measured.error(self.relative)
            rounded = measured.float32_error(self.relative)
            if reached <= self.error and rounded <= self.float32_limit:
                if not math.isfinite(measured.float32_absolute):
                    continue
                self.best, self.best_cost = (candidate, measured, scheme.name), cost
                request.cost_limit = cost[0]
            else:
                worst = max(reached, rounded if rounded > self.float32_limit else 0.0)
                self.reached = min(self.reached, (worst, scheme.name))
        self.reached = min(self.reached, (request.reached, scheme.name))

    def failure(self) -> ApproximationError:
        """What was reached, and what to do."""
        kind = "relative" if self.relative else "absolute"
        best = (
            f"the best is {self.reached[0]:.2g} by {self.reached[1]}"
            if math.isfinite(self.reached[0])
            else "no candidate is finite there"
        )
        return ApproximationError(
            f"{self.function.name} on {self.domain}: no expression reaches {kind} error"
            f" {self.error:g} in float32; {best}; allow a larger error or narrow the domain"
        )

    def result(self) -> Approximant:
        """The approximant of the best candidate."""
        if self.best is None:
            raise self.failure()
        candidate, measured, scheme = self.best
        proof = certify(
            candidate.expression,
            self.function,
            self.domain,
            absolute=measured.absolute,
            relative=measured.relative,
            limit=self.error,
        )
        return Approximant(
            function=self.function,
            domain=self.domain,
            expression=candidate.expression,
            scheme=scheme,
            parameters=candidate.parameters,
            description=candidate.description,
            absolute_error=proof.absolute if proof else measured.absolute,
            relative_error=proof.relative if proof else measured.relative,
            error_kind="certified" if proof else "measured",
            float32_error=measured.float32_absolute,
            safe_interval=safe_interval(
                candidate.expression,
                self.function,
                self.domain,
                measured,
                relative=self.relative,
            ),
            relative=self.relative,
        )
