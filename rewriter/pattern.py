"""One small matcher over the neutral vocabulary.

A pattern is written once and works on every adapter.  `add`, `mul`, `max` and `min` match in both
orders; `|` gives alternatives; a variable that occurs twice must be the same value; `identity`
nodes and casts between floating-point types are looked through.  Every failed attempt can say which
node did not fit and why, which is what `--explain` prints.

    >>> from odp.rewriter.pattern import number, op, variable
    >>> x = variable("x")
    >>> half_sigmoid = op("mul", x, op("sigmoid", x)) | op("silu", x)
    >>> sorted(half_sigmoid.roots())
    ['mul', 'silu']
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odp.rewriter.graph import VOCABULARY, Node, Value

__all__ = [
    "Attempt",
    "Match",
    "Pattern",
    "constant",
    "match",
    "number",
    "op",
    "variable",
]

COMMUTATIVE = frozenset({"add", "mul", "max", "min"})


@dataclass(frozen=True)
class Match:
    """A successful match.

    Attributes:
        root: the node whose result is replaced.
        values: what every variable and named constant stands for.
        nodes: what every named operation stands for.
        covered: all nodes that the pattern went through, root first.
    """

    root: Node
    values: dict[str, Value]
    nodes: dict[str, Node]
    covered: tuple[Node, ...]

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def number(self, name: str) -> float:
        """The number that a named scalar constant stands for.

        Raises:
            KeyError: the pattern has no such constant.
        """
        scalar = self.values[name].scalar
        if scalar is None:
            raise KeyError(name)
        return scalar


@dataclass
class Attempt:
    """How far a match got, and what stopped it.

    Attributes:
        visited: every node that was looked at.
        progress: operations and variables that fitted before the best attempt failed.
        node: the node that did not fit.
        reason: why, for a person.
    """

    visited: set[Node] = field(default_factory=set)
    progress: int = -1
    node: Node | None = None
    reason: str = ""

    def fail(self, progress: int, node: Node | None, reason: str) -> None:
        """Remember the failure if no attempt got further."""
        if progress > self.progress:
            self.progress, self.node, self.reason = progress, node, reason


@dataclass(frozen=True)
class _Bindings:
    values: dict[str, Value]
    nodes: dict[str, Node]
    covered: tuple[Node, ...]

    @property
    def progress(self) -> int:
        """How much fitted so far, to tell which alternative came nearest."""
        return len(self.covered) + len(self.values)


class Pattern(ABC):
    """Something that a value can match."""

    @abstractmethod
    def bind(self, value: Value, bound: _Bindings, attempt: Attempt) -> Iterator[_Bindings]:
        """All ways in which `value` fits, given what is bound already."""

    @abstractmethod
    def roots(self) -> frozenset[str]:
        """Operations that the root can have; empty if it can be anything."""

    def __or__(self, other: Pattern) -> Pattern:
        return _Alternatives((self, other))


@dataclass(frozen=True)
class _Variable(Pattern):
    name: str
    predicate: Callable[[Value], bool] | None
    description: str

    def bind(self, value: Value, bound: _Bindings, attempt: Attempt) -> Iterator[_Bindings]:
        known = bound.values.get(self.name)
        if known is not None:
            if _look_through(known) is _look_through(value) or _same_number(known, value):
                yield bound
            else:
                reason = f"'{value.name}' is not the same value as '{known.name}' ({self.name})"
                attempt.fail(bound.progress, value.producer, reason)
            return
        if self.predicate is not None and not self.predicate(value):
            reason = f"'{value.name}' is not {self.description}"
            attempt.fail(bound.progress, value.producer, reason)
            return
        yield _Bindings(bound.values | {self.name: value}, bound.nodes, bound.covered)

    def roots(self) -> frozenset[str]:
        return frozenset()


@dataclass(frozen=True)
class _Operation(Pattern):
    name: str
    operands: tuple[Pattern, ...]
    attributes: dict[str, Any]
    capture: str | None

    def bind(self, value: Value, bound: _Bindings, attempt: Attempt) -> Iterator[_Bindings]:
        value = _look_through(value)
        node = value.producer
        if node is None:
            what = "a constant" if value.constant is not None else "an input of the graph"
            attempt.fail(bound.progress, None, f"expected {self.name}, '{value.name}' is {what}")
            return
        attempt.visited.add(node)
        reason = self._mismatch(node, value)
        if reason is not None:
            attempt.fail(bound.progress, node, reason)
            return
        nodes = bound.nodes | {self.capture: node} if self.capture else bound.nodes
        inner = _Bindings(bound.values, nodes, (*bound.covered, node))
        orders: Iterator[tuple[Value | None, ...]] = iter([node.inputs])
        if self.name in COMMUTATIVE and len(node.inputs) == 2:
            orders = itertools.permutations(node.inputs)
        for operands in orders:
            yield from self._bind_operands(operands, inner, attempt, 0)

    def _mismatch(self, node: Node, value: Value) -> str | None:
        if node.op != self.name:
            return f"expected {self.name}, found {node.op}"
        if node.emitted:
            return f"{node.op} was put there by a pass"
        if value is not node.output:
            return f"'{value.name}' is not the first result of {node.op}"
        if len(node.inputs) < len(self.operands):
            return f"{node.op} has {len(node.inputs)} inputs, expected {len(self.operands)}"
        for attribute, wanted in self.attributes.items():
            found = node.attributes.get(attribute)
            if not (wanted(found) if callable(wanted) else found == wanted):
                return f"{node.op} has {attribute} = {found!r}"
        return None

    def _bind_operands(
        self,
        operands: tuple[Value | None, ...],
        bound: _Bindings,
        attempt: Attempt,
        index: int,
    ) -> Iterator[_Bindings]:
        if index == len(self.operands):
            yield bound
            return
        operand = operands[index]
        if operand is None:
            attempt.fail(bound.progress, bound.covered[-1], f"input {index} is absent")
            return
        for partial in self.operands[index].bind(operand, bound, attempt):
            yield from self._bind_operands(operands, partial, attempt, index + 1)

    def roots(self) -> frozenset[str]:
        return frozenset({self.name})


@dataclass(frozen=True)
class _Alternatives(Pattern):
    patterns: tuple[Pattern, ...]

    def bind(self, value: Value, bound: _Bindings, attempt: Attempt) -> Iterator[_Bindings]:
        for pattern in self.patterns:
            yield from pattern.bind(value, bound, attempt)

    def roots(self) -> frozenset[str]:
        return frozenset().union(*(pattern.roots() for pattern in self.patterns))

    def __or__(self, other: Pattern) -> Pattern:
        return _Alternatives((*self.patterns, other))


def variable(
    name: str, predicate: Callable[[Value], bool] | None = None, description: str = ""
) -> Pattern:
    """Any value; the same name must stand for the same value everywhere in the pattern.

    Args:
        name: key in `Match.values`.
        predicate: what the value must fulfil.
        description: completes "is not ..." when the predicate fails.
    """
    return _Variable(name, predicate, description)


def constant(name: str) -> Pattern:
    """A stored constant of any shape."""
    return _Variable(name, lambda value: value.constant is not None, "a constant")


def number(
    wanted: float | Callable[[float], bool] | None = None, name: str | None = None
) -> Pattern:
    """A stored constant with one element.

    Args:
        wanted: the number itself; or a predicate; None for any number.  A number that half
            precision holds must be equal; others to one part in 1000, because exporters round
            constants to half precision.
        name: key in `Match.values`, for constants whose value is needed later.
    """
    if callable(wanted):
        test, description = wanted, "a constant of the required value"
    elif wanted is None:
        test, description = (lambda _: True), "a scalar constant"
    else:
        target = float(wanted)
        description = f"the constant {target:.6g}"
        tolerance = 0.0 if float(np.float16(target)) == target else 1e-3

        def test(found: float) -> bool:
            return abs(found - target) <= tolerance * abs(target)

    def predicate(value: Value) -> bool:
        scalar = value.scalar
        return scalar is not None and test(scalar)

    key = name if name is not None else f"number#{next(_anonymous)}"
    return _Variable(key, predicate, description)


def op(name: str, *operands: Pattern, capture: str | None = None, **attributes: Any) -> Pattern:
    """An operation of the vocabulary.

    Args:
        name: operation in `VOCABULARY`.
        operands: patterns of the leading inputs; further inputs are not looked at.
        capture: key in `Match.nodes`.
        attributes: required attributes, by value or by a predicate over the value.

    Raises:
        ValueError: `name` is not in the vocabulary (a mistake in a pass, not of a user).
    """
    if name not in VOCABULARY:
        raise ValueError(f"'{name}' is not in the vocabulary of odp.rewriter.graph")
    return _Operation(name, operands, attributes, capture)


def match(pattern: Pattern, node: Node, attempt: Attempt | None = None) -> Match | None:
    """Match the first result of `node`; `attempt` is filled with the best failure, if given."""
    attempt = Attempt() if attempt is None else attempt
    bound = next(pattern.bind(node.output, _Bindings({}, {}, ()), attempt), None)
    if bound is None:
        return None
    return Match(node, bound.values, bound.nodes, bound.covered)


_anonymous = itertools.count()


def _look_through(value: Value) -> Value:
    """Skip identities and casts between floating-point types: the mathematics stays the same."""
    while True:
        node = value.producer
        if node is None or node.op not in ("identity", "cast") or not node.inputs:
            return value
        source = node.inputs[0]
        if source is None:
            return value
        floating = value.is_floating and source.is_floating and source.dtype is not None
        if node.op == "cast" and not floating:
            return value
        value = source


def _same_number(a: Value, b: Value) -> bool:
    return a.scalar is not None and a.scalar == b.scalar
