"""Pieces of source text, and the walk that gives shared subexpressions names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from odp.approximations.algebra import Algebra
from odp.approximations.expression import Expression

__all__ = [
    "ATOM",
    "LONGEST",
    "PRODUCT",
    "SUM",
    "InfixAlgebra",
    "Text",
    "TextAlgebra",
    "bindings",
    "signed",
]

SUM, PRODUCT, ATOM = 0, 1, 2
"""How tightly the outermost operation of a text binds."""
LONGEST = 72
"""Longer text gets a name: lines stay readable, and no parser meets more nested parentheses than it
accepts (Python 200; C99 guarantees 63)."""


@dataclass(frozen=True)
class Text:
    """Source text with the precedence of its outermost operation.

    Attributes:
        text: the text.
        precedence: of its outermost operation.
        opposite: of a negative constant, the text of its absolute value: ``a + (-c)`` is written
            ``a - c``, which has the same bits.
    """

    text: str
    precedence: int
    opposite: str | None = None

    def inside(self, precedence: int) -> str:
        """The text, in parentheses where an operation of `precedence` needs them."""
        return self.text if self.precedence >= precedence else f"({self.text})"


def signed(absolute: str, precedence: int, *, negative: bool) -> Text:
    """A constant, given the text of its absolute value."""
    return Text(f"-{absolute}", SUM, absolute) if negative else Text(absolute, precedence)


class InfixAlgebra:
    """Sums and differences with ``+`` and ``-``, which associate to the left."""

    def add(self, a: Text, b: Text) -> Text:
        """``a + b``."""
        if b.opposite is not None:
            return Text(f"{a.inside(SUM)} - {b.opposite}", SUM)
        return Text(f"{a.inside(SUM)} + {b.inside(PRODUCT)}", SUM)

    def sub(self, a: Text, b: Text) -> Text:
        """``a - b``."""
        if b.opposite is not None:
            return Text(f"{a.inside(SUM)} + {b.opposite}", SUM)
        return Text(f"{a.inside(SUM)} - {b.inside(PRODUCT)}", SUM)


class TextAlgebra(Algebra[Text], Protocol):
    """An algebra of texts that knows how to write a variable."""

    def variable(self, name: str, /) -> Text:
        """The variable `name`."""
        ...


def _shared(expression: Expression) -> set[Expression]:
    """Operations that more than one operation uses; a square counts as one use."""
    uses: dict[Expression, int] = {}
    for node in expression.nodes():
        for operand in set(node.operands):
            uses[operand] = uses.get(operand, 0) + 1
    return {node for node, count in uses.items() if count > 1 and node.operands}


def bindings(
    expression: Expression,
    algebra: TextAlgebra,
    name: str,
    *,
    bind_squares: bool = True,
    longest: float = LONGEST,
) -> tuple[list[tuple[str, str]], str]:
    """Named subexpressions in order, and the text of the result in terms of them.

    Args:
        expression: what to write.
        algebra: how to write an operation.
        name: of the subexpressions, with ``{}`` for their number.
        bind_squares: whether ``(x + 1) * (x + 1)`` gets a name for ``x + 1``.
        longest: text with more characters than this gets a name too.
    """
    shared = _shared(expression)
    if bind_squares:
        # Source text has no notation for a square: both factors would be written out.
        squares = (
            n for n in expression.nodes() if n.op == "mul" and n.operands[0] is n.operands[1]
        )
        shared |= {node.operands[0] for node in squares if node.operands[0].operands}
    texts: dict[Expression, Text] = {}
    bound: list[tuple[str, str]] = []

    def bind(node: Expression) -> None:
        label = name.format(len(bound) + 1)
        bound.append((label, texts[node].text))
        texts[node] = Text(label, ATOM)

    for node in expression.nodes():
        if node.op == "variable":
            texts[node] = algebra.variable(node.name)
        elif node.op == "constant":
            texts[node] = algebra.constant(node.value)
        else:
            longer = max(node.operands, key=lambda operand: len(texts[operand].text))
            if sum(len(texts[operand].text) for operand in node.operands) > longest:
                bind(longer)
            a, b = (texts[operand] for operand in node.operands)
            texts[node] = getattr(algebra, node.op)(a, b)
        if node in shared and node is not expression:
            bind(node)
    return bound, texts[expression].text
