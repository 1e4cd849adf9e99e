"""Emitters of expressions: LaTeX, Python source, running rounding errors, denominators.

Every class here is an `odp.approximations.algebra.Algebra`; `Expression.emit` walks the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.expression import Expression

__all__ = [
    "DenominatorAlgebra",
    "LatexAlgebra",
    "PythonAlgebra",
    "RoundingErrorAlgebra",
    "denominators",
    "latex_source",
    "one_line",
    "python_source",
    "rounding_error",
]

Array = NDArray[np.float64]

_SUM, _PRODUCT, _ATOM = 0, 1, 2


@dataclass(frozen=True)
class Text:
    """Source text with the precedence of its outermost operation."""

    text: str
    precedence: int

    def inside(self, precedence: int) -> str:
        """The text, in parentheses where an operation of `precedence` needs them."""
        return self.text if self.precedence >= precedence else f"({self.text})"


class PythonAlgebra:
    """Python source text; operations associate to the left as in the expression."""

    def constant(self, value: Fraction) -> Text:
        """A float literal, or a quotient of integers where no float is exact."""
        if Fraction(float(value)) == value:
            text = repr(float(value))
        else:
            text = f"({value.numerator} / {value.denominator})"
        return Text(text, _ATOM if value >= 0 else _SUM)

    def add(self, a: Text, b: Text) -> Text:
        """``a + b``."""
        return Text(f"{a.inside(_SUM)} + {b.inside(_PRODUCT)}", _SUM)

    def sub(self, a: Text, b: Text) -> Text:
        """``a - b``."""
        return Text(f"{a.inside(_SUM)} - {b.inside(_PRODUCT)}", _SUM)

    def mul(self, a: Text, b: Text) -> Text:
        """``a * b``."""
        return Text(f"{a.inside(_PRODUCT)} * {b.inside(_ATOM)}", _PRODUCT)

    def div(self, a: Text, b: Text) -> Text:
        """``a / b``."""
        return Text(f"{a.inside(_PRODUCT)} / {b.inside(_ATOM)}", _PRODUCT)


class LatexAlgebra:
    """LaTeX source text; equal factors print as a square."""

    def constant(self, value: Fraction) -> Text:
        """An integer, or a decimal with as many digits as float32 can tell apart."""
        if value.denominator == 1 and abs(value) < 10**9:
            text = str(value.numerator)
        else:
            mantissa, _, exponent = f"{float(value):.9g}".partition("e")
            text = rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa
        precedence = _PRODUCT if "cdot" in text else _ATOM
        return Text(text, precedence if value >= 0 else _SUM)

    def add(self, a: Text, b: Text) -> Text:
        """``a + b``."""
        return Text(f"{a.inside(_SUM)} + {b.inside(_PRODUCT)}", _SUM)

    def sub(self, a: Text, b: Text) -> Text:
        """``a - b``."""
        return Text(f"{a.inside(_SUM)} - {b.inside(_PRODUCT)}", _SUM)

    def mul(self, a: Text, b: Text) -> Text:
        r"""``a \cdot b``, or a square."""
        if a.text == b.text:
            base = a.text if len(a.text) == 1 else rf"\left({a.text}\right)"
            return Text(f"{base}^{{2}}", _PRODUCT)
        return Text(rf"{_latex_factor(a)} \cdot {_latex_factor(b)}", _PRODUCT)

    def div(self, a: Text, b: Text) -> Text:
        r"""``\frac{a}{b}``."""
        return Text(rf"\frac{{{a.text}}}{{{b.text}}}", _PRODUCT)


def _latex_factor(a: Text) -> str:
    return a.text if a.precedence >= _PRODUCT else rf"\left({a.text}\right)"


def _shared(expression: Expression) -> set[Expression]:
    """Operations that more than one operation uses; a square counts as one use."""
    uses: dict[Expression, int] = {}
    for node in expression.nodes():
        for operand in set(node.operands):
            uses[operand] = uses.get(operand, 0) + 1
    return {node for node, count in uses.items() if count > 1 and node.operands}


def _bindings(
    expression: Expression, algebra: Any, name: str, *, bind_squares: bool
) -> tuple[list[tuple[str, str]], str]:
    """Named subexpressions in order, and the text of the result in terms of them."""
    shared = _shared(expression)
    if bind_squares:
        # Source text has no notation for a square: both factors would be written out.
        squares = (
            n for n in expression.nodes() if n.op == "mul" and n.operands[0] is n.operands[1]
        )
        shared |= {node.operands[0] for node in squares if node.operands[0].operands}
    shared.discard(expression)
    texts: dict[Expression, Text] = {}
    bound: list[tuple[str, str]] = []
    for node in expression.nodes():
        if node.op == "variable":
            texts[node] = Text(node.name, _ATOM)
        elif node.op == "constant":
            texts[node] = algebra.constant(node.value)
        else:
            a, b = (texts[operand] for operand in node.operands)
            texts[node] = getattr(algebra, node.op)(a, b)
        if node in shared:
            label = name.format(len(bound) + 1)
            bound.append((label, texts[node].text))
            texts[node] = Text(label, _ATOM)
    return bound, texts[expression].text


def python_source(expression: Expression, name: str = "f") -> str:
    """Source text of a Python function with the expression's own order of operations."""
    # Variable names may be anything; the temporaries get out of their way.
    prefix = "t" if not any(v.startswith("t") for v in expression.variables) else "_t"
    bound, result = _bindings(expression, PythonAlgebra(), prefix + "{}", bind_squares=True)
    lines = [f"def {name}({', '.join(expression.variables)}):"]
    lines += [f"    {label} = {text}" for label, text in bound]
    lines.append(f"    return {result}")
    return "\n".join(lines) + "\n"


