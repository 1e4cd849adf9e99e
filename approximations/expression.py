"""Expressions: small immutable graphs over variables, exact constants and ``+ - * /``.

One expression, many emitters: everything that evaluates or prints an expression (numpy, torch,
exact fractions, mpmath, LaTeX, Python source, ONNX nodes, circuits) is an `Algebra`, and
`Expression.emit` walks the graph once for it.  Evaluation order is part of an expression:
``(x * y) * y`` and ``x * (y * y)`` are two expressions.
"""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal, TypeVar, cast

from odp.approximations.algebra import (
    Algebra,
    OperatorAlgebra,
    filled,
    operators_for,
    real_argument,
)
from odp.approximations.errors import ApproximationError
from odp.approximations.notation import Notation
from odp.approximations.straight_line_program import StraightLineProgram

__all__ = [
    "Expression",
    "OperationCounts",
    "constant",
    "expression_from_rows",
    "expression_rows",
    "variable",
]

Operation = Literal["variable", "constant", "add", "sub", "mul", "div"]
Number = int | float | Fraction
T = TypeVar("T")


@dataclass(frozen=True)
class OperationCounts:
    """Operations of an expression, shared subexpressions counted once.

    Attributes:
        multiplications: all multiplications; ``x * x`` counts.
        constant_multiplications: those of them that have a constant operand.
        divisions: divisions.
        additions: additions and subtractions.
        depth: operations on the longest path from a leaf to the result.
        multiplicative_depth: multiplications and divisions on the path that has most of them.
    """

    multiplications: int
    constant_multiplications: int
    divisions: int
    additions: int
    depth: int
    multiplicative_depth: int


