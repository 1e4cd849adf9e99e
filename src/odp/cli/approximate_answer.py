"""The question that `odp approximate` asks the library, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from odp.cli.approximate_input import Setting

if TYPE_CHECKING:
    from odp.approximations import Approximant, Function, Histogram, Interval, Target, Tolerance

__all__ = ["Answer", "Question", "Row", "find_answer", "target_text"]

Progress = Callable[["Approximant"], None]

# A proof is a little above the largest error seen.
_MARGIN = 1 - 2.0**-10
# With a limit on operations instead of errors, the front ends where the operations do.
_NO_ERROR = 1e-30


@dataclass(frozen=True)
class Question:
    """What is asked for.

    Attributes:
        function: what to approximate.
        domain: where.
        target: where it will run.
        tolerance: the budget, or the kind of error if the operations are limited.
        operations: the largest cost on the target; None if the error is limited.
        scheme: the one scheme to use, or None.
        settings: parameters of that scheme.
        formula: the expression to measure instead, or None.
    """

    function: Function
    domain: Interval
    target: Target
    tolerance: Tolerance
    operations: float | None = None
    scheme: str | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict)
    formula: str | None = None

    @staticmethod
    def of(
        function: str,
        domain: Interval,
        *,
        target: str,
        error: float | None,
        operations: float | None,
        relative: bool | None,
        parts: tuple[float, float, float] | None,
        histogram: Histogram | None,
        scheme: str | None,
        settings: Mapping[str, Setting],
        formula: str | None = None,
    ) -> Question:
        """A question, checked as far as that needs no search.

        Args:
            function: a name or an expression of one variable.
            domain: where.
            target: name of a target, with its options.
            error: largest error; None for the default, or for any where `settings` or a `formula`
                fix what is wanted.
            operations: largest cost.
            relative: kind of `error`; None as the function declares.
            parts: absolute, relative and ulp tolerance instead of `error`.
            histogram: frequencies of the inputs.
            scheme: name of a scheme.
            settings: its parameters.
            formula: an expression of the user's own.

        Raises:
            ApproximationError: for whatever is wrong with them.
        """
        from odp.approximations import Tolerance, get_function, get_target
        from odp.approximations.choose import checked_tolerance
        from odp.approximations.formula_approximant import check_formula
        from odp.approximations.search import find_scheme

        chosen, place = get_function(function), get_target(target)
        if scheme is not None:
            find_scheme(scheme)
        if formula is not None:
            check_formula(chosen.name, formula, scheme, settings)
        chosen.check_domain(domain)
        if parts is not None:
            tolerance = Tolerance(*parts, histogram=histogram)
        else:
            if error is None and (settings or formula is not None):
                error = math.inf
            tolerance = checked_tolerance(chosen, domain, error, relative, place, histogram)
        return Question(chosen, domain, place, tolerance, operations, scheme, settings, formula)

    @property
    def relative(self) -> bool:
        """Whether errors are relative."""
        return self.tolerance.relative > 0 and self.tolerance.absolute == self.tolerance.ulps == 0

    @property
    def error(self) -> float | None:
        """The one error allowed; None for a budget of several parts or of operations."""
        if self.operations is not None or self.tolerance.kind == "mixed":
            return None
        return self.tolerance.relative if self.relative else self.tolerance.absolute

    @property
    def has_front(self) -> bool:
        """Whether a front can be drawn: one kind of error, and the expression free."""
        spelled_out = bool(self.settings) or self.formula is not None
        return self.tolerance.kind != "mixed" and not spelled_out


@dataclass(frozen=True)
class Row:
    """One approximant of the front.

    Attributes:
        approximant: the approximant.
        cost: what it costs on the target.
        limit: the smallest error of one polynomial or rational function of that cost, in fixed
            point with what rounding the result costs; None where there is none, or errors of that
            kind are not comparable.
    """

    approximant: Approximant
    cost: float
    limit: float | None

    @property
    def ratio(self) -> float | None:
        """Error in units of the limit; below 1 for a composition."""
        if self.limit is None or self.limit == 0:
            return None
        return self.approximant.error / self.limit

    def to_dict(self) -> dict[str, Any]:
        """The approximant with cost and limit, ready for JSON."""
        compared = {"cost": self.cost, "limit": self.limit, "limit_ratio": self.ratio}
        return self.approximant.to_dict() | compared | {"fixed_point": self._integers()}

    def _integers(self) -> dict[str, Any] | None:
        """What the numbers of a fixed-point program are; None if there is no program."""
        certified = self.approximant.fixed_point
        if certified is None:
            return None
        program = certified.program
        return {
            "scale": program.scale,
            "guard_bits": program.guard_bits,
            "input_scale": program.input_scale,
            "bits": program.bits,
            "inputs": program.inputs,
            "proof": certified.certificate.proof,
        }


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        question: what was asked.
        front: rising in cost, falling in error; the last row is the answer.
    """

    question: Question
    front: tuple[Row, ...]

    @property
    def best(self) -> Row:
        """The cheapest that keeps the budget, or the sharpest that keeps the operations."""
        return self.front[-1]

    def to_dict(self, *, with_front: bool) -> dict[str, Any]:
        """Everything as plain values, ready for JSON."""
        question = self.question
        tolerance = question.tolerance
        budget = {
            "absolute": tolerance.absolute,
            "relative": tolerance.relative,
            "ulps": tolerance.ulps,
            "weighted": tolerance.histogram is not None,
        }
        anything = question.operations is not None or question.error == math.inf
        everything = {
            "function": question.function.name,
            "domain": [question.domain.lo, question.domain.hi],
            "target": question.target.name,
            "relative": question.relative,
            "tolerance": None if anything else budget,
            "operations": question.operations,
            "answer": self.best.to_dict(),
            "front": [row.to_dict() for row in self.front] if with_front else None,
        }
        plain: dict[str, Any] = _finite(everything)
        return plain