def latex_source(expression: Expression) -> str:
    """LaTeX; shared subexpressions get names in an ``aligned`` block before the result."""
    bound, result = _bindings(expression, LatexAlgebra(), "t_{{{}}}", bind_squares=False)
    if not bound:
        return result
    rows = [f"{label} &= {text}" for label, text in bound] + [f"y &= {result}"]
    return "\\begin{aligned} " + r" \\ ".join(rows) + r" \end{aligned}"


def one_line(expression: Expression, limit: int = 160) -> str:
    """Readable one-line form for `repr`; long expressions show their size instead."""
    counts = expression.counts
    # Every operation prints at least 4 characters: no need to write out what will not fit.
    if 4 * (counts.multiplications + counts.divisions + counts.additions) <= limit:
        bound, result = _bindings(expression, PythonAlgebra(), "t{}", bind_squares=True)
        text = "; ".join([f"{label} = {value}" for label, value in bound] + [result])
        if len(text) <= limit:
            return text
    return (
        f"{', '.join(expression.variables)}: {counts.multiplications} mul, {counts.divisions} div,"
        f" {counts.additions} add, depth {counts.depth}"
    )


class RoundingErrorAlgebra:
    """Running error bound of floating-point evaluation: pairs (value, bound on its error).

    The bound of every operation is the propagated error of its operands plus one rounding of the
    result (N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.3).

    Args:
        unit_roundoff: half the spacing of the numbers next to 1; 2**-24 for float32.
        smallest: absolute rounding error of results that underflow; 2**-150 for float32.
    """

    def __init__(self, unit_roundoff: float = 2.0**-24, smallest: float = 2.0**-150) -> None:
        self.unit_roundoff = unit_roundoff
        self.smallest = smallest

    def _rounded(self, value: Any, error: Any) -> tuple[Any, Any]:
        return value, error + self.unit_roundoff * (np.abs(value) + error) + self.smallest

    def constant(self, value: Fraction) -> tuple[Any, Any]:
        """A constant; exact where float32 represents it."""
        number = float(value)
        with np.errstate(over="ignore"):
            exact = Fraction(number) == value and float(np.float32(number)) == number
        return np.float64(number), np.float64(0.0 if exact else self.unit_roundoff * abs(number))

    def add(self, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        """``a + b``."""
        return self._rounded(a[0] + b[0], a[1] + b[1])

    def sub(self, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        """``a - b``."""
        return self._rounded(a[0] - b[0], a[1] + b[1])

    def mul(self, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        """``a * b``."""
        error = np.abs(a[0]) * b[1] + np.abs(b[0]) * a[1] + a[1] * b[1]
        return self._rounded(a[0] * b[0], error)

    def div(self, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        """``a / b``; infinite where the rounded divisor may be zero."""
        value = a[0] / b[0]
        margin = np.maximum(np.abs(b[0]) - b[1], 0.0)
        return self._rounded(value, (a[1] + np.abs(value) * b[1]) / margin)


def rounding_error(expression: Expression, x: Array, unit_roundoff: float = 2.0**-24) -> Array:
    """Running bound of the rounding error of evaluating `expression` at `x` pointwise.

    Args:
        expression: in one variable.
        x: points, float64 array of any shape; taken as exact, so for float32 evaluation they must
            be representable in float32.
        unit_roundoff: of the arithmetic; 2**-24 is float32 with rounding to nearest.

    Returns:
        float64 array of the shape of `x`: |computed - exact value of the expression| is at most
        this, unless an intermediate result overflows.

    >>> from odp.approximations.expression import variable
    >>> x = variable("x")
    >>> float(rounding_error(x * x, np.array([2.0]))[0]) < 2.0 ** -21
    True
    """
    (name,) = expression.variables or ("x",)
    points = np.asarray(x, dtype=np.float64)
    algebra = RoundingErrorAlgebra(unit_roundoff)
    with np.errstate(all="ignore"):
        _, error = expression.emit(algebra, **{name: (points, np.zeros_like(points))})
    return np.broadcast_to(np.asarray(error, dtype=np.float64), points.shape).copy()


class DenominatorAlgebra:
    """Evaluates in numpy and keeps every value that something was divided by."""

    def __init__(self) -> None:
        self.denominators: list[Any] = []

    def constant(self, value: Fraction) -> Any:
        """The nearest float64."""
        return float(value)

    def add(self, a: Any, b: Any) -> Any:
        """``a + b``."""
        return a + b

    def sub(self, a: Any, b: Any) -> Any:
        """``a - b``."""
        return a - b

    def mul(self, a: Any, b: Any) -> Any:
        """``a * b``."""
        return a * b

    def div(self, a: Any, b: Any) -> Any:
        """``a / b``, recording ``b``."""
        self.denominators.append(b)
        return a / b


def denominators(expression: Expression, x: Array) -> tuple[Array, list[Array]]:
    """The value of `expression` at `x` in float64, and the values of all its divisors there."""
    (name,) = expression.variables or ("x",)
    algebra = DenominatorAlgebra()
    with np.errstate(all="ignore"):
        value = expression.emit(algebra, **{name: x})
        shape = np.shape(x)
        return np.broadcast_to(value, shape), [
            np.broadcast_to(d, shape) for d in algebra.denominators
        ]
