"""The cheapest scheme and the fewest guard bits for an error at a scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import FixedPointArithmetic
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression
from odp.approximations.fixed_point.certified import (
    NEAR_LIMIT,
    CertifiedProgram,
    Proof,
    lower,
    rounding_limit,
    sampled_error,
)
from odp.approximations.fixed_point.enumeration import enumerable
from odp.approximations.fixed_point.lowering import lower_expression
from odp.approximations.fixed_point.normalisation import normalised
from odp.approximations.fixed_point.refusal import FixedPointRefusal
from odp.approximations.fixed_point.rounding_analysis import RoundingAnalysis, analyse
from odp.approximations.functions.function import Function
from odp.approximations.functions.registry import get_function
from odp.approximations.interval import Interval
from odp.approximations.schemes import SCHEMES, Candidate
from odp.approximations.search import SearchProblem, find_scheme, search
from odp.approximations.target import Target, get_target
from odp.approximations.tolerance import Tolerance

__all__ = ["FixedPointChoice", "best_fixed_point", "given_fixed_point"]

# Shares of what rounding the result leaves of the budget that the approximation may take.
_SHARES = (0.75, 0.4, 0.1)
# Of the integers that programs run in: first one machine word, then two.
_WIDTHS = (64, 128)
_FIRST_GUARD_BITS = 4
_MOST_GUARD_BITS = 24


@dataclass(frozen=True)
class FixedPointChoice:
    """A certified program and where it comes from.

    Attributes:
        certified: the program with its certificate.
        expression: the expression before its constants were rounded.
        scheme: name of the scheme that made it.
        parameters: what the scheme was used with.
        description: scheme and parameters for a person.
        cost: of the expression on the target.
    """

    certified: CertifiedProgram
    expression: Expression
    scheme: str
    parameters: Parameters
    description: str
    cost: float


def best_fixed_point(
    function: str | Function,
    domain: Interval | tuple[float, float],
    *,
    scale: int,
    guard_bits: int | None = None,
    error: float | None = None,
    relative: bool | None = None,
    schemes: tuple[str, ...] | None = None,
    target: Target | None = None,
    input_scale: int | None = None,
    uniform: bool = False,
    width: int | None = None,
    parameters: Parameters | None = None,
    largest_cost: float = math.inf,
) -> FixedPointChoice:
    """The cheapest program on integers that keeps an error, proven with all of its rounding.

    Schemes compete by the cost of their expressions in real arithmetic; the first whose program
    keeps the error with some number of guard bits wins, with the fewest that do.  One that
    diverges at the scale, may overflow or may divide by zero is passed over.

    Args:
        function: what to approximate.
        domain: finite bounds; the error holds for the multiples of 2^-input_scale in it.
        scale: results are integers at 2^scale.
        guard_bits: further binary digits of intermediates; None means as few as suffice.
        error: largest error; None means 1.1 times what rounding the result alone costs.
        relative: whether `error` is relative; None means as the function declares, unless it has a
            zero there.
        schemes: names of those that compete; None for all.
        target: decides the costs; None means ``fixed``.
        input_scale: of the inputs; None means `scale`.
        uniform: whether all intermediates have the one scale; see `lower_expression`.
        width: bits of the integers that the program runs in, with the sign; None means 64, and 128
            where no program fits into 64.
        parameters: of the one scheme, fixed by the user.
        largest_cost: expressions dearer than this are not wanted.

    Raises:
        ApproximationError: if the error is below what rounding the result costs, or no scheme
            keeps it; it says what the best one reaches.

    >>> choice = best_fixed_point("exp", (-10, 0), scale=7)
    >>> choice.certified.error <= 1.1 * 2**-8
    True
    """
    chosen = get_function(function)
    interval = domain if isinstance(domain, Interval) else Interval(*domain)
    chosen.check_domain(interval)
    kind = chosen.relative if relative is None else relative
    limit = rounding_limit(chosen, interval, scale, kind)
    if relative is None and math.isinf(limit):
        kind, limit = False, rounding_limit(chosen, interval, scale, relative=False)
    where = f"{chosen.name} on {interval} at scale {scale}"
    goal = NEAR_LIMIT * limit if error is None else float(error)
    if math.isinf(limit):
        raise ApproximationError(
            f"{where}: the function has a zero there, so no relative error can be kept; ask for an"
            " absolute one"
        )
    if not goal > limit:
        raise ApproximationError(
            f"{where}: no program has {'relative' if kind else 'absolute'} error {goal:.3g}:"
            f" rounding the result alone costs {limit:.3g}; use a larger scale"
        )
    place = get_target("fixed") if target is None else target
    place = replace(place, arithmetic=FixedPointArithmetic(scale, guard_bits))
    trial = _Trial(
        chosen, interval, scale, guard_bits, goal, kind, input_scale, uniform, width or _WIDTHS[0]
    )
    tried: list[tuple[Candidate, str]] = []
    refusals: list[FixedPointRefusal] = []

    def attempt(
        trial: _Trial, proposals: Iterable[tuple[Candidate, str]]
    ) -> FixedPointChoice | None:
        for candidate, scheme in proposals:
            tried.append((candidate, scheme))
            try:
                certified = trial.certified(candidate.expression)
            except FixedPointRefusal as refusal:
                refusals.append(refusal)
                continue
            return FixedPointChoice(
                certified,
                candidate.expression,
                scheme,
                candidate.parameters,
                candidate.description,
                place.cost(candidate.expression.counts),
            )
        return None

    for share in _SHARES:
        closeness = share * (goal - limit)
        tolerance = Tolerance(relative=closeness) if kind else Tolerance(absolute=closeness)
        problem = SearchProblem(
            chosen, interval, tolerance, place, schemes, parameters or Parameters(), largest_cost
        )
        found = attempt(trial, _proposals(problem))
        if found is not None:
            return found
    if width is None and any(refusal.reason == "overflow" for refusal in refusals):
        found = attempt(replace(trial, width=_WIDTHS[1]), list(tried))
        if found is not None:
            return found
    if refusals:
        raise refusals[0]
    raise ApproximationError(
        f"{where}: no expression is within {goal - limit:.2g} in real arithmetic; allow a larger"
        " error or narrow the domain"
    )


def given_fixed_point(
    candidate: Candidate,
    scheme: str,
    function: Function,
    domain: Interval,
    *,
    target: Target,
    error: float,
    relative: bool,
) -> FixedPointChoice:
    """The program of one expression that is given, proven with all of its rounding.

    Args:
        candidate: the expression.
        scheme: what to call where it comes from.
        function: what it is for.
        domain: finite, checked.
        target: one whose numbers are integers; without guard bits it gets as few as suffice.
        error: largest error; infinity for any, unless the program diverges.
        relative: whether it is relative.

    Raises:
        FixedPointRefusal: if the program does not keep the error, or nothing could be proven.
    """
    arithmetic = target.arithmetic
    assert isinstance(arithmetic, FixedPointArithmetic)
    trial = _Trial(
        function,
        domain,
        arithmetic.scale,
        arithmetic.guard_bits,
        error,
        relative,
        input_scale=None,
        uniform=False,
        width=_WIDTHS[0],
    )
    try:
        certified = trial.certified(candidate.expression)
    except FixedPointRefusal as refusal:
        if refusal.reason != "overflow":
            raise
        certified = replace(trial, width=_WIDTHS[1]).certified(candidate.expression)
    return FixedPointChoice(
        certified,
        candidate.expression,
        scheme,
        candidate.parameters,
        candidate.description,
        target.cost(candidate.expression.counts),
    )


def _proposals(problem: SearchProblem) -> Iterator[tuple[Candidate, str]]:
    """The cheapest expression of all schemes, then that of every other scheme by cost."""
    first = search(problem)
    if first.best is None:
        return
    candidate, _, winner = first.best
    yield candidate, winner
    others: list[tuple[float, Candidate, str]] = []
    for name in problem.schemes or tuple(SCHEMES):
        scheme = find_scheme(name)
        competes = problem.schemes or scheme.automatic(problem.function, problem.domain)
        if name == winner or not competes:
            continue
        if not scheme.applies(problem.function, problem.domain):
            continue
        found = search(replace(problem, schemes=(name,)))
        if found.best is not None:
            others.append((found.best_cost[0], found.best[0], name))
    yield from ((candidate, name) for _, candidate, name in sorted(others, key=lambda o: o[0]))


@dataclass(frozen=True)
class _Trial:
    """What every candidate is lowered for."""

    function: Function
    domain: Interval
    scale: int
    guard_bits: int | None
    goal: float
    relative: bool
    input_scale: int | None
    uniform: bool
    width: int

    def certified(self, expression: Expression) -> CertifiedProgram:
        """The program of an expression, or with one scale for all of its normalised form.

        Raises:
            FixedPointRefusal: if neither keeps the error.
        """
        try:
            return self.fewest_guard_bits(expression)
        except FixedPointRefusal:
            if not self.uniform:
                raise
        return self.fewest_guard_bits(normalised(expression, self.domain))

    def certify(
        self,
        expression: Expression,
        guard_bits: int,
        proof: Proof | None = None,
        *,
        search: bool = False,
    ) -> CertifiedProgram:
        """The program with so many guard bits.

        Raises:
            FixedPointRefusal: if it does not keep the error.
        """
        return lower(
            expression,
            self.function,
            self.domain,
            scale=self.scale,
            guard_bits=guard_bits,
            input_scale=self.input_scale,
            uniform=self.uniform,
            relative=self.relative,
            error=self.goal,
            width=self.width,
            proof=proof,
            search=search,
        )

    def fewest_guard_bits(self, expression: Expression) -> CertifiedProgram:
        """The program with the fewest guard bits that keep the error.

        Raises:
            FixedPointRefusal: if no number of them does.
        """
        if self.guard_bits is not None:
            try:
                return self.certify(expression, self.guard_bits)
            except FixedPointRefusal as refusal:
                if refusal.reason != "error too large":
                    raise
                return self.certify(expression, self.guard_bits, search=True)
        found = self._first(expression)
        if not enumerable(found.program):
            return found
        # The analysis adds up the worst of all roundings; enumeration sees what they do together.
        for guard_bits in range(found.program.guard_bits - 1, -1, -1):
            try:
                found = self.certify(expression, guard_bits, "enumeration")
            except FixedPointRefusal:
                break
        return found

    def _first(self, expression: Expression) -> CertifiedProgram:
        """A program with guard bits enough, or with fewer where so many overflow.

        Raises:
            FixedPointRefusal: if there is none.
        """
        guard_bits = enough = self._enough(expression)
        while True:
            analysis = self._analysis(expression, guard_bits)
            excess = 0 if analysis is None else analysis.bits - self.width
            # A product has two factors: it loses at most two bits with every guard bit.
            if excess <= 0 or excess > 2 * guard_bits:
                break
            guard_bits -= max(1, excess // 2)
        try:
            return self.certify(expression, guard_bits)
        except FixedPointRefusal as refusal:
            if guard_bits == enough or refusal.reason == "overflow":
                raise
            raise FixedPointRefusal(
                f"{refusal}; {enough} guard bits do not fit into {self.width} bits", "overflow"
            ) from None

    def _enough(self, expression: Expression) -> int:
        """Guard bits with which the analysis is expected to prove the error."""
        real = sampled_error(expression, self.function, self.domain, relative=self.relative)
        limit = rounding_limit(self.function, self.domain, self.scale, self.relative)
        guard_bits = _FIRST_GUARD_BITS
        while guard_bits < _MOST_GUARD_BITS:
            analysis = self._analysis(expression, guard_bits)
            noise = math.inf
            if analysis is not None:
                noise = analysis.relative if self.relative else analysis.absolute
            room = self.goal - real - limit
            if noise + real <= self.goal or room <= 0:
                return guard_bits
            # The part that is not the rounding of the result halves with every guard bit.
            more = math.log2((noise - limit) / room) if math.isfinite(noise) else 4.0
            guard_bits += max(1, math.ceil(more))
        return _MOST_GUARD_BITS

    def _analysis(self, expression: Expression, guard_bits: int) -> RoundingAnalysis | None:
        """What is proven of all rounding with so many guard bits."""
        program = lower_expression(
            expression,
            self.domain,
            scale=self.scale,
            guard_bits=guard_bits,
            input_scale=self.input_scale,
            uniform=self.uniform,
            relative=self.relative,
        )
        return analyse(program, relative=self.relative)
