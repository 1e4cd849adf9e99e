"""Terms: what a kernel computes, as an immutable graph over its operands.

An `Expression` has one variable and + - * /.  A kernel has operands (tensors, weights, one number
a row), compares, reduces rows and reaches into the bits of a float; a `Term` has all of that, takes
expressions in as they are (`embed`), and is closed under differentiation (`gradient.py`).  One
graph is the source of the Triton kernel (`triton_source.py`) and of what runs on a CPU
(`torch_evaluation.py`), so the two cannot drift apart.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Container, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from odp.approximations.algebra import Algebra, OperatorAlgebra
from odp.approximations.expression import Expression

__all__ = [
    "OPERANDS",
    "OPERATIONS",
    "REDUCTIONS",
    "Term",
    "absolute",
    "column_index",
    "columns",
    "constant",
    "embed",
    "equal",
    "exponent",
    "greater",
    "half_exponent",
    "half_significand",
    "input_column",
    "input_elements",
    "input_row",
    "input_row_integer",
    "is_integer",
    "is_row",
    "maximum",
    "minimum",
    "nodes",
    "round_half_even",
    "row_in_group",
    "row_max",
    "row_sum",
    "scalar",
    "scalar_integer",
    "scale_by_power",
    "significand",
    "where",
]

OPERANDS: Final = ("elements", "column", "row", "row_integer", "scalar", "scalar_integer")
"""What a kernel is given: a number an element, a column (a weight), a row, or one for all."""

REDUCTIONS: Final = ("row_sum", "row_max")
"""Operations that make one number of a row."""

OPERATIONS: Final[dict[str, int]] = {
    **dict.fromkeys(("constant", *OPERANDS, "columns", "column_index", "row_in_group"), 0),
    **dict.fromkeys(("add", "sub", "mul", "div", "max", "min", "greater", "equal"), 2),
    **dict.fromkeys(("abs", "round", "exponent", "half_exponent"), 1),
    **dict.fromkeys(("significand", "half_significand", *REDUCTIONS), 1),
    "scale_by_power": 2,
    "where": 3,
}
"""Every operation, and how many operands it takes."""

Number = int | float | Fraction


@dataclass(frozen=True, eq=False, repr=False)
class Term:
    """A node of an immutable, hash-consed graph: equal structure is the same object.

    Attributes:
        op: one of `OPERATIONS`.
        operands: terms.
        name: of an operand of the kernel, otherwise empty.
        value: of a constant, otherwise 0.
    """

    op: str
    operands: tuple[Term, ...] = ()
    name: str = ""
    value: Fraction = Fraction(0)

    def __add__(self, other: Term | Number) -> Term:
        return _add(self, _term(other))

    def __radd__(self, other: Number) -> Term:
        return _add(_term(other), self)

    def __sub__(self, other: Term | Number) -> Term:
        return _sub(self, _term(other))

    def __rsub__(self, other: Number) -> Term:
        return _sub(_term(other), self)

    def __mul__(self, other: Term | Number) -> Term:
        return _mul(self, _term(other))

    def __rmul__(self, other: Number) -> Term:
        return _mul(_term(other), self)

    def __truediv__(self, other: Term | Number) -> Term:
        return _div(self, _term(other))

    def __rtruediv__(self, other: Number) -> Term:
        return _div(_term(other), self)

    def __neg__(self) -> Term:
        return _sub(constant(0), self)

    def __repr__(self) -> str:
        if self.op == "constant":
            return f"{float(self.value):g}"
        if not self.operands:
            return self.name or self.op
        return f"{self.op}({', '.join(map(repr, self.operands))})"


_INTERNED: Final[weakref.WeakValueDictionary[Any, Term]] = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


def _make(op: str, *operands: Term, name: str = "", value: Fraction = Fraction(0)) -> Term:
    assert len(operands) == OPERATIONS[op], op
    key = (op, tuple(map(id, operands)), name, value.numerator, value.denominator)
    with _LOCK:
        term = _INTERNED.get(key)
        if term is None:
            # A term keeps its operands alive, so their ids are not given to others.
            term = Term(op, operands, name, value)
            _INTERNED[key] = term
        return term


def _term(value: Term | Number) -> Term:
    return value if isinstance(value, Term) else constant(value)


def _is(term: Term, value: int) -> bool:
    return term.op == "constant" and term.value == value


def _both_constant(a: Term, b: Term) -> bool:
    return a.op == b.op == "constant"


def _add(a: Term, b: Term) -> Term:
    if _both_constant(a, b):
        return constant(a.value + b.value)
    return b if _is(a, 0) else a if _is(b, 0) else _make("add", a, b)


def _sub(a: Term, b: Term) -> Term:
    if _both_constant(a, b):
        return constant(a.value - b.value)
    return a if _is(b, 0) else _make("sub", a, b)


def _mul(a: Term, b: Term) -> Term:
    if _both_constant(a, b):
        return constant(a.value * b.value)
    if _is(a, 0) or _is(b, 0):
        return constant(0)
    return b if _is(a, 1) else a if _is(b, 1) else _make("mul", a, b)


def _div(a: Term, b: Term) -> Term:
    if _both_constant(a, b) and b.value != 0:
        return constant(a.value / b.value)
    return a if _is(b, 1) else constant(0) if _is(a, 0) else _make("div", a, b)


def constant(value: Number) -> Term:
    """An exact constant; kernels compute with the float32 nearest to it."""
    return _make("constant", value=Fraction(value))


def input_elements(name: str) -> Term:
    """A tensor with a number for every element."""
    return _make("elements", name=name)


def input_column(name: str) -> Term:
    """A vector with a number for every column, such as the weight of a norm."""
    return _make("column", name=name)


def input_row(name: str) -> Term:
    """A tensor with a number for every row, such as the largest score of a softmax."""
    return _make("row", name=name)


def input_row_integer(name: str) -> Term:
    """A tensor with an integer for every row, such as the class that cross-entropy expects."""
    return _make("row_integer", name=name)


def scalar_integer(name: str) -> Term:
    """An integer that is known when the kernel is launched."""
    return _make("scalar_integer", name=name)


def scalar(name: str) -> Term:
    """A number that is known when the kernel is launched."""
    return _make("scalar", name=name)


def columns() -> Term:
    """The length of a row."""
    return _make("columns")


def column_index() -> Term:
    """The number of the column, from 0."""
    return _make("column_index")


def row_in_group() -> Term:
    """The number of the row within its group: the query of a row of attention weights."""
    return _make("row_in_group")


def maximum(a: Term | Number, b: Term | Number) -> Term:
    """The larger one; NaN if one is NaN."""
    return _make("max", _term(a), _term(b))


def minimum(a: Term | Number, b: Term | Number) -> Term:
    """The smaller one; NaN if one is NaN."""
    return _make("min", _term(a), _term(b))


def absolute(a: Term) -> Term:
    """Without its sign."""
    return _make("abs", a)


def greater(a: Term | Number, b: Term | Number) -> Term:
    """A condition for `where`."""
    return _make("greater", _term(a), _term(b))


def equal(a: Term | Number, b: Term | Number) -> Term:
    """A condition for `where`."""
    return _make("equal", _term(a), _term(b))


def where(condition: Term, a: Term | Number, b: Term | Number) -> Term:
    """`a` where the condition holds, otherwise `b`."""
    return _make("where", condition, _term(a), _term(b))


def round_half_even(a: Term) -> Term:
    """The nearest integer, for |a| up to 2^22; its derivative is taken to be 0."""
    return _make("round", a)


def scale_by_power(a: Term, power: Term) -> Term:
    """`a * 2^power` for an integer `power` between -126 and 127, made of its bits.

    Exact as long as the result is a normal number, of float32 in a kernel.
    """
    return _make("scale_by_power", a, power)


def significand(a: Term) -> Term:
    """`a / 2^exponent(a)`, in [1/sqrt(2), sqrt(2)) up to 1e-7, for a positive normal `a`.

    NaN for infinity and NaN: what is infinite has overflowed, and is to be seen.
    """
    return _make("significand", a)


def exponent(a: Term) -> Term:
    """The integer e with a / 2^e in [1/sqrt(2), sqrt(2)) up to 1e-7, for a positive normal `a`."""
    return _make("exponent", a)


def half_significand(a: Term) -> Term:
    """`a / 4^half_exponent(a)`, in [1, 4), for a positive normal `a`; NaN like `significand`."""
    return _make("half_significand", a)


def half_exponent(a: Term) -> Term:
    """The integer e with a / 4^e in [1, 4), for a positive normal `a`."""
    return _make("half_exponent", a)


def row_sum(a: Term) -> Term:
    """The sum of a row."""
    return _make("row_sum", a)


def row_max(a: Term) -> Term:
    """The largest number of a row; its derivative is taken to be 0, as a shift needs it."""
    return _make("row_max", a)


def embed(expression: Expression, x: Term) -> Term:
    """An expression of one variable at `x`, operation by operation.

    >>> from odp.approximations.expression import variable
    >>> embed((variable("x") + 1) ** 2, input_elements("x"))
    mul(add(x, 1), add(x, 1))
    """
    algebra: Algebra[Term] = OperatorAlgebra(constant)
    return expression.emit(algebra, **dict.fromkeys(expression.variables, x))


def nodes(roots: Iterable[Term], known: Container[Term] = ()) -> list[Term]:
    """All terms below some, operands before what uses them, but none that is known or below."""
    order: dict[Term, None] = {}
    for root in roots:
        stack: list[tuple[Term, bool]] = [(root, False)]
        while stack:
            term, ready = stack.pop()
            if term in order or term in known:
                continue
            if ready:
                order[term] = None
            else:
                stack.append((term, True))
                stack.extend((operand, False) for operand in reversed(term.operands))
    return list(order)


def is_row(term: Term, known: dict[Term, bool]) -> bool:
    """Whether a term has one number a row (or one for all).

    Args:
        term: what is asked about.
        known: answers so far; extended.
    """
    for node in nodes([term]) if term not in known else ():
        if node.operands and node.op not in REDUCTIONS:
            known[node] = all(known[operand] for operand in node.operands)
        else:
            known[node] = node.op not in ("elements", "column", "column_index")
    return known[term]


def is_integer(term: Term) -> bool:
    """Whether a term counts columns or rows, which kernels do in integers."""
    if term.op in ("column_index", "row_in_group", "row_integer", "scalar_integer"):
        return True
    if term.op == "constant":
        return term.value.denominator == 1
    return term.op in ("add", "sub") and all(is_integer(operand) for operand in term.operands)
