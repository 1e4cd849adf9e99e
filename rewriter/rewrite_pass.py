"""What a pass is: a frozen dataclass that declares patterns and says what to put in their place.

The fields of the dataclass are the options that a user can type, `exp{error=1e-5,scheme=pade}`.
A pass never chooses an approximation itself.  It calls `SiteBuilder.function`, and whoever drives
the rewrite decides what that emits: the native operation, to watch its inputs during calibration;
or the expression that was chosen for that very site.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from odp.approximations.interval import Interval
from odp.rewriter.graph import Value
from odp.rewriter.pattern import Match, Pattern, op, variable

if TYPE_CHECKING:
    from odp.rewriter.site import SiteBuilder

__all__ = [
    "COMPOSITE",
    "ELEMENTARY",
    "EXPANSION",
    "ElementaryPass",
    "Guard",
    "Pass",
    "Refusal",
    "Replacement",
]

Guard = Literal["clip", "none"]
Replacement = Value | Sequence[Value | None]

EXPANSION = 0
"""Stage of passes that unroll a whole operator (LSTM, attention) before anything else looks."""
COMPOSITE = 1
"""Stage of passes that recognise several nodes and know the domain that follows from them."""
ELEMENTARY = 2
"""Stage of passes that replace a single function wherever it is left."""


class Refusal(Exception):
    """Raised by `Pass.rewrite` to leave a node alone; the message goes into the report."""


@dataclass(frozen=True, kw_only=True)
class Pass(ABC):
    """Base of all passes.

    Attributes:
        error: largest error allowed at each site, absolute or relative as the function asks for;
            None takes the value of `--error`.
        relative: whether `error` is relative; None lets the function decide.
        scheme: name of an approximation scheme; None takes the cheapest that meets the error.
        formula: an expression of your own instead, as in `formula=(1+x/8)**8`, taken whatever its
            error unless `error` is given: `name=value` parts between `;`, then the result.
        degree: polynomial degree, for schemes that have one.
        numerator: degree of the numerator, for rational schemes.
        denominator: degree of the denominator, for rational schemes.
        steps: number of iterations, for schemes that iterate.
        step: `newton`, `third`, `fifth` or `halley`, for the schemes newton and goldschmidt.
        seed: what these start from, such as `rational` or `constant`.
        squarings: number of squarings, for schemes that reduce the range by a power of two.
        domain: interval to approximate on instead of the calibrated one.
        margin: how far the calibrated range is widened; None takes the value of `--margin`.
        guard: `clip` or `none`; None takes the value of `--guard`.
        weighted: whether the error may be up to ten times as large where calibration met few
            inputs; what is declared is still the error on the whole domain.
    """

    name: ClassVar[str]
    stage: ClassVar[int]
    patterns: ClassVar[Mapping[str, Pattern]]
    parts: ClassVar[Mapping[str, tuple[str, ...]]]
    anchors: ClassVar[frozenset[str]]
    in_all: ClassVar[bool] = True

    error: float | None = None
    relative: bool | None = None
    scheme: str | None = None
    formula: str | None = None
    degree: int | None = None
    numerator: int | None = None
    denominator: int | None = None
    steps: int | None = None
    step: str | None = None
    seed: str | None = None
    squarings: int | None = None
    domain: Interval | None = None
    margin: float | None = None
    guard: Guard | None = None
    weighted: bool | None = None

    @abstractmethod
    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        """Emit what stands in for the results of `match.root`.

        Returns:
            One value for the first result, or one per result (None for a result that is unused).

        Raises:
            Refusal: the match must be left alone, with the reason.
        """

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring, for `--list-passes`."""
        return (inspect.getdoc(cls) or "").splitlines()[0]

    def options(self) -> dict[str, Any]:
        """The options that were set, as plain values."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {
            name: str(value) if isinstance(value, Interval) else value
            for name, value in pairs
            if value is not None
        }

    def scheme_parameters(self) -> dict[str, int | str]:
        """The options that are handed on to the approximation scheme."""
        names = ("degree", "numerator", "denominator", "steps", "step", "seed", "squarings")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class ElementaryPass(Pass):
    """A pass that replaces one operation of one operand by the function of the same name."""

    stage: ClassVar[int] = ELEMENTARY

    def __init_subclass__(cls) -> None:
        """Declare the one pattern, unless the subclass declares its own."""
        super().__init_subclass__()
        if "patterns" not in cls.__dict__:
            cls.patterns = {cls.name: op(cls.name, variable("x"))}
        if "parts" not in cls.__dict__:
            cls.parts = dict.fromkeys(cls.patterns, (cls.name,))
        if "anchors" not in cls.__dict__:
            cls.anchors = frozenset({cls.name})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        return build.function(self.name, match["x"])
