"""What a scheme is: a family of expressions for a function on a domain, cheapest first."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from odp.approximations.approximant import Parameters, ParameterValue
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.target import TARGETS, Target
from odp.approximations.tolerance import Tolerance

__all__ = ["Candidate", "ComparisonScheme", "Request", "Scheme", "in_form"]

Array = NDArray[np.float64]

SubApproximation = Callable[[str, Interval, float, bool, tuple[str, ...] | None], Expression]


def _no_approximation(
    name: str, domain: Interval, error: float, relative: bool, schemes: tuple[str, ...] | None
) -> Expression:
    raise ApproximationError(f"{name} on {domain}: this request has no access to other schemes")


@dataclass(frozen=True)
class Candidate:
    """An expression that a scheme proposes.

    Attributes:
        expression: in the variable ``x``; the search rounds its constants for the target.
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
        cost_limit: candidates at or above this cost are not wanted.
        approximate: an expression in ``x`` for (function name, domain, error, relative, names of
            the schemes to use or None for all); schemes build on others through it.
        reached: smallest error that the scheme saw among what it did not propose.
        target: where the expression will run; its costs decide.
        tolerance: the whole budget; None means `error`, absolute or relative.  For a mixed one
            `relative` is False and `error` the largest error allowed anywhere.
    """

    function: Function
    domain: Interval
    error: float
    relative: bool
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    cost_limit: float = math.inf
    approximate: SubApproximation = field(default=_no_approximation, repr=False)
    reached: float = math.inf
    target: Target = TARGETS["float32"]
    tolerance: Tolerance | None = None

    @property
    def mixed(self) -> bool:
        """Whether the budget is neither one absolute nor one relative error."""
        return self.tolerance is not None and self.tolerance.kind == "mixed"

    @property
    def level(self) -> float:
        """What an error weighted by `weigh` must reach."""
        return 1.0 if self.mixed else self.error

    def weigh(self, x: Array, values: Array) -> Array:
        """Weight of the error at `x`, where the function has `values`; it may be infinite.

        1 for an absolute error, 1/|f| for a relative one, 1/(allowed error) for a mixed budget.
        """
        with np.errstate(divide="ignore"):
            if self.mixed and self.tolerance is not None:
                return np.asarray(1 / self.tolerance.allowed(x, values), dtype=np.float64)
            return np.asarray(1 / np.abs(values)) if self.relative else np.ones_like(values)

    def cost(
        self,
        multiplications: float = 0,
        constant_multiplications: float = 0,
        divisions: float = 0,
        additions: float = 0,
        depth: float = 0,
    ) -> float:
        """Cost of operations on the target; `multiplications` are all of them, as in the counts."""
        target = self.target
        if divisions and target.division is None:
            return math.inf
        return (
            target.multiplication * (multiplications - constant_multiplications)
            + target.constant_multiplication * constant_multiplications
            + (target.division or 0.0) * divisions
            + target.addition * additions
            + target.depth * depth
        )

    def polynomial_cost(self, degree: int, *, monic: bool = False) -> float:
        """The least that a polynomial costs in any form of evaluation.

        Horner's form multiplies once by a constant.  Paterson and Stockmeyer's (SIAM J. Comput. 2,
        1973) needs only about sqrt(2 degree) multiplications of two values.
        """
        operations = degree - monic
        if operations <= 0:
            return 0.0
        products = min(max(math.isqrt(2 * degree) - 1, 0), operations)
        horner = self.cost(operations, not monic)
        split = self.cost(operations + products, operations)
        return min(horner, split) + self.cost(depth=math.ceil(math.log2(degree + 1)))

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


def in_form(form: str) -> str:
    """How a description names the form of evaluation: not at all where ``x`` is used as it is.

    >>> in_form("raw"), in_form("clenshaw")
    ('', ', clenshaw')
    """
    return "" if form == "raw" else f", {form}"


class ComparisonScheme(Scheme):
    """A scheme that users ask for by name: of what it makes, minimax makes something closer.

    It applies wherever the function is finite, and never competes by itself.
    """

    def applies(self, function: Function, domain: Interval) -> bool:
        """Every function that is finite on the domain."""
        return True

    def automatic(self, function: Function, domain: Interval) -> bool:
        """No: minimax costs the same for the same type or degree, and is never worse."""
        return False
