"""Proven error bounds of expressions: certificates, and enclosures of the largest error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from odp.approximations.expression import Expression
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.proofs.error_proof import SHARPNESS, WORK, ErrorProof
from odp.approximations.tolerance import Tolerance

__all__ = ["Certificate", "Enclosure", "certify", "supremum"]

# Balls of 128 bits show no error of an exact expression above this.
_EXACT = 2.0**-90


@dataclass(frozen=True)
class Certificate:
    """What was proven of an expression on a domain: the bounds, and that no divisor vanishes.

    Attributes:
        absolute: upper bound of |expression - function|.
        relative: upper bound of |expression / function - 1|; None if not asked for or not proven.
        boxes: number of Taylor models that the proof took.
        share: upper bound of |expression - function| over what the tolerance allows, so that it
            is met if this is at most 1; None if not asked for or not proven.
    """

    absolute: float
    relative: float | None
    boxes: int
    share: float | None = None


class Enclosure(NamedTuple):
    """Proven bounds of the largest error of an expression on a domain.

    Attributes:
        lower: the error is at least this large at some point of the domain.
        upper: the error is nowhere larger.
    """

    lower: float
    upper: float


def certify(
    expression: Expression,
    function: Function,
    domain: Interval,
    *,
    absolute: float = 0.0,
    relative: float | None = None,
    limit: float = math.inf,
    tolerance: Tolerance | None = None,
    work: int = WORK,
) -> Certificate | None:
    """Prove upper bounds of the error of an expression on a domain, in real arithmetic.

    Args:
        expression: in the variable ``x``; its constants are taken exactly.
        function: one with a ball evaluator.
        domain: finite, within the function's natural domain.
        absolute: largest absolute error seen: the goal is a bound within 1 % of it.  A wrong value
            costs time or sharpness, never correctness.
        relative: likewise relative; None if no relative bound is wanted.
        limit: a bound on the error asked for (the relative one if `relative` is given and
            smaller) to stay below where the largest error seen does.
        tolerance: a budget of several parts, of which the share that is used is to be bounded.
        work: box evaluations times operations after which to give up: the same proof is found on
            every machine.

    Returns:
        The proven bounds, or None: python-flint is not installed, the function has no ball
        evaluator, a divisor vanishes, or the work was used up.  None says nothing about the error.
        A relative error or share that could not be proven is None beside a proven absolute one.

    >>> from odp.approximations import approximate
    >>> a = approximate("exp", (-1, 0), error=1e-3)
    >>> proof = certify(a.expression, a.function, a.domain, absolute=a.absolute_error)
    >>> proof is None or proof.absolute <= 1.02 * a.absolute_error
    True
    """
    proof = ErrorProof.start(
        expression, function, domain, relative=relative is not None, tolerance=tolerance
    )
    if proof is None or not math.isfinite(absolute):
        return None
    goals = {"absolute": _goal(absolute, limit)}
    if relative is not None:
        goals["relative"] = _goal(relative, limit)
    if tolerance is not None:
        goals["share"] = 1.0
    found = proof.run(goals, work)
    if "absolute" not in found:
        return None
    return Certificate(found["absolute"], found.get("relative"), proof.boxes, found.get("share"))


def supremum(
    expression: Expression,
    function: Function,
    domain: Interval,
    *,
    relative: bool = False,
    sharpness: float = SHARPNESS,
    work: int = WORK,
) -> Enclosure | None:
    """Enclose the largest error of an expression on a domain, in real arithmetic.

    Args:
        expression: in the variable ``x``; its constants are taken exactly.
        function: one with a ball evaluator.
        domain: finite, within the function's natural domain.
        relative: whether the largest relative error is wanted.
        sharpness: the upper bound is to be at most this share above the lower one.
        work: as for `certify`.

    Returns:
        Both bounds, or None where no upper bound could be proven.

    >>> from odp.approximations import get_function, variable
    >>> x = variable("x")
    >>> bounds = supremum(1 + x, get_function("exp"), Interval(-1, 0))
    >>> bounds is None or bounds.lower <= 0.36787944117144233 <= bounds.upper < 0.372
    True
    """
    proof = ErrorProof.start(expression, function, domain, relative=relative)
    if proof is None:
        return None
    kind = "relative" if relative else "absolute"
    found = proof.run({kind: _EXACT}, work, sharpness)
    return Enclosure(proof.lower[kind], found[kind]) if kind in found else None


def _goal(measured: float, limit: float) -> float:
    """A bound to reach: 1 % above what was seen, but within the limit if that is possible."""
    # An exact expression differs from its function by float64's rounding only.
    goal = max(measured, 2.0**-50) * (1 + SHARPNESS)
    return limit if measured * (1 + 1e-4) <= limit < goal else goal
