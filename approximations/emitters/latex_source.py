"""LaTeX of expressions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from odp.approximations.emitters.source_text import (
    ATOM,
    PRODUCT,
    InfixAlgebra,
    Text,
    bindings,
    signed,
)
from odp.approximations.expression import Expression

__all__ = ["LatexAlgebra", "latex_source"]


class LatexAlgebra(InfixAlgebra):
    """LaTeX source text; equal factors print as a square."""

    def variable(self, name: str) -> Text:
        """The name; upright where it has several letters."""
        if len(name) == 1:
            return Text(name, ATOM)
        escaped = name.replace("_", r"\_")
        return Text(rf"\mathrm{{{escaped}}}", ATOM)

    def constant(self, value: Fraction) -> Text:
        """An integer, or a decimal with the digits that tell float32, or else float64, apart."""
        negative, absolute = value < 0, abs(value)
        if absolute.denominator == 1 and absolute < 10**9:
            return signed(str(absolute.numerator), ATOM, negative=negative)
        number = float(absolute)
        with np.errstate(over="ignore"):
            single = float(np.float32(number)) == number
        text = f"{number:.9g}" if single else repr(number).removesuffix(".0")
        mantissa, _, exponent = text.partition("e")
        if not exponent:
            return signed(mantissa, ATOM, negative=negative)
        product = rf"{mantissa} \cdot 10^{{{int(exponent)}}}"
        return signed(product, PRODUCT, negative=negative)

    def mul(self, a: Text, b: Text) -> Text:
        r"""``a \cdot b``, or a square."""
        if a.text == b.text:
            base = a.text if a.precedence == ATOM else rf"\left({a.text}\right)"
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
    comment = "".join(f"% {line}".rstrip() + "\n" for line in description)
    if not bound:
        return comment + result
    rows = [f"{label} &= {text}" for label, text in bound] + [f"y &= {result}"]
    return comment + "\\begin{aligned} " + r" \\ ".join(rows) + r" \end{aligned}"
