"""Symmetry that the structure of an expression proves: even, or odd about a value at 0."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from odp.approximations.expression import Expression

__all__ = ["ExpressionSymmetry", "expression_symmetry"]


@dataclass(frozen=True)
class ExpressionSymmetry:
    """A symmetry of an expression in one variable, in exact arithmetic.

    Attributes:
        parity: ``even``: f(-x) = f(x); ``odd``: f(-x) - c = -(f(x) - c).
        centre: that c; 0 for even expressions.
    """

    parity: Literal["even", "odd"]
    centre: Fraction = Fraction(0)


_EVEN = ExpressionSymmetry("even")
_ODD = ExpressionSymmetry("odd")


def expression_symmetry(expression: Expression) -> ExpressionSymmetry | None:
    """The symmetry that follows from those of the operands; None says nothing.

    >>> from odp.approximations import variable
    >>> x = variable("x")
    >>> expression_symmetry(x / (1 + x * x) + Fraction(1, 2))
    ExpressionSymmetry(parity='odd', centre=Fraction(1, 2))
    """
    found: dict[Expression, ExpressionSymmetry | None] = {}
    for node in expression.nodes():
        if node.op == "variable":
            found[node] = _ODD
        elif node.op == "constant":
            found[node] = _EVEN
        else:
            left, right = node.operands
            a, b = found[left], found[right]
            found[node] = None if a is None or b is None else _combined(node, a, b)
    return found[expression]


def _combined(
    node: Expression, a: ExpressionSymmetry, b: ExpressionSymmetry
) -> ExpressionSymmetry | None:
    left, right = node.operands
    if node.op in ("add", "sub"):
        sign = 1 if node.op == "add" else -1
        if a.parity == b.parity:
            return ExpressionSymmetry(a.parity, a.centre + sign * b.centre)
        # A constant moves the centre of an odd part; another even part breaks the symmetry.
        if left.op == "constant":
            return ExpressionSymmetry("odd", left.value + sign * b.centre)
        if right.op == "constant":
            return ExpressionSymmetry("odd", a.centre + sign * right.value)
        return None
    if right.op == "constant" and a.parity == "odd":
        factor = right.value if node.op == "mul" else 1 / right.value
        return ExpressionSymmetry("odd", a.centre * factor)
    if node.op == "mul" and left.op == "constant" and b.parity == "odd":
        return ExpressionSymmetry("odd", left.value * b.centre)
    if a.centre or b.centre:
        return None
    return _EVEN if a.parity == b.parity else _ODD
