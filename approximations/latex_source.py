"""LaTeX of expressions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from odp.approximations.expression import Expression
from odp.approximations.source_text import ATOM, PRODUCT, SUM, Text, bindings

__all__ = ["LatexAlgebra", "latex_source"]


class LatexAlgebra:
    """LaTeX source text; equal factors print as a square."""

    def variable(self, name: str) -> Text:
        """The name; upright where it has several letters."""
        if len(name) == 1:
            return Text(name, ATOM)
        escaped = name.replace("_", r"\_")
        return Text(rf"\mathrm{{{escaped}}}", ATOM)

    def constant(self, value: Fraction) -> Text:
        """An integer, or a decimal with as many digits as float32 can tell apart."""
        if value.denominator == 1 and abs(value) < 10**9:
            text = str(value.numerator)
        else:
            mantissa, _, exponent = f"{float(value):.9g}".partition("e")
            text = rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa
        precedence = PRODUCT if "cdot" in text else ATOM
        return Text(text, precedence if value >= 0 else SUM)

    def add(self, a: Text, b: Text) -> Text:
        """``a + b``."""
        return Text(f"{a.inside(SUM)} + {b.inside(PRODUCT)}", SUM)

    def sub(self, a: Text, b: Text) -> Text:
        """``a - b``."""
        return Text(f"{a.inside(SUM)} - {b.inside(PRODUCT)}", SUM)

    def mul(self, a: Text, b: Text) -> Text:
        r"""``a \cdot b``, or a square."""
        if a.text == b.text:
            base = a.text if len(a.text) == 1 else rf"\left({a.text}\right)"
            return Text(f"{base}^{{2}}", PRODUCT)
        return Text(rf"{_latex_factor(a)} \cdot {_latex_factor(b)}", PRODUCT)

    def div(self, a: Text, b: Text) -> Text:
        r"""``\frac{a}{b}``."""
        return Text(rf"\frac{{{a.text}}}{{{b.text}}}", PRODUCT)


def _latex_factor(a: Text) -> str:
    return a.text if a.precedence >= PRODUCT else rf"\left({a.text}\right)"


def latex_source(expression: Expression, description: Sequence[str] = ()) -> str:
    """LaTeX; shared subexpressions get names in an ``aligned`` block before the result.

    Args:
        expression: what to write.
        description: lines of a comment before it.
    """
    bound, result = bindings(
        expression, LatexAlgebra(), "t_{{{}}}", bind_squares=False, longest=math.inf
    )
    comment = "".join(f"% {line}\n" for line in description)
    if not bound:
        return comment + result
    rows = [f"{label} &= {text}" for label, text in bound] + [f"y &= {result}"]
    return comment + "\\begin{aligned} " + r" \\ ".join(rows) + r" \end{aligned}"
