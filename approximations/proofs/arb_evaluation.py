"""Ball arithmetic: expressions on power series with rigorous error bounds.

Functions on such series are in `arb_functions`; their names are kept here as well.
flint takes 0.15 s to import, so this module is imported where a proof is wanted.
"""

from __future__ import annotations

from typing import Any

from odp.approximations.expression import Expression
from odp.approximations.functions.arb_elementary import NoEnclosure, Series, exact, quotient
from odp.approximations.functions.arb_functions import arb_evaluator, enclosure

__all__ = ["PRECISION", "ArbExpression", "NoEnclosure", "arb_evaluator", "enclosure"]

PRECISION = 128
"""Bits of the midpoints: float64 would lose the digits in which f and its expression agree."""


class ArbExpression:
    """An expression in one variable, ready to be evaluated on many balls or series.

    Args:
        expression: in at most one variable.
    """

    def __init__(self, expression: Expression) -> None:
        nodes = expression.nodes()
        number = {node: index for index, node in enumerate(nodes)}
        self._rows: list[tuple[str, int, int, Any]] = []
        for node in nodes:
            left, right = (number[operand] for operand in node.operands or (node, node))
            self._rows.append((node.op, left, right, exact(node.value)))

    def __call__(self, x: Series) -> Series:
        """The value at `x`, an ``arb`` or an ``arb_series``.

        Raises:
            NoEnclosure: if a divisor may be zero.  That it does not raise is the proof that no
                divisor vanishes on the ball.
        """
        values: list[Any] = []
        for op, left, right, value in self._rows:
            if op == "mul":
                values.append(values[left] * values[right])
            elif op == "add":
                values.append(values[left] + values[right])
            elif op == "sub":
                values.append(values[left] - values[right])
            elif op == "div":
                values.append(quotient(values[left], values[right]))
            else:
                values.append(value if op == "constant" else x)
        return values[-1]
