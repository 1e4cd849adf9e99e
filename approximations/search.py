"""The search: candidates of all schemes, rounded, measured, and the best of them proven."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from odp.approximations.approximant import Approximant, Parameters, ParameterValue
from odp.approximations.arithmetic import (
    FLOAT32,
    FLOAT64,
    CoefficientRangeError,
    FloatArithmetic,
    round_constants,
)
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression
from odp.approximations.functions.function import Function
from odp.approximations.functions.registry import get_function
from odp.approximations.interval import Interval
from odp.approximations.measure import Measurement, measure, measurement_grid, safe_interval
from odp.approximations.proofs.certify import Certificate, certify
from odp.approximations.schemes import SCHEMES, Candidate, Request, Scheme
from odp.approximations.target import Target
from odp.approximations.tolerance import Tolerance

__all__ = [
    "Search",
    "SearchProblem",
    "check_parameters",
    "check_scheme",
    "find_scheme",
    "search",
    "sharper_searches",
]

_SHARPER = 1 - 1e-6
# Of four roundings of the result: asked for its best at 20 operations, cos on half a period went on
# to 2e-15 for float32, and took 22 s.
_IN_THE_ROUNDING = 1 / 16


@dataclass(frozen=True)
class SearchProblem:
    """What is searched for.

    Attributes:
        function: what to approximate.
        domain: where; checked.
        tolerance: the budget.
        target: where it will run.
        schemes: names of those that compete; None for all that are automatic.
        parameters: values that the user fixed.
        largest_cost: expressions dearer than this are not wanted.
    """

    function: Function
    domain: Interval
    tolerance: Tolerance
    target: Target
    schemes: tuple[str, ...] | None = None
    parameters: Parameters = field(default_factory=Parameters)
    largest_cost: float = math.inf

    @property
    def relative(self) -> bool:
        """Whether the budget is one relative error."""
        return self.tolerance.kind == "relative"

    @property
    def error(self) -> float:
        """The one error of the budget; for a mixed one the largest allowed anywhere."""
        if self.tolerance.kind == "mixed":
            grid = measurement_grid(self.function, self.domain)
            return float(self.tolerance.allowed(grid.points, grid.reference).max())
        return self.tolerance.relative if self.relative else self.tolerance.absolute

    @property
    def arithmetic(self) -> FloatArithmetic:
        """What constants are rounded to before they are measured."""
        arithmetic = self.target.arithmetic
        return arithmetic if isinstance(arithmetic, FloatArithmetic) else FLOAT64


def find_scheme(name: str) -> Scheme:
    """The scheme called `name`.

    Raises:
        ApproximationError: for an unknown name.
    """
    if not isinstance(name, str):
        raise ApproximationError(
            f"a scheme is one name, such as 'minimax', not {name!r}; known: {', '.join(SCHEMES)}"
        )
    if name in SCHEMES:
        return SCHEMES[name]
    near = difflib.get_close_matches(name, SCHEMES, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(SCHEMES)}"
    raise ApproximationError(f"unknown scheme {name!r}: {hint}")


def check_parameters(scheme: Scheme, parameters: Mapping[str, ParameterValue]) -> None:
    """Refuse parameters that a scheme does not have, and values that are none of a parameter.

    Raises:
        ApproximationError: naming the first one, and those that there are.
    """
    for name, value in parameters.items():
        if not isinstance(value, int | float | str):
            raise ApproximationError(
                f"scheme {scheme.name}: the parameter {name} is a number or a word, not {value!r}"
            )
        if name not in scheme.parameters:
            has = ", ".join(scheme.parameters) or "none"
            raise ApproximationError(
                f"scheme {scheme.name} has no parameter {name!r}; it has {has}"
            )


def check_scheme(scheme: Scheme, function: Function, domain: Interval) -> None:
    """Refuse a scheme that has nothing for a function on a domain.

    Raises:
        ApproximationError: if it does not apply.
    """
    if not scheme.applies(function, domain):
        raise ApproximationError(
            f"scheme {scheme.name} does not apply to {function.name} on {domain};"
            " leave the scheme out to see what does"
        )


def search(problem: SearchProblem) -> Search:
    """The cheapest candidate of the named schemes, or of all that compete."""
    found = Search(problem)
    for name, scheme in SCHEMES.items():
        if problem.schemes is None:
            chosen = scheme.automatic(problem.function, problem.domain)
        else:
            chosen = name in problem.schemes
        if chosen and scheme.applies(problem.function, problem.domain):
            found.run(scheme)
    return found


@lru_cache(maxsize=4096)
def _part(
    target: Target,
    name: str,
    domain: Interval,
    error: float,
    relative: bool,
    names: tuple[str, ...] | None,
) -> Expression:
    """An expression that a scheme builds a larger one from."""
    function = get_function(name)
    function.check_domain(domain)
    tolerance = Tolerance(relative=error) if relative else Tolerance(absolute=error)
    found = search(SearchProblem(function, domain, tolerance, target, names))
    if found.best is None:
        raise found.failure()
    return found.best[0].expression


def sharper_searches(problem: SearchProblem) -> Iterator[Search]:
    """Searches with ever smaller errors, without end but for what can be reached.

    At each cost the sharpest is found, so that the next one costs more.

    Args:
        problem: its tolerance says only of which kind the errors are.

    Raises:
        ApproximationError: if there is nothing at all.
    """
    grid = measurement_grid(problem.function, problem.domain)
    start = 1.0 if problem.relative else grid.scale or 1.0
    found = search(replace(problem, tolerance=problem.tolerance.scaled(start / problem.error)))
    if found.best is None:
        raise found.failure()
    while found.best is not None:
        yield found
        if found.exhausted:
            return
        reached = found.error * found.error_share
        tolerance = problem.tolerance.scaled(reached * _SHARPER / problem.error)
        found = search(replace(problem, tolerance=tolerance))


class Search:
    """The best candidate so far, over schemes.

    Attributes:
        problem: what is searched for.
        best: the candidate with its constants rounded, its measurement, its scheme's name.
        best_cost: its cost, and the error that it really has, which decides among equals.
        reached: the smallest error seen of what missed the budget, and its scheme's name.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self.problem = problem
        self.best: tuple[Candidate, Measurement, str] | None = None
        self.best_cost = (problem.largest_cost * (1 + 1e-9), math.inf)
        self.reached = (math.inf, "")
        self.error = problem.error
        grid = measurement_grid(problem.function, problem.domain)
        floor = grid.relative_floor if problem.relative else grid.float32_floor
        single = problem.arithmetic == FLOAT32
        self.rounding = floor * (problem.arithmetic.unit_roundoff / FLOAT32.unit_roundoff)
        self.floor = floor if single else math.inf
        self.rounded_limit = max(self.error, floor) if single else math.inf
        self.mixed = problem.tolerance if problem.tolerance.kind == "mixed" else None

    def run(self, scheme: Scheme) -> None:
        """Let a scheme compete."""
        problem = self.problem
        request = Request(
            problem.function,
            problem.domain,
            self.error,
            problem.relative,
            problem.parameters,
            cost_limit=self._limit(),
            approximate=lambda *arguments: _part(problem.target, *arguments),
            target=problem.target,
            tolerance=problem.tolerance,
        )
        try:
            # What leaves float64 is no candidate, and numpy's warnings are nothing for users.
            with np.errstate(all="ignore"):
                for candidate in scheme.candidates(request):
                    if self.offer(candidate, scheme.name):
                        request.cost_limit = self._limit()
        except ArithmeticError:
            # On huge and tiny domains a scheme may leave float64: it has nothing more there.
            pass
        self.reached = min(self.reached, (request.reached, scheme.name))

    def _limit(self) -> float:
        """Just above the cost of the best: another candidate may be as cheap and better."""
        return self.best_cost[0] * (1 + 1e-9) + 1e-9

    def offer(self, candidate: Candidate, scheme: str) -> bool:
        """Whether a candidate becomes the best one."""
        problem = self.problem
        counts = candidate.expression.counts
        cost = problem.target.cost(counts)
        if cost > self._limit():
            return False
        try:
            rounded = round_constants(candidate.expression, problem.arithmetic)
        except CoefficientRangeError:
            return False
        measured = measure(rounded, problem.function, problem.domain, self.mixed)
        reached, in_float32 = self._errors(measured)
        if reached > self.error or in_float32 > self.rounded_limit:
            worst = max(reached, in_float32 if in_float32 > self.rounded_limit else 0.0)
            self.reached = min(self.reached, (worst, scheme))
            return False
        if self.rounded_limit < math.inf and not math.isfinite(measured.float32_absolute):
            return False
        # Evaluated in float32 the error may be another one; not below what no expression can beat.
        lost = 0.0 if self.mixed or in_float32 <= self.floor else in_float32
        key = (cost, max(reached, lost))
        if key >= self.best_cost:
            return False
        self.best, self.best_cost = (replace(candidate, expression=rounded), measured, scheme), key
        return True

    @property
    def exhausted(self) -> bool:
        """Whether a smaller error would be lost in the rounding of the target's numbers."""
        return self.error_share * self.error <= _IN_THE_ROUNDING * self.rounding

    @property
    def error_share(self) -> float:
        """How much of the budget the best candidate uses, evaluated on the target; 1 is all."""
        return math.inf if self.best is None else self.best_cost[1] / self.error

    def _errors(self, measured: Measurement) -> tuple[float, float]:
        """The error that counts in real arithmetic and in float32, in units of `error`."""
        if measured.share is not None and measured.float32_share is not None:
            # A share above 1 of the allowed error misses the budget, whatever its size.
            return measured.share * self.error, measured.float32_share * self.error
        relative = self.problem.relative
        return measured.error(relative), measured.float32_error(relative)

    def _proof(
        self, expression: Expression, measured: Measurement, times: float
    ) -> Certificate | None:
        """A proof of so many times what was measured; None if it does not cover the budget."""
        problem = self.problem
        if not 1.0 <= times < math.inf:
            return None
        relative = None if measured.relative is None else times * measured.relative
        proof = certify(
            expression,
            problem.function,
            problem.domain,
            absolute=times * measured.absolute,
            relative=relative,
            limit=math.inf if self.mixed else self.error,
            tolerance=self.mixed,
        )
        if proof is None or (problem.relative and proof.relative is None):
            return None
        if self.mixed is not None and (proof.share is None or proof.share > 1):
            return None
        return proof

    def failure(self, asked: Tolerance | None = None) -> ApproximationError:
        """What was reached, and what to do.

        Args:
            asked: the budget as the user gave it; None means that of the problem.
        """
        problem = self.problem
        where = f"{problem.function.name} on {problem.domain}"
        seen = math.isfinite(self.reached[0])
        if problem.parameters and problem.schemes and not seen:
            wanted = ", ".join(f"{name}={value}" for name, value in problem.parameters.items())
            return ApproximationError(
                f"{where}: scheme {problem.schemes[0]} has nothing with {wanted}; give it other"
                " parameters or leave them out"
            )
        within = f" at cost {problem.largest_cost:g}" if problem.largest_cost < math.inf else ""
        if within and not seen:
            return ApproximationError(
                f"{where}: no expression{within} in {problem.target.name}; allow more operations"
            )
        best = (
            f"the best is {self.reached[0]:.2g} by {self.reached[1]}"
            if seen
            else "no candidate is finite there"
        )
        return ApproximationError(
            f"{where}: no expression reaches"
            f" {asked or problem.tolerance}{within} in {problem.target.name}; {best};"
            " allow a larger error or narrow the domain"
        )

    def result(self) -> Approximant:
        """The approximant of the best candidate, its errors proven where that is possible.

        Raises:
            ApproximationError: if no candidate kept the budget.
        """
        if self.best is None:
            raise self.failure()
        problem = self.problem
        candidate, measured, scheme = self.best
        proof = self._proof(candidate.expression, measured, 1.0)
        if proof is None and not self.mixed:
            # A bound of 1 % above what was seen may be out of reach next to float32's rounding,
            # where one of the whole budget is not.
            seen = measured.error(problem.relative)
            times = 0.98 * self.error / seen if seen > 0 else math.inf
            proof = self._proof(candidate.expression, measured, times)
        return Approximant(
            function=problem.function,
            domain=problem.domain,
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
                problem.function,
                problem.domain,
                measured,
                relative=problem.relative,
            ),
            relative=problem.relative,
            target=problem.target,
            tolerance=problem.tolerance,
        )
