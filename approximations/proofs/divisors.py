"""Where an expression divides by zero: bisection in ball arithmetic."""

from __future__ import annotations

from odp.approximations.expression import Expression
from odp.approximations.functions.analyticity import halves
from odp.approximations.functions.ball_precision import ball_precision, flint_installed
from odp.approximations.interval import Interval

__all__ = ["vanishing_divisor"]

_MOST_BOXES = 20_000
_BITS = 128
_TINY = 1e-300


def vanishing_divisor(expression: Expression, domain: Interval) -> float | None:
    """A point of a domain next to which a divisor vanishes, as far as balls of 128 bits can tell.

    Args:
        expression: in the variable ``x``.
        domain: finite.

    Returns:
        The leftmost such point, within 2^-46 of its own size; None if there is none, if
        python-flint is not installed, or if 20,000 intervals did not suffice to find out.

    >>> from odp.approximations import variable
    >>> x = variable("x")
    >>> round(vanishing_divisor(1 / (x * x - 2), Interval(0, 3)), 9)
    1.414213562
    >>> vanishing_divisor(1 / (x * x + 2), Interval(0, 3)) is None
    True
    """
    divisors = [node.operands[1] for node in expression.nodes() if node.op == "div"]
    if all(divisor.op == "constant" for divisor in divisors) or not flint_installed():
        return None
    from flint import arb

    from odp.approximations.proofs.arb_evaluation import ArbExpression, NoEnclosure

    evaluate = ArbExpression(expression)
    boxes = [(domain.lo, domain.hi)]
    with ball_precision(_BITS):
        for _ in range(_MOST_BOXES):
            if not boxes:
                return None
            lo, hi = boxes.pop()
            try:
                evaluate(arb(lo).union(arb(hi)))
            except NoEnclosure:
                parts = halves(lo, hi)
                if not parts:
                    middle = lo + (hi - lo) / 2
                    return 0.0 if abs(middle) < _TINY else middle
                boxes += reversed(parts)
    return None
