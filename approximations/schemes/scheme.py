"""What a scheme is: a family of expressions for a function on a domain, cheapest first."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from odp.approximations.approximant import Parameters, ParameterValue
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression, OperationCounts
from odp.approximations.function import Function
from odp.approximations.interval import Interval

__all__ = ["Candidate", "Request", "Scheme", "default_cost"]


SubApproximation = Callable[[str, Interval, float, bool, tuple[str, ...] | None], Expression]


def _no_approximation(
    name: str, domain: Interval, error: float, relative: bool, schemes: tuple[str, ...] | None
) -> Expression:
    raise ApproximationError(f"{name} on {domain}: this request has no access to other schemes")


def default_cost(counts: OperationCounts) -> float:
    """Multiplications plus three times the divisions."""
    return counts.multiplications + 3.0 * counts.divisions


@dataclass(frozen=True)
class Candidate:
    """An expression that a scheme proposes.

    Attributes:
        expression: in the variable ``x``, all constants representable in float32.
        parameters: what the scheme was used with.
        description: for a person, for example ``pade (2,2) of exp(x/2^4), 4 squarings``.
    """

    expression: Expression
    parameters: Parameters
    description: str


@dataclass
class Request:
    """What is asked of a scheme.

    Attributes:
        function: what to approximate.
        domain: where; checked against the function's natural domain.
        error: largest error wanted.
        relative: whether that is a relative error.
        parameters: values that the user fixed; the scheme searches the others.
        cost_limit: candidates at or above this default cost are not wanted.
        approximate: an expression in ``x`` for (function name, domain, error, relative, names of
            the schemes to use or None for all); schemes build on others through it.
        reached: smallest error that the scheme saw among what it did not propose.
    """

    function: Function
    domain: Interval
    error: float
    relative: bool
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    cost_limit: float = math.inf
    approximate: SubApproximation = field(default=_no_approximation, repr=False)
    reached: float = math.inf

    def wants(self, cost: float, **parameters: ParameterValue) -> bool:
        """Whether a candidate with this cost and these parameters is asked for."""
        if cost >= self.cost_limit:
            return False
        fixed = self.parameters
        return all(fixed.get(name, value) == value for name, value in parameters.items())

    def accepts(self, estimate: float) -> bool:
        """Whether an estimated error is good enough to build the expression; notes it if not."""
        # The estimate is taken on a coarse grid; the measurement on the dense one decides.
        if estimate <= self.error:
            return True
        if estimate < self.reached:
            self.reached = estimate
        return False


class Scheme(ABC):
    """A family of approximations.

    Attributes:
        name: what users type.
        summary: one line for a person.
        parameters: names of the parameters that users may fix, each with its meaning.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    parameters: ClassVar[Mapping[str, str]]

    @abstractmethod
    def applies(self, function: Function, domain: Interval) -> bool:
        """Whether the scheme has candidates for `function` on `domain`."""

    def automatic(self, function: Function, domain: Interval) -> bool:
        """Whether the scheme competes when the user names none; True unless it cannot win."""
        return True

    @abstractmethod
    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Candidates in order of rising cost, the likely hopeless ones left out."""
