"""From a user's own formula for a function to the `Expression` that it spells out.

A formula is a small straight-line program, ``y=2/(1+x); y=y*(1.5-0.5*x*y*y); y``: assignments
separated by ``;``, then the result.  Nothing is evaluated: Python's grammar reads each part into a
syntax tree, and only numbers, ``x``, names that were assigned before, ``+ - * /`` and powers are
taken from it, in the order in which they are written.
"""

from __future__ import annotations

import ast
import keyword
import warnings
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import NoReturn

from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression, constant, variable
from odp.approximations.functions.formula_vocabulary import MOST_NODES, quoted

__all__ = ["formula_expression"]

_LONGEST_TEXT = 4000
_LONGEST_NUMBER = 64
_DEEPEST = 200
_LARGEST_EXPONENT = 65_536
# Of the exact value of a part that is a number.
_MOST_BITS = 4096
_SIGNS = " \t\r\n_.+-*/^()=;"
_WORDS = "numbers, x, names assigned before, + - * / ** and parentheses"

_OPERATIONS: dict[type[ast.operator], Callable[[Expression, Expression], Expression]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def formula_expression(text: str) -> Expression:
    """The expression of a formula, its operations in the order in which they are written.

    ``a**n`` is squared again and again, and the squares that make up n are multiplied, the lowest
    first: ``a**8`` takes 3 multiplications, ``a**6`` is ``a**2 * a**4`` and takes 3 as well.
    ``^`` means ``**``.  What has no x in it is computed exactly beforehand, products by 1 and sums
    with 0 vanish, and equal parts are computed once.

    Args:
        text: assignments ``name = value`` separated by ``;``, the last part being the result, with
            or without a name.  A name may be assigned again.  Numbers are exact: 0.1 is 1/10.

    Raises:
        ApproximationError: one line that says what cannot be read, where, and what could be.

    >>> square = formula_expression("(1+x/8)**8").counts
    >>> square.multiplications, square.divisions, square.additions
    (3, 1, 1)
    >>> formula_expression("y = 2/(1+x); y = y*(1.5 - 0.5*x*y*y); y")(Fraction(1))
    Fraction(1, 1)
    """
    if not isinstance(text, str):
        raise ApproximationError(f"a formula is a text such as '(1+x/8)**8', not {text!r:.40}")
    if len(text) > _LONGEST_TEXT:
        raise ApproximationError(
            f"formula {quoted(text)}: longer than {_LONGEST_TEXT} characters; give a shorter one"
        )
    return _read(text)


@lru_cache(maxsize=1024)
def _read(text: str) -> Expression:
    return _Reader(text).expression()


class _Reader:
    """Reads one formula, part by part."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: dict[str, Expression] = {"x": variable("x")}
        self.column = 0
        self.part = ""
        self.size = 0

    def expression(self) -> Expression:
        """The value of the last part."""
        for column, sign in enumerate(self.text):
            if not (sign.isascii() and sign.isalnum()) and sign not in _SIGNS:
                self._refuse(f"{sign!r} has no place here; there are {_WORDS}", column)
        starts = [0]
        starts += [column + 1 for column, sign in enumerate(self.text) if sign == ";"]
        parts = [
            (start, part)
            for start, part in zip(starts, self.text.split(";"), strict=True)
            if part.strip()
        ]
        if not parts:
            self._refuse("it is empty; write for example (1+x/8)**8")
        for start, part in parts:
            name, separator, value = part.rpartition("=")
            if "=" in name:
                self._refuse(
                    "more than one '=' in a part; each part is name = value, with ';' between them",
                    start + part.index("="),
                )
            result = self._value(value, start + len(name) + len(separator))
            if separator:
                self._assign(name, start, result)
            elif start != parts[-1][0]:
                self._refuse(
                    f"the value of {quoted(part.strip())} is not used; name it as in y = ..., or"
                    " put it last",
                    start + len(part) - len(part.lstrip()),
                )
        if result.op == "constant":
            self._refuse(f"it does not depend on x, its value is {_shown(result)}")
        return result

    def _assign(self, name: str, start: int, value: Expression) -> None:
        assigned = name.strip()
        if not assigned.isidentifier() or keyword.iskeyword(assigned):
            self._refuse(
                f"{quoted(assigned)} is no name to assign to; each part is name = value", start
            )
        self.names[assigned] = value

    def _value(self, text: str, column: int) -> Expression:
        return self._expression(self._tree(text, column), 0)

    def _tree(self, text: str, column: int) -> ast.expr:
        """The syntax tree of the text that begins at a column of the formula."""
        stripped = text.strip()
        self.column = column + len(text) - len(text.lstrip())
        # ^ binds less than + in Python's grammar.
        self.part = " ".join(stripped.splitlines()).replace("\t", " ").replace("^", "**")
        if not stripped:
            self._refuse("there is no value after '='; each part is name = value", column)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(self.part, mode="eval").body
        except SyntaxError as error:
            offset = min((error.offset or 1) - 1, len(self.part))
            # Python's advice is about Python.
            reason = (error.msg or "invalid syntax").partition(". ")[0]
            self._refuse(f"{reason} in {quoted(stripped)}", self._column(offset))
        except (ValueError, RecursionError, MemoryError):
            self._refuse(f"{quoted(stripped)} cannot be parsed; split it by ';'", self.column)
        self.size += sum(isinstance(node, ast.expr) for node in ast.walk(tree))
        if self.size > MOST_NODES:
            self._refuse(f"it has more than {MOST_NODES} numbers, names and operations")
        return tree

    def _expression(self, node: ast.expr, depth: int) -> Expression:
        if depth > _DEEPEST:
            self._refuse_at(node, f"it is nested more than {_DEEPEST} deep; split it by ';'")
        if isinstance(node, ast.BinOp):
            return self._chain(node, depth)
        if isinstance(node, ast.Constant):
            return constant(self._number(node))
        if isinstance(node, ast.Name):
            if node.id not in self.names:
                known = ", ".join(self.names)
                self._refuse_at(node, f"unknown name {node.id!r}; known here: {known}")
            return self.names[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self._expression(node.operand, depth + 1)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else self._source(node.func)
            if called in self.names or not isinstance(node.func, ast.Name):
                self._refuse_at(node, f"{quoted(called)} is called; write * to multiply")
            self._refuse_at(node, f"{called} is a function; there are only {_WORDS}")
        return self._refuse_at(
            node, f"{quoted(self._source(node))} has no place here; there are {_WORDS}"
        )

    def _chain(self, node: ast.BinOp, depth: int) -> Expression:
        """Operators that nest to the left, as those of a long sum do, count as one level."""
        chain: list[ast.BinOp] = []
        first: ast.expr = node
        while isinstance(first, ast.BinOp):
            chain.append(first)
            first = first.left
        value = self._expression(first, depth + 1)
        for link in reversed(chain):
            if isinstance(link.op, ast.Pow):
                value = self._power(link, value)
                continue
            operation = _OPERATIONS.get(type(link.op))
            if operation is None:
                self._refuse_at(link.right, "only + - * / ** are operators")
            right = self._expression(link.right, depth + 1)
            if isinstance(link.op, ast.Div) and right.op == "constant" and right.value == 0:
                self._refuse_at(link.right, "division by zero")
            value = self._moderate(link, operation(value, right))
        return value

    def _power(self, node: ast.BinOp, base: Expression) -> Expression:
        exponent = node.right
        number = exponent.value if isinstance(exponent, ast.Constant) else None
        whole = isinstance(number, int) and not isinstance(number, bool)
        if not whole or not isinstance(number, int) or not 1 <= number <= _LARGEST_EXPONENT:
            self._refuse_at(
                exponent,
                f"an exponent is a whole number from 1 to {_LARGEST_EXPONENT}, not"
                f" {quoted(self._source(exponent))}",
            )
        if base.op == "constant" and _bits(base) * number > _MOST_BITS:
            self._refuse_at(exponent, "a power is too long a number")
        return base**number

    def _moderate(self, node: ast.expr, value: Expression) -> Expression:
        if value.op == "constant" and _bits(value) > _MOST_BITS:
            self._refuse_at(node, "a number is too long")
        return value

    def _number(self, node: ast.Constant) -> Fraction:
        value, digits = node.value, self._source(node)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse_at(node, f"{quoted(digits)} is no real number")
        if len(digits) > _LONGEST_NUMBER:
            self._refuse_at(node, f"a number has more than {_LONGEST_NUMBER} characters")
        if isinstance(value, int):
            return Fraction(value)
        mantissa = digits.lower().partition("e")[0]
        zero = not set(mantissa) & set("123456789")
        if not zero and not 1e-300 <= value <= 1e300:
            self._refuse_at(node, f"the number {digits} is beyond what float64 represents")
        return Fraction(0) if zero else Fraction(digits.replace("_", ""))

    def _source(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.part, node) or ""

    def _column(self, offset: int) -> int:
        """The column of the formula at an offset in the part that Python has read."""
        column = 0
        original = self.text[self.column :]
        while offset > 0 and column < len(original):
            offset -= 2 if original[column] == "^" else 1
            column += 1
        return self.column + column

    def _refuse_at(self, node: ast.AST, reason: str) -> NoReturn:
        self._refuse(reason, self._column(getattr(node, "col_offset", 0)))

    def _refuse(self, reason: str, column: int | None = None) -> NoReturn:
        where = "" if column is None else f" (column {column + 1})"
        raise ApproximationError(f"formula {quoted(self.text)}: {reason}{where}")


def _bits(number: Expression) -> int:
    value = number.value
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _shown(number: Expression) -> str:
    try:
        return f"{float(number.value):g}"
    except OverflowError:
        return "a number beyond float64"
