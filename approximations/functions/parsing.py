"""From a user's formula, as text or as a sympy expression, to a sympy expression in ``x``.

No code is evaluated: the text is parsed by Python's grammar into a syntax tree, and only numbers,
one variable, arithmetic and the functions listed here are taken from it.  Sizes are limited, so
that neither ``9**9**9`` nor a thousand parentheses can hang.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any, NoReturn

from odp.approximations.errors import ApproximationError
from odp.approximations.functions.formula_vocabulary import (
    CONSTANTS,
    EXTREMA,
    MOST_EXTREMA,
    MOST_NODES,
    REFUSED,
    checked,
    formula_functions,
    hint,
    power_of,
    quoted,
    representable,
    symbol,
)

__all__ = ["from_sympy", "parse"]

_LONGEST_TEXT = 2000
_DEEPEST = 30
_LONGEST_NUMBER = 64
_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}


@lru_cache(maxsize=1024)
def parse(text: str) -> Any:
    """The sympy expression of a formula, in the real symbol ``x`` whatever its variable is called.

    Numbers are exact: ``0.1`` is 1/10.

    Args:
        text: for example ``t*exp(-t**2)``; ``+ - * / **``, numbers, ``pi``, ``e``, one variable and
            the functions of `formula_functions`.

    Raises:
        ApproximationError: one line that says what cannot be read, and where.

    >>> parse("2*t*exp(-t**2)")
    2*x*exp(-x**2)
    """
    if len(text) > _LONGEST_TEXT:
        raise ApproximationError(
            f"formula {quoted(text)}: longer than {_LONGEST_TEXT} characters; give a shorter one"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        where = f" at column {error.offset}" if error.offset else ""
        raise ApproximationError(f"formula {quoted(text)}: {error.msg}{where}") from None
    except (ValueError, RecursionError, MemoryError):
        raise ApproximationError(
            f"formula {quoted(text)}: cannot be parsed; write for example x*exp(-x**2)"
        ) from None
    return checked(lambda: _Builder(text.strip()).build(tree.body), quoted(text))


def from_sympy(expression: Any) -> Any:
    """A user's sympy expression, rebuilt in the real symbol ``x`` from what a formula may contain.

    Args:
        expression: in one free symbol; floats become the decimals that they print as.

    Raises:
        ApproximationError: if it contains anything else.
    """
    text = quoted(str(expression))
    return checked(lambda: _rebuilt(expression, text), text)


class _Builder:
    """Turns a syntax tree into a sympy expression, node by node."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.variables: dict[str, ast.AST] = {}
        self.extrema = 0

    def build(self, tree: ast.expr) -> Any:
        """The expression of a whole tree."""
        if sum(isinstance(node, ast.expr) for node in ast.walk(tree)) > MOST_NODES:
            self._refuse(tree, f"it has more than {MOST_NODES} parts", where=False)
        return self._value(tree, 0)

    def _value(self, node: ast.expr, depth: int) -> Any:
        try:
            return representable(self._new_value(node, depth))
        except ValueError as error:
            return self._refuse(node, str(error))

    def _new_value(self, node: ast.expr, depth: int) -> Any:
        if depth > _DEEPEST:
            self._refuse(node, f"it is nested more than {_DEEPEST} deep")
        if isinstance(node, ast.BinOp):
            return self._chain(node, depth)
        if isinstance(node, ast.Constant):
            return self._number(node)
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self._value(node.operand, depth + 1)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        return self._refuse(node, f"{_described(node)} has no place in a formula")

    def _chain(self, node: ast.BinOp, depth: int) -> Any:
        """Operators that nest to the left, as all of a long sum do, count as one level."""
        chain: list[ast.BinOp] = []
        first: ast.expr = node
        while isinstance(first, ast.BinOp):
            if type(first.op) not in _OPERATORS:
                hint = "; write ** for powers" if isinstance(first.op, ast.BitXor) else ""
                self._refuse(first.right, f"only + - * / ** are operators{hint}")
            chain.append(first)
            first = first.left
        value = self._value(first, depth + 1)
        for link in reversed(chain):
            right = self._value(link.right, depth + 1)
            operator = _OPERATORS[type(link.op)]
            if operator == "/" and right.is_zero:
                self._refuse(link.right, "division by zero")
            if operator == "**":
                value = self._power(link, value, right)
            else:
                value = _ARITHMETIC[operator](value, right)
        return value

    def _power(self, node: ast.BinOp, base: Any, exponent: Any) -> Any:
        if base.is_zero and exponent.is_number and not exponent.is_positive:
            self._refuse(node.right, "division by zero")
        try:
            return power_of(base, exponent)
        except ValueError as error:
            return self._refuse(node.right, str(error))

    def _number(self, node: ast.Constant) -> Any:
        import sympy

        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            kind = "complex number" if isinstance(value, complex) else "constant"
            self._refuse(node, f"the {kind} {quoted(repr(value))} is no real number")
        digits = ast.get_source_segment(self.text, node) or repr(value)
        if len(digits) > _LONGEST_NUMBER:
            self._refuse(node, f"a number has more than {_LONGEST_NUMBER} characters")
        if isinstance(value, int):
            return sympy.Integer(value)
        # A decimal of few characters may stand for an integer of a billion digits.
        if value and not 1e-300 <= value <= 1e300:
            self._refuse(node, f"the number {digits} is beyond what float64 represents")
        number = Fraction(digits) if value else Fraction(0)
        return sympy.Rational(number.numerator, number.denominator)

    def _name(self, node: ast.Name) -> Any:
        import sympy

        if node.id in CONSTANTS:
            return sympy.pi if node.id == "pi" else sympy.E
        if node.id in formula_functions():
            self._refuse(node, f"{node.id} is a function; write {node.id}(x)")
        if node.id.startswith("__"):
            self._refuse(node, f"the name {node.id} has no place in a formula")
        self.variables.setdefault(node.id, node)
        if len(self.variables) > 1:
            self._refuse(node, f"more than one variable ({', '.join(self.variables)})")
        return symbol()

    def _call(self, node: ast.Call, depth: int) -> Any:
        if not isinstance(node.func, ast.Name):
            self._refuse(node.func, f"{_described(node.func)} cannot be called")
        name = node.func.id
        if name in REFUSED:
            self._refuse(node, f"{name} cannot be approximated: {REFUSED[name]}")
        if name not in formula_functions():
            self._refuse(node, f"unknown function {quoted(name)}{hint(name)}")
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            self._refuse(node, f"{name} takes plain arguments only")
        arguments = [self._value(argument, depth + 1) for argument in node.args]
        if name in EXTREMA:
            self.extrema += 1
            if self.extrema > MOST_EXTREMA or len(arguments) > MOST_EXTREMA:
                self._refuse(node, f"more than {MOST_EXTREMA} maxima and minima")
        try:
            return formula_functions()[name](*arguments)
        except TypeError:
            return self._refuse(node, f"{name} does not take {len(arguments)} arguments")
        except ValueError as error:
            return self._refuse(node, str(error))

    def _refuse(self, node: ast.AST, reason: str, *, where: bool = True) -> NoReturn:
        column = f" at column {getattr(node, 'col_offset', 0) + 1}" if where else ""
        raise ApproximationError(f"formula {quoted(self.text)}: {reason}{column}")


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


