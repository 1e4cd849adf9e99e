"""The proof of error bounds: Taylor models on adaptive boxes.

A domain is cut into boxes, on all of which the error ``expression - function`` is bounded at once
by Taylor models in float64 with rigorous radii (`taylor_model`, `error_bounds`).  Boxes whose bound
is above the goal are cut again; those that float64's rounding cannot decide are bounded in ball
arithmetic (`ball_bounds`).  No box may contain a zero of a divisor, so a finished proof is also the
proof that no divisor vanishes on the domain.  Where function and expression have a symmetry that
their structure proves, half of the domain is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.expression import Expression
from odp.approximations.functions.ball_precision import ball_precision, flint_installed
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.proofs.boxes import Cuts
from odp.approximations.proofs.error_bounds import (
    ErrorBounds,
    ball_share,
    function_models,
    share_bounds,
)
from odp.approximations.proofs.expression_symmetry import expression_symmetry
from odp.approximations.proofs.taylor_model import TERMS, ModelAlgebra, TaylorModels
from odp.approximations.tolerance import Tolerance

__all__ = ["SHARPNESS", "WORK", "ErrorProof"]

Array = NDArray[np.float64]

SHARPNESS = 0.01
"""How far a bound may be above the largest error seen."""

WORK = 3_000_000
"""About half a second; a unit is one operation of the expression on one box, 0.15 microseconds."""

_BOXES_AT_ONCE = 512
# What numpy's calls, a function's series and ball arithmetic cost, in these units.
_WORK_PER_CALL, _WORK_PER_SERIES, _WORK_PER_BALL = 100, 100, 20
_SERIES_LENGTH = 32
_MOST_PARTS = 4
# Share of the error that a proof on half a domain may lose.
_NEGLIGIBLE = 1e-3
# Share of the domain from which on values without derivatives may do.
_NARROW = 2.0**-12


@dataclass
class _Boxes:
    """Boxes with what is not yet proven on them, by row of kinds of error."""

    lo: Array
    hi: Array
    in_balls: NDArray[np.bool_]
    pending: NDArray[np.bool_]

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.intp] | slice) -> _Boxes:
        return _Boxes(
            self.lo[chosen], self.hi[chosen], self.in_balls[chosen], self.pending[:, chosen]
        )

    def __len__(self) -> int:
        return int(self.lo.size)

    @staticmethod
    def joined(parts: list[_Boxes]) -> _Boxes:
        return _Boxes(
            np.concatenate([part.lo for part in parts]),
            np.concatenate([part.hi for part in parts]),
            np.concatenate([part.in_balls for part in parts]),
            np.concatenate([part.pending for part in parts], axis=1),
        )


class ErrorProof:
    """Adaptive cutting of one domain.

    Attributes:
        boxes: how many were evaluated.
        lower: proven lower bounds of the largest errors, by kind.
    """

    def __init__(
        self,
        expression: Expression,
        function: Function,
        domain: Interval,
        evaluator: Callable[[Any], Any],
        *,
        relative: bool,
        tolerance: Tolerance | None,
    ) -> None:
        from odp.approximations.proofs.ball_bounds import BallBounds

        self.expression, self.function, self.evaluator = expression, function, evaluator
        self.tolerance = tolerance
        needs_ratio = relative or (tolerance is not None and tolerance.relative > 0)
        self.balls = BallBounds(expression, function, evaluator, relative=needs_ratio)
        self.domain, self.offset = self._half(domain, relative)
        self.cuts = Cuts.of(function, around_zero=needs_ratio and function.parity == "odd")
        self.cost = len(expression.nodes())
        self.boxes = 0
        self.lower: dict[str, float] = {}

    @staticmethod
    def start(
        expression: Expression,
        function: Function,
        domain: Interval,
        *,
        relative: bool,
        tolerance: Tolerance | None = None,
    ) -> ErrorProof | None:
        """A proof that may be found; None without python-flint or a ball evaluator."""
        if not flint_installed():
            return None
        from odp.approximations.proofs.arb_evaluation import PRECISION, arb_evaluator

        evaluator = arb_evaluator(function)
        if evaluator is None or not domain.is_finite:
            return None
        with ball_precision(PRECISION, _SERIES_LENGTH):
            return ErrorProof(
                expression, function, domain, evaluator, relative=relative, tolerance=tolerance
            )

    def _half(self, domain: Interval, relative: bool) -> tuple[Interval, float]:
        """Half of a domain on which all errors occur, up to an offset, or the whole of it."""
        if not domain.lo < 0 < domain.hi or (self.tolerance and self.tolerance.histogram):
            return domain, 0.0
        half = Interval(0.0, domain.magnitude)
        found = expression_symmetry(self.expression)
        if found is None:
            return domain, 0.0
        if found.parity == self.function.parity and found.centre == 0:
            return half, 0.0
        if found.parity == "odd" and self.function.centre is not None:
            if relative or self.tolerance:
                return domain, 0.0
            # e(-x) = 2 e(0) - e(x), also where the centre of the function is irrational.
            offset = 2 * self.balls.at_most(0.0)
            seen = max(self.balls.at(end).absolute for end in (domain.lo, domain.hi))
            return (half, offset) if offset <= _NEGLIGIBLE * seen else (domain, 0.0)
        return domain, 0.0

    def run(
        self, goals: dict[str, float], work: int, sharpness: float = SHARPNESS
    ) -> dict[str, float]:
        """Cut boxes until all are within the goals, or the work is used up.

        Returns:
            The proven upper bounds, of those kinds of error for which there is one.
        """
        from odp.approximations.proofs.arb_evaluation import PRECISION

        with ball_precision(PRECISION, _SERIES_LENGTH), np.errstate(all="ignore"):
            return self._run(dict(goals), work, sharpness)

    def _run(self, goals: dict[str, float], work: int, sharpness: float) -> dict[str, float]:
        kinds = list(goals)
        goal = np.array([goals[kind] for kind in kinds])
        bound, lower = np.zeros(len(kinds)), np.zeros(len(kinds))
        for end in (self.domain.lo, self.domain.hi):
            errors = self.balls.at(end)
            for row, kind in enumerate(kinds):
                lower[row] = max(lower[row], getattr(errors, kind, 0.0))
        boxes = self._boxes(self.cuts.first(self.domain), np.ones(len(kinds), np.bool_), False)
        failed = np.zeros(len(kinds), np.bool_)
        # One kind of error after the other, so that the first is not left for want of work.
        while boxes.pending.any():
            row = int(np.flatnonzero(boxes.pending.any(axis=1))[0])
            chosen = np.flatnonzero(boxes.pending[row])[:_BOXES_AT_ONCE]
            others = np.ones(len(boxes), np.bool_)
            others[chosen] = False
            now, later = boxes[chosen], boxes[others]
            work -= self._cost(now)
            if work < 0:
                failed |= boxes.pending.any(axis=1)
                break
            self.boxes += len(now)
            found = self._bounds(now, kinds)
            lower = np.maximum(lower, np.fmax.reduce(found.lower, axis=1, initial=0.0))
            goal = np.where(lower > goal, lower * (1 + sharpness), goal)
            below = found.upper <= goal[:, None]
            proven = np.where(now.pending & below, found.upper, 0.0)
            bound = np.maximum(bound, proven.max(axis=1))
            now.pending &= ~below
            smaller, stuck = self._smaller(now, found, goal)
            boxes = _Boxes.joined([later, *smaller])
            if stuck.any():
                failed |= stuck
                boxes.pending[stuck] = False
                boxes = boxes[np.flatnonzero(boxes.pending.any(axis=0))]
                if failed[0]:
                    break
        if self.offset:
            bound = np.nextafter(bound + self.offset, math.inf)
            lower = np.maximum(np.nextafter(lower - self.offset, -math.inf), 0.0)
        self.lower = dict(zip(kinds, lower.tolist(), strict=True))
        return {
            kind: float(bound[row])
            for row, kind in enumerate(kinds)
            if not failed[row] and not failed[0]
        }

    def _boxes(
        self, cut: list[tuple[float, float]], pending: NDArray[np.bool_], in_balls: bool
    ) -> _Boxes:
        return _Boxes(
            np.array([lo for lo, _ in cut]),
            np.array([hi for _, hi in cut]),
            np.array([in_balls or self.cuts.touches(lo, hi) for lo, hi in cut], np.bool_),
            np.repeat(pending[:, None], len(cut), axis=1),
        )

    def _cost(self, boxes: _Boxes) -> int:
        balls = int(boxes.in_balls.sum())
        models = len(boxes) - balls
        cost = balls * _WORK_PER_BALL * (self.cost + 20)
        if models:
            cost += self.cost * (models + _WORK_PER_CALL) + models * _WORK_PER_SERIES
        return cost

    def _bounds(self, boxes: _Boxes, kinds: list[str]) -> ErrorBounds:
        """Bounds of all kinds of error, one row for each, on all boxes."""
        shape = (len(kinds), len(boxes))
        found = ErrorBounds(
            np.full(shape, math.inf), np.zeros(shape), np.zeros(shape), np.zeros(shape)
        )
        models = ~boxes.in_balls
        if models.any():
            for row, bounds in enumerate(self._model_bounds(boxes[models], kinds)):
                found.upper[row, models] = bounds.upper
                found.lower[row, models] = bounds.lower
                found.truncation[row, models] = bounds.truncation
                found.rounding[row, models] = bounds.rounding
        for index in np.flatnonzero(boxes.in_balls):
            upper, lower = self._ball_bounds(float(boxes.lo[index]), float(boxes.hi[index]))
            found.upper[:, index] = [upper[kind] for kind in kinds]
            found.lower[:, index] = [lower[kind] for kind in kinds]
            found.truncation[:, index] = found.upper[:, index]
        return found

    def _model_bounds(self, boxes: _Boxes, kinds: list[str]) -> Iterator[ErrorBounds]:
        middle = boxes.lo + (boxes.hi - boxes.lo) / 2
        radius = np.maximum(boxes.hi - middle, middle - boxes.lo)
        radius = np.nextafter(radius, math.inf)
        value = self.expression.emit(ModelAlgebra(), x=TaylorModels.variable(middle, radius))
        exact = function_models(self.evaluator, middle, radius)
        error = value - exact
        for kind in kinds:
            if kind == "absolute":
                yield ErrorBounds.of(error)
            elif kind == "relative":
                yield ErrorBounds.of(error / exact)
            else:
                assert self.tolerance is not None
                yield share_bounds(error, exact, self.tolerance, middle, radius)

    def _ball_bounds(self, lo: float, hi: float) -> tuple[dict[str, float], dict[str, float]]:
        """Upper bounds of the errors on a box, and lower ones of their maxima, by kind."""
        errors = self.balls(lo, hi)
        upper = {"absolute": errors.absolute, "relative": errors.relative}
        if self.tolerance is not None:
            upper["share"] = ball_share(
                self.tolerance, errors.absolute, errors.relative, errors.smallest, lo, hi
            )
        # The middle of a box around 0 is in the domain, also where the box reaches beyond it.
        return upper, errors.middle._asdict() | {"share": 0.0}

    def _smaller(
        self, boxes: _Boxes, found: ErrorBounds, goal: Array
    ) -> tuple[list[_Boxes], NDArray[np.bool_]]:
        """What to look at instead of boxes that are not proven, and what they can never prove."""
        result: list[_Boxes] = [boxes[:0]]
        stuck = np.zeros(goal.size, np.bool_)
        rounded = np.isfinite(found.upper) & (found.truncation <= found.rounding)
        # A kink, or a branch point that nobody declared: its values may still be enclosed.  The
        # models of the function are not numbers there; zeros of divisors make infinite radii.
        narrow = boxes.hi - boxes.lo <= self.domain.width * _NARROW
        rounded |= np.isnan(found.upper) & narrow
        rounded &= boxes.pending & ~boxes.in_balls
        room = np.maximum(goal[:, None] - found.lower - found.truncation, goal[:, None] * 0.003)
        excess = np.where(boxes.pending, found.truncation / room, 0.0)
        parts = np.where(np.isfinite(excess), np.ceil(excess ** (1 / TERMS)), _MOST_PARTS)
        parts = np.clip(parts.max(axis=0), 2, _MOST_PARTS)
        for index in np.flatnonzero(boxes.pending.any(axis=0)):
            lo, hi = float(boxes.lo[index]), float(boxes.hi[index])
            pending, in_balls = boxes.pending[:, index], bool(boxes.in_balls[index])
            if rounded[:, index].any():
                result.append(self._boxes([(lo, hi)], pending, True))
                continue
            # A box around 0 may reach beyond a domain that ends there; its parts are not needed.
            cut = [
                box
                for box in self.cuts.split(lo, hi, int(parts[index]))
                if box[0] < self.domain.hi and box[1] > self.domain.lo
            ]
            if not cut:
                stuck |= pending
                continue
            # Next to a special point only the box that touches it needs balls.
            result.append(self._boxes(cut, pending, in_balls and not self.cuts.touches(lo, hi)))
        return result, stuck
