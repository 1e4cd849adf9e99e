"""Approximants: an expression for a function on a domain, with everything known about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from odp.approximations.expression import Expression, OperationCounts
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.target import TARGETS, Target
from odp.approximations.tolerance import Tolerance

if TYPE_CHECKING:
    from odp.approximations.fixed_point.certified import CertifiedProgram

__all__ = ["Approximant", "Parameters"]

ParameterValue = int | float | str | bool


class Parameters(Mapping[str, ParameterValue]):
    """A frozen, hashable mapping: the parameters that a scheme was used with.

    >>> Parameters(degree=3, form="horner")["degree"]
    3
    """

    __slots__ = ("_items",)

    def __init__(self, **items: ParameterValue) -> None:
        self._items = tuple(items.items())

    def __getitem__(self, key: str) -> ParameterValue:
        for name, value in self._items:
            if name == key:
                return value
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items))

    def __repr__(self) -> str:
        return f"Parameters({', '.join(f'{name}={value!r}' for name, value in self._items)})"


@dataclass(frozen=True)
class Approximant:
    """A function on a domain, and the expression that replaces it there.

    Attributes:
        function: what is approximated.
        domain: where the errors below hold.
        expression: the rational expression; all its constants are numbers of the target's
            arithmetic, so the graph that is emitted is the one that was measured.
        scheme: name of the scheme that made it.
        parameters: what the scheme was used with: degree, squarings, steps, ...
        description: scheme and parameters for a person.
        absolute_error: largest absolute error on `domain` in real arithmetic.
        relative_error: largest relative error; None where the function has a zero there, or where
            only the absolute one could be proven.
        error_kind: ``certified`` (the errors are proven upper bounds, `tolerance` is kept, and no
            divisor vanishes on `domain`) or ``measured`` (maxima over a dense grid; nothing is
            proven).
        float32_error: largest absolute error on the grid when evaluated in float32.
        safe_interval: where it stays sane outside `domain`; see `measure.safe_interval`.
        relative: whether it was chosen by relative error.
        target: where it is meant to run.
        tolerance: the budget that it was chosen for; None for a point of a front, and where the
            operations were limited instead.
        fixed_point: the certified integer program, if the target computes with integers: the
            errors above are then its errors, every rounding included; otherwise None.
    """

    function: Function
    domain: Interval
    expression: Expression
    scheme: str
    parameters: Parameters
    description: str
    absolute_error: float
    relative_error: float | None
    error_kind: Literal["measured", "certified"]
    float32_error: float
    safe_interval: Interval
    relative: bool = False
    target: Target = TARGETS["float32"]
    tolerance: Tolerance | None = None
    fixed_point: CertifiedProgram | None = None

    def __call__(self, x: Any) -> Any:
        """The expression at `x`; see `Expression.__call__` for the types it takes."""
        return self.expression(x)

    @property
    def error(self) -> float:
        """The error it was chosen by: relative or absolute."""
        if self.relative and self.relative_error is not None:
            return self.relative_error
        return self.absolute_error

    @property
    def certified_error(self) -> float | None:
        """The error it was chosen by if that is a proven bound; None if it is only measured."""
        if self.error_kind != "certified" or (self.relative and self.relative_error is None):
            return None
        return self.error

    @property
    def counts(self) -> OperationCounts:
        """Operations of the expression."""
        return self.expression.counts

    @property
    def cost(self) -> OperationCounts:
        """Operations of the expression; the same as `counts`."""
        return self.expression.counts

    def emit(self, language: str, name: str | None = None) -> str:
        """Source text in ``python``, ``c``, ``triton`` or ``latex``; see `emit_source`."""
        from odp.approximations.emitters.emit_source import emit_source

        return emit_source(self, language, name)

    def _repr_latex_(self) -> str:
        return rf"$\displaystyle {self.expression.to_latex()}$"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, strings, lists and dicts, ready for JSON.

        Infinite bounds become None; the expression is given as Python source.
        """
        counts = self.counts
        return {
            "function": self.function.name,
            "domain": _bounds(self.domain),
            "scheme": self.scheme,
            "target": self.target.name,
            "parameters": dict(self.parameters),
            "description": self.description,
            "absolute_error": self.absolute_error,
            "relative_error": self.relative_error,
            "error_kind": self.error_kind,
            "float32_error": self.float32_error,
            "safe_interval": _bounds(self.safe_interval),
            "relative": self.relative,
            "certified_error": self.certified_error,
            "multiplications": counts.multiplications,
            "constant_multiplications": counts.constant_multiplications,
            "divisions": counts.divisions,
            "additions": counts.additions,
            "depth": counts.depth,
            "python": self.expression.to_python(),
        }

    def __repr__(self) -> str:
        counts = self.counts
        kind = "relative" if self.relative else "absolute"
        return (
            f"<Approximant {self.description} on {self.domain}: {kind} error {self.error:.2g},"
            f" {counts.multiplications} mul, {counts.divisions} div>"
        )


def _bounds(interval: Interval) -> list[float | None]:
    return [x if abs(x) != float("inf") else None for x in (interval.lo, interval.hi)]