def find_answer(question: Question, progress: Progress | None = None) -> Answer:
    """Ask the library.

    Args:
        question: what is wanted.
        progress: called with every approximant of the front as it is found.

    Raises:
        ApproximationError: if nothing keeps the budget.
    """
    found = _front(question, progress) if question.has_front else [_one(question)]
    costs = [question.target.cost(approximant.counts) for approximant in found]
    limits = _limits(question, costs)
    rows = [
        Row(approximant, cost, limit if math.isfinite(limit) else None)
        for approximant, cost, limit in zip(found, costs, limits, strict=True)
    ]
    cheapest_after = [
        min((r.cost for r in rows[i + 1 :]), default=math.inf) for i in range(len(rows))
    ]
    # Integer programs are tried one after the other: a later one may be as cheap.
    return Answer(
        question,
        tuple(row for row, after in zip(rows, cheapest_after, strict=True) if row.cost < after),
    )


def _limits(question: Question, costs: list[float]) -> list[float]:
    from odp.approximations import limits
    from odp.approximations.arithmetic import FixedPointArithmetic
    from odp.approximations.fixed_point import rounding_limit

    if question.tolerance.kind == "mixed":
        return [math.inf] * len(costs)
    function, domain, relative = question.function, question.domain, question.relative
    found = limits(function, domain, costs, relative=relative, target=question.target)
    arithmetic = question.target.arithmetic
    if isinstance(arithmetic, FixedPointArithmetic):
        rounding = rounding_limit(function, domain, arithmetic.scale, relative)
        found = [limit + rounding for limit in found]
    return found


def _front(question: Question, progress: Progress | None) -> list[Approximant]:
    from odp.approximations import pareto

    wanted, largest_cost = question.error, question.operations
    cheapest = None
    if wanted is not None:
        # An error out of reach is known here, long before a front would end short of it.
        cheapest = _one(question)
        largest_cost = question.target.cost(cheapest.counts)
    front = pareto(
        question.function,
        question.domain,
        error=_NO_ERROR if wanted is None else wanted * _MARGIN,
        relative=question.relative,
        target=question.target,
        largest_cost=math.inf if largest_cost is None else largest_cost,
        schemes=None if question.scheme is None else (question.scheme,),
        progress=progress,
    )
    if wanted is not None and cheapest is not None and front[-1].error > wanted:
        front.append(cheapest)
    return front


def _one(question: Question) -> Approximant:
    from odp.approximations import ApproximationError, approximate
    from odp.approximations.search import check_parameters, find_scheme

    operations, tolerance = question.operations, question.tolerance
    try:
        return approximate(
            question.function,
            question.domain,
            error=None if operations is not None else tolerance,
            operations=operations,
            relative=question.relative if operations is not None else None,
            histogram=tolerance.histogram if operations is not None else None,
            target=question.target,
            scheme=question.scheme,
            formula=question.formula,
            **question.settings,
        )
    except ApproximationError:
        if question.error != math.inf or question.scheme is None:
            raise
        check_parameters(find_scheme(question.scheme), question.settings)
        wanted = ", ".join(f"{name}={value}" for name, value in question.settings.items())
        raise ApproximationError(
            f"scheme {question.scheme} has nothing with {wanted} for {question.function.name} on"
            f" {question.domain}; odp approximate --list says what its parameters mean"
        ) from None


def _finite(value: Any) -> Any:
    """The value with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def target_text(target: Target) -> str:
    """A target as users type it.

    >>> from odp.approximations import get_target
    >>> target_text(get_target("fixed{scale=13, guard=6}"))
    'fixed{scale=13,guard=6}'
    """
    from odp.approximations.arithmetic import FixedPointArithmetic

    arithmetic = target.arithmetic
    if not isinstance(arithmetic, FixedPointArithmetic):
        return target.name
    guard = "" if arithmetic.guard_bits is None else f",guard={arithmetic.guard_bits}"
    return f"{target.name}{{scale={arithmetic.scale}{guard}}}"
