"""`formula=`: an expression of the user's own, rounded, measured and proven like any other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.approximant import Approximant
from odp.approximations.arithmetic import (
    FLOAT32,
    CoefficientRangeError,
    FixedPointArithmetic,
    round_constants,
)
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression
from odp.approximations.formula_expression import formula_expression
from odp.approximations.functions.formula_vocabulary import quoted
from odp.approximations.longer_proof import longer_proof
from odp.approximations.measure import measurement_grid
from odp.approximations.proofs.divisors import vanishing_divisor
from odp.approximations.schemes import Candidate
from odp.approximations.search import Search, SearchProblem
from odp.approximations.target import Target

__all__ = ["FORMULA", "check_formula", "formula_approximant"]

FORMULA = "formula"
"""Name of the scheme of an approximant whose expression a user gave, and of its one parameter."""

_LONGEST_DESCRIPTION = 60


def check_formula(
    where: str, formula: str, scheme: str | None, parameters: Mapping[str, Any]
) -> None:
    """Refuse a formula that cannot be read, and what has no meaning beside one.

    Args:
        where: what the message begins with, such as the function.
        formula: as `formula_expression` reads it.
        scheme: a scheme that was named, too.
        parameters: parameters that were fixed, too.

    Raises:
        ApproximationError: one line.
    """
    beside = ([] if scheme is None else ["scheme"]) + list(parameters)
    if beside:
        raise ApproximationError(
            f"{where}: a formula is the whole expression, so it goes without"
            f" {', '.join(beside)}; leave out one or the other"
        )
    try:
        formula_expression(formula)
    except ApproximationError as error:
        raise ApproximationError(f"{where}: {error}") from None


def formula_approximant(problem: SearchProblem) -> Approximant:
    """The approximant of a formula, its errors proven where that is possible.

    Args:
        problem: its one parameter is the formula; an infinite tolerance asks for it whatever its
            error, and says of which kind the error is.

    Raises:
        ApproximationError: one line, if the formula divides by zero on the domain, leaves the
            numbers of the target, takes a division where the target has none, or does not keep a
            finite tolerance.
    """
    function, domain, target = problem.function, problem.domain, problem.target
    text = str(problem.parameters[FORMULA])
    expression = formula_expression(text)
    where = f"{function.name} on {domain}: formula {quoted(text)}"
    _check_divisions(expression, target, where)
    found = Search(problem)
    rounded = _rounded(expression, problem, where)
    place = vanishing_divisor(rounded, domain)
    if place is not None:
        raise ApproximationError(
            f"{where} divides by zero near x = {place:.6g}; choose a domain without that point, or"
            " another formula"
        )
    _check_finite(rounded, problem, where)
    shown = text if len(text) <= _LONGEST_DESCRIPTION else f"{text[: _LONGEST_DESCRIPTION - 4]} ..."
    description = f"{function.name} by the formula {shown}"
    candidate = Candidate(rounded, problem.parameters, description)
    if isinstance(target.arithmetic, FixedPointArithmetic):
        from odp.approximations.fixed_point import answer

        exact = replace(candidate, expression=expression)
        return _without_budget(answer.given(problem, exact, FORMULA), problem)
    with np.errstate(all="ignore"):
        kept = found.offer(candidate, FORMULA)
    if not kept:
        raise _missed(where, problem, found.reached[0])
    approximant = found.result()
    if problem.tolerance.kind != "mixed":
        approximant = longer_proof(approximant)
        if approximant.error > problem.error:
            raise _missed(where, problem, approximant.error)
    return _without_budget(approximant, problem)


def _check_divisions(expression: Expression, target: Target, where: str) -> None:
    if math.isfinite(target.cost(expression.counts)):
        return
    divisors = [node.operands[1] for node in expression.nodes() if node.op == "div"]
    advice = "give a formula without divisions, or another target"
    if all(divisor.op == "constant" for divisor in divisors):
        advice = "multiply by constants instead, as in x*0.125 for x/8"
    raise ApproximationError(f"{where} divides, which {target.name} cannot; {advice}")


def _rounded(expression: Expression, problem: SearchProblem, where: str) -> Expression:
    try:
        return round_constants(expression, problem.arithmetic)
    except CoefficientRangeError as error:
        raise ApproximationError(
            f"{where}: a constant is out of the range of {problem.target.name}: {error}"
        ) from None


def _check_finite(expression: Expression, problem: SearchProblem, where: str) -> None:
    """Refuse an overflow on the domain: nothing could be said of such an expression."""
    grid = measurement_grid(problem.function, problem.domain)
    evaluated: list[tuple[str, NDArray[Any]]] = [("float64", grid.points)]
    if problem.target.arithmetic == FLOAT32:
        evaluated.append(("float32", grid.single))
    for name, points in evaluated:
        with np.errstate(all="ignore"):
            values = np.asarray(expression(points))
        beyond = np.flatnonzero(~np.isfinite(values))
        if beyond.size:
            raise ApproximationError(
                f"{where} is not finite in {name} at x = {float(points[beyond[0]]):.6g};"
                " narrow the domain, or scale the formula"
            )


def _missed(where: str, problem: SearchProblem, reached: float) -> ApproximationError:
    has = f"error {reached:.2g} in {problem.target.name}, more than {problem.tolerance}"
    if problem.tolerance.kind == "mixed":
        share = reached / problem.error
        has = f"{share:.3g} times the error allowed in {problem.target.name}, {problem.tolerance}"
    return ApproximationError(
        f"{where} has {has}; leave the error out to have the formula whatever its error"
    )


def _without_budget(approximant: Approximant, problem: SearchProblem) -> Approximant:
    asked = problem.tolerance
    limited = math.isfinite(max(asked.absolute, asked.relative, asked.ulps))
    return approximant if limited else replace(approximant, tolerance=None)