def _described(node: ast.AST) -> str:
    names = {
        ast.Attribute: "attribute access",
        ast.Subscript: "an index",
        ast.Lambda: "a lambda",
        ast.NamedExpr: "an assignment",
        ast.Compare: "a comparison",
        ast.BoolOp: "and/or",
        ast.IfExp: "a condition",
        ast.JoinedStr: "a formatted text",
        ast.Call: "the result of a call",
        ast.Constant: "a constant",
    }
    return names.get(type(node), f"a {type(node).__name__}")


def _rebuilt(expression: Any, text: str) -> Any:
    import sympy

    if not isinstance(expression, sympy.Expr):
        raise ApproximationError(f"{text} is no expression but a {type(expression).__name__}")
    symbols = sorted(str(s) for s in expression.free_symbols)
    if len(symbols) > 1:
        raise ApproximationError(f"formula {text}: more than one variable ({', '.join(symbols)})")
    for name in sorted({type(node).__name__ for node in expression.atoms(sympy.Function)}):
        _check_name(name, text)
    nodes = list(_first(sympy.preorder_traversal(expression), MOST_NODES + 1))
    if len(nodes) > MOST_NODES:
        raise ApproximationError(f"formula {text}: it has more than {MOST_NODES} parts")
    made: dict[Any, Any] = {}
    for node in reversed(nodes):
        if node not in made:
            made[node] = _rebuilt_node(node, [made[argument] for argument in node.args], text)
    return made[expression]


def _first(items: Iterator[Any], count: int) -> Iterator[Any]:
    for _, item in zip(range(count), items, strict=False):
        yield item


def _rebuilt_node(node: Any, arguments: list[Any], text: str) -> Any:
    import sympy

    if node.is_Symbol:
        return symbol()
    if node.is_Rational or node in (sympy.pi, sympy.E, sympy.I):
        return node
    if node.is_Float:
        return sympy.Rational(str(node))
    if node.is_Add or node.is_Mul:
        return node.func(*arguments)
    if node.is_Pow:
        return representable(power_of(*arguments))
    name = node.func.__name__
    _check_name(name, text)
    return representable(formula_functions()[name](*arguments))


def _check_name(name: str, text: str) -> None:
    if name in REFUSED:
        raise ApproximationError(f"formula {text}: {name} cannot be approximated: {REFUSED[name]}")
    if name not in formula_functions():
        raise ApproximationError(f"formula {text}: unknown function {quoted(name)}{hint(name)}")