class Expression(Notation):
    """A node of an immutable, hash-consed expression graph.

    Build expressions with `variable`, `constant` and the operators ``+ - * / **``.  Equal
    structure means the same object, so ``==`` and ``hash`` are structural and shared work is
    visible as sharing.  Constants fold exactly; ``x * 1``, ``x + 0`` and ``x / 1`` vanish.

    Attributes:
        op: ``variable``, ``constant``, ``add``, ``sub``, ``mul`` or ``div``.
        operands: the two operands of an operation, otherwise empty.
        name: name of a variable, otherwise an empty string.
        value: exact value of a constant, otherwise 0.

    >>> x = variable("x")
    >>> square = (x + 1) ** 2
    >>> square.counts.multiplications, square(3.0), square(Fraction(1, 2))
    (1, 16.0, Fraction(9, 4))
    """

    __slots__ = ("__weakref__", "_program", "name", "op", "operands", "value")

    op: Operation
    operands: tuple[Expression, ...]
    name: str
    value: Fraction
    _program: StraightLineProgram | None

    # numpy must leave `array * expression` to Expression instead of building an object array.
    __array_ufunc__ = None

    def __init__(self) -> None:
        raise TypeError("build expressions with variable(), constant() and the operators")

    def __setattr__(self, attribute: str, value: object) -> None:
        raise AttributeError("expressions are immutable")

    @staticmethod
    def variable(name: str = "x") -> Expression:
        """The variable `name`; see the function `variable`."""
        return variable(name)

    @staticmethod
    def constant(value: Number) -> Expression:
        """The exact constant `value`; see the function `constant`."""
        return constant(value)

    def __add__(self, other: Expression | Number) -> Expression:
        return _binary("add", self, other)

    def __radd__(self, other: Number) -> Expression:
        return _binary("add", other, self)

    def __sub__(self, other: Expression | Number) -> Expression:
        return _binary("sub", self, other)

    def __rsub__(self, other: Number) -> Expression:
        return _binary("sub", other, self)

    def __mul__(self, other: Expression | Number) -> Expression:
        return _binary("mul", self, other)

    def __rmul__(self, other: Number) -> Expression:
        return _binary("mul", other, self)

    def __truediv__(self, other: Expression | Number) -> Expression:
        return _binary("div", self, other)

    def __rtruediv__(self, other: Number) -> Expression:
        return _binary("div", other, self)

    def __pos__(self) -> Expression:
        return self

    def __neg__(self) -> Expression:
        if self.op == "constant":
            return constant(-self.value)
        if self.op == "sub":
            return _binary("sub", self.operands[1], self.operands[0])
        return _binary("sub", 0, self)

    def __pow__(self, exponent: int) -> Expression:
        """Integer power by repeated squaring; a negative exponent is one division."""
        if not isinstance(exponent, int):
            return NotImplemented
        if exponent < 0:
            return 1 / self ** (-exponent)
        result = constant(1)
        square = self
        while exponent:
            if exponent & 1:
                result = result * square
            exponent >>= 1
            if exponent:
                square = square * square
        return result

    def nodes(self) -> list[Expression]:
        """All nodes, every operand before the nodes that use it; this expression comes last."""
        order: list[Expression] = []
        done: set[Expression] = set()
        stack: list[tuple[Expression, bool]] = [(self, False)]
        while stack:
            node, operands_done = stack.pop()
            if node in done:
                continue
            if operands_done:
                done.add(node)
                order.append(node)
            else:
                stack.append((node, True))
                stack.extend((operand, False) for operand in reversed(node.operands))
        return order

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables, in alphabetical order."""
        return tuple(sorted(self._compiled().variables))

    def _compiled(self) -> StraightLineProgram:
        """The expression as a program, made once: it holds no nodes, so no cycle keeps them."""
        program = self._program
        if program is None:
            program = StraightLineProgram(self.nodes())
            object.__setattr__(self, "_program", program)
        return program

    @property
    def counts(self) -> OperationCounts:
        """Number of operations, every shared node counted once."""
        multiplications = constant_multiplications = divisions = additions = 0
        depth: dict[Expression, int] = {}
        levels: dict[Expression, int] = {}
        for node in self.nodes():
            depth[node] = 1 + max(depth[a] for a in node.operands) if node.operands else 0
            below = max((levels[a] for a in node.operands), default=0)
            levels[node] = below + (node.op in ("mul", "div"))
            if node.op == "mul":
                multiplications += 1
                constant_multiplications += any(a.op == "constant" for a in node.operands)
            elif node.op == "div":
                divisions += 1
            elif node.operands:
                additions += 1
        return OperationCounts(
            multiplications,
            constant_multiplications,
            divisions,
            additions,
            depth[self],
            levels[self],
        )

    def emit(self, algebra: Algebra[T], **variables: T) -> T:
        """Write the expression in another language, every shared node once.

        Args:
            algebra: how to write constants and operations.
            **variables: what each variable is in that language.

        Returns:
            What the algebra made of the whole expression.

        Raises:
            ApproximationError: if a variable of the expression is not given.
        """
        return self._compiled().run(algebra, variables)

    def __call__(self, *arguments: Any, **variables: Any) -> Any:
        """Evaluate through the operators of the argument's own type.

        Args:
            *arguments: values of the variables in alphabetical order (usually just ``x``): Python
                floats; Python integers and fractions (exact); numpy arrays or torch tensors of any
                shape (a floating dtype is kept, integers become floats); lists (as numpy arrays);
                mpmath numbers (at the working precision); sympy, python-flint; expressions.
            **variables: or the values by name.

        Returns:
            The value, of the argument's type; an expression without variables gives its constant
            in that type and shape too.

        Raises:
            ApproximationError: if a value is missing, or is no number.
        """
        names = self.variables
        if len(arguments) > max(len(names), 1):
            raise ApproximationError(
                f"{len(arguments)} values for the variables {', '.join(names) or '(none)'}"
            )
        samples = [real_argument(value) for value in (*arguments, *variables.values())]
        given = dict(zip(names, samples, strict=False))
        given.update(zip(variables, samples[len(arguments) :], strict=True))
        if any(isinstance(sample, Expression) for sample in samples):
            return self._compiled().run(OperatorAlgebra(constant), given)
        value = self._compiled().run(operators_for(samples), given)
        return value if names or not samples else filled(samples[0], value)

    def substitute(self, **replacements: Expression | Number) -> Expression:
        """The expression with variables replaced by expressions or numbers.

        >>> x = variable("x")
        >>> (x * x).substitute(x=x + 1)(2)
        Fraction(9, 1)
        """
        own: dict[str, Expression] = {name: variable(name) for name in self.variables}
        given = {name: _as_expression(value) for name, value in replacements.items()}
        algebra: Algebra[Expression] = OperatorAlgebra(constant)
        return self.emit(algebra, **(own | given))

    def __reduce__(self) -> tuple[Any, ...]:
        # A flat table of rows: pickling the graph node by node would recurse as deep as it is.
        return expression_from_rows, (expression_rows(self),)

    def __copy__(self) -> Expression:
        return self

    def __deepcopy__(self, memo: object) -> Expression:
        return self


_Key = tuple[str, tuple[Expression, ...], str, int, int]
_CONTENT: Final = ("op", "operands", "name", "value")
_INTERNED: Final[weakref.WeakValueDictionary[_Key, Expression]] = weakref.WeakValueDictionary()
_LOCK = threading.Lock()
_ZERO = Fraction(0)


def _intern(
    op: Operation,
    operands: tuple[Expression, ...] = (),
    name: str = "",
    value: Fraction = _ZERO,
) -> Expression:
    """The one node with this content."""
    # Not the fraction itself: its hash is half of the time that this function takes.
    key = (op, operands, name, value.numerator, value.denominator)
    with _LOCK:
        node = _INTERNED.get(key)
        if node is None:
            node = object.__new__(Expression)
            for attribute, content in zip(_CONTENT, (op, operands, name, value), strict=True):
                object.__setattr__(node, attribute, content)
            object.__setattr__(node, "_program", None)
            _INTERNED[key] = node
        return node


def variable(name: str = "x") -> Expression:
    """The variable `name`.

    Raises:
        ApproximationError: if the name is not a Python identifier.
    """
    if not name.isidentifier():
        raise ApproximationError(f"{name!r} is not a variable name: use letters, digits and _")
    return _intern("variable", name=name)


def constant(value: Number) -> Expression:
    """An exact constant; a float stands for exactly the binary number that it is.

    Raises:
        ApproximationError: if the value is infinite or not a number.

    >>> constant(0.1).value == Fraction(1, 10)
    False
    """
    try:
        return _intern("constant", value=Fraction(value))
    except (ValueError, OverflowError, TypeError):
        raise ApproximationError(f"{value!r} cannot be a constant: it is not finite") from None


def _as_expression(value: Expression | Number) -> Expression:
    return value if isinstance(value, Expression) else constant(value)


_FOLD: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
}


def _binary(op: Operation, left: object, right: object) -> Expression:
    """One operation, with constants folded and neutral elements removed."""
    for operand in (left, right):
        if not isinstance(operand, Expression) and not _is_number(operand):
            return NotImplemented  # type: ignore[no-any-return]  # Python then tries the other side
    a = _as_expression(cast("Expression | Number", left))
    b = _as_expression(cast("Expression | Number", right))
    if op == "div" and b.op == "constant" and b.value == 0:
        raise ApproximationError("division by the constant zero in an expression")
    if a.op == "constant" and b.op == "constant":
        return constant(_FOLD[op](a.value, b.value))
    if b.op == "constant":
        if (op in ("add", "sub") and b.value == 0) or (op in ("mul", "div") and b.value == 1):
            return a
        if op == "mul" and b.value == 0:
            return b
    if a.op == "constant":
        if (op == "add" and a.value == 0) or (op == "mul" and a.value == 1):
            return b
        if op in ("mul", "div") and a.value == 0:
            return a
    return _intern(op, (a, b))


def _is_number(value: object) -> bool:
    # numpy's scalars register as numbers too; Fraction accepts what is a Rational or a float.
    return isinstance(value, (int, float, Fraction))


Row = tuple[Operation, tuple[int, ...], str, Fraction]


def expression_rows(expression: Expression) -> list[Row]:
    """The expression as a flat table: operation, numbers of the operands' rows, name, value."""
    nodes = expression.nodes()
    number = {node: index for index, node in enumerate(nodes)}
    return [
        (node.op, tuple(number[a] for a in node.operands), node.name, node.value) for node in nodes
    ]


def expression_from_rows(rows: Sequence[Row]) -> Expression:
    """The expression that `expression_rows` made a table of."""
    nodes: list[Expression] = []
    for op, operands, name, value in rows:
        nodes.append(_intern(op, tuple(nodes[index] for index in operands), name, value))
    return nodes[-1]
