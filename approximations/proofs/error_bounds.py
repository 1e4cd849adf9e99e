"""Bounds of errors on many boxes at once: absolute, relative, share of a tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.proofs.taylor_model import RAISE, TERMS, UNIT_ROUNDOFF, TaylorModels
from odp.approximations.tolerance import Histogram, Tolerance

__all__ = ["ErrorBounds", "ball_share", "function_models", "share_bounds"]

Array = NDArray[np.float64]

# A series over a whole box encloses its remainder the better the longer it is: more terms than the
# models keep halve the number of boxes.
_MORE_TERMS = 6


@dataclass(frozen=True)
class ErrorBounds:
    """What is known of an error on each box; all of it holds in real arithmetic.

    Attributes:
        upper: upper bounds of its magnitude; infinite or NaN where nothing is proven.
        lower: lower bounds of its largest magnitude.
        truncation: the part of `upper` that smaller boxes reduce.
        rounding: the part of `upper` that only more digits reduce.
    """

    upper: Array
    lower: Array
    truncation: Array
    rounding: Array

    @staticmethod
    def of(model: TaylorModels) -> ErrorBounds:
        """The bounds of a model's magnitude."""
        values = np.abs(model.values())
        slack = model.slack()
        return ErrorBounds(
            upper=(values.max(axis=0) + slack) * RAISE,
            # A box may reach a rounding beyond the domain, so its ends do not count.
            lower=values[1:-1].max(axis=0) / RAISE - slack,
            truncation=slack - model.rounding,
            rounding=np.broadcast_to(model.rounding, slack.shape),
        )


def function_models(evaluator: Callable[[Any], Any], middle: Array, radius: Array) -> TaylorModels:
    """The models of a function, from its series in ball arithmetic.

    The Taylor polynomial is that at the exact `middle`; its remainder is enclosed by the last
    coefficient of the series over the whole box (Lagrange).  What cannot be enclosed gets
    coefficients that are not numbers.
    """
    from flint import arb, arb_series

    from odp.approximations.functions.arb_elementary import NoEnclosure, coefficients

    terms = TERMS + _MORE_TERMS
    polynomial = np.full((terms, middle.size), math.nan)
    remainder = np.full(middle.size, math.inf)
    radii = np.full(middle.size, math.inf)
    for index, (m, r) in enumerate(zip(middle.tolist(), radius.tolist(), strict=True)):
        try:
            last = coefficients(evaluator(arb_series([arb(m, r), r], terms + 1)), terms + 1)[-1]
            if not last.is_finite():
                continue
            balls = coefficients(evaluator(arb_series([arb(m), r], terms)), terms)
        except (NoEnclosure, ValueError, ZeroDivisionError):
            continue
        polynomial[:, index] = [float(ball) for ball in balls]
        radii[index] = math.fsum([float(ball.rad()) for ball in balls])
        remainder[index] = float(last.abs_upper())
    magnitudes = np.abs(polynomial)
    # Midpoints are rounded to float64 once, and so are radii and remainders.
    rounding = (radii + 2 * UNIT_ROUNDOFF * magnitudes.sum(axis=0)) * RAISE + 1e-290
    truncation = (remainder + magnitudes[TERMS:].sum(axis=0)) * RAISE
    return TaylorModels(polynomial[:TERMS], truncation, rounding)


def share_bounds(
    error: TaylorModels, exact: TaylorModels, tolerance: Tolerance, middle: Array, radius: Array
) -> ErrorBounds:
    """Bounds of |error| over what a tolerance allows, from bounds on 32 parts of each box.

    With a histogram `lower` is only an estimate.
    """
    errors, slack = np.abs(error.values()), error.slack()
    values, value_slack = exact.values(), exact.slack()
    magnitudes = np.abs(values)
    same_sign = values[1:] * values[:-1] > 0
    smallest = np.minimum(magnitudes[1:], magnitudes[:-1]) / RAISE - value_slack
    smallest = np.where(same_sign, np.maximum(smallest, 0.0), 0.0)
    largest_error = _largest_of_neighbours(errors) + slack
    t = np.linspace(-1.0, 1.0, len(errors))[:, None]
    points = middle + radius * t
    if tolerance.histogram is None:
        weights = np.ones_like(largest_error)
        lightest = np.ones_like(errors)
    else:
        weights = _largest_weights(tolerance.histogram, points)
        lightest = tolerance.histogram.weight(points)
    plain = Tolerance(tolerance.absolute, tolerance.relative, tolerance.ulps)
    # float32 rounds and its spacing grows monotonically: the smallest value has the least spacing.
    upper = largest_error / plain.allowed(points[1:], smallest) * weights
    if tolerance.relative > 0 and tolerance.ulps == 0:
        # The quotient of two models is sharper than the quotient of their bounds.
        whole = (magnitudes.min(axis=0) / RAISE > value_slack) & same_sign.all(axis=0)
        factor = np.where(values[0] > 0, tolerance.relative, -tolerance.relative)[None, :]
        zero = np.zeros(1)
        scaled = TaylorModels(factor, zero, zero) * exact
        ratio = error / (scaled + TaylorModels.constant(Fraction(tolerance.absolute)))
        sharp = (_largest_of_neighbours(np.abs(ratio.values())) + ratio.slack()) * weights
        upper = np.where(whole, np.fmin(upper, sharp), upper)
    reached = (errors / RAISE - slack) / plain.allowed(points, magnitudes + value_slack) * lightest
    scale = upper.max(axis=0) / largest_error.max(axis=0)
    return ErrorBounds(
        upper=upper.max(axis=0) * RAISE**4,
        lower=reached[1:-1].max(axis=0),
        truncation=(slack - error.rounding) * scale,
        rounding=error.rounding * scale,
    )


def _largest_of_neighbours(values: Array) -> Array:
    return np.maximum(values[1:], values[:-1])


def _largest_weights(histogram: Histogram, points: Array) -> Array:
    """Upper bounds of the weight between neighbouring rows of `points`."""
    edges = np.asarray(histogram.edges)
    # Points are rounded relative to the size of their box, not to their own next to 0.
    margin = np.abs(points).max(axis=0) * 2.0**-50 + 1e-290
    lo, hi = points[:-1] - margin, points[1:] + margin
    centres = (edges[:-1] + edges[1:]) / 2
    # Linear between the centres of the bins, so largest at an end or at a centre inside; it drops
    # to the floor outside the histogram.
    inside = np.clip(lo, edges[0], edges[-1]), np.clip(hi, edges[0], edges[-1])
    largest = np.maximum(histogram.weight(inside[0]), histogram.weight(inside[1]))
    for centre, weight in zip(centres, histogram.weight(centres), strict=True):
        largest = np.where((lo <= centre) & (centre <= hi), np.maximum(largest, weight), largest)
    outside = (hi < edges[0]) | (lo > edges[-1])
    return np.asarray(np.where(outside, histogram.floor, largest) * RAISE)


def ball_share(
    tolerance: Tolerance, absolute: float, relative: float, smallest: float, lo: float, hi: float
) -> float:
    """Upper bound of the share of a tolerance that is used on one box.

    Args:
        tolerance: the budget.
        absolute: bound of the absolute error there.
        relative: bound of the relative error there.
        smallest: lower bound of the function's magnitude there.
        lo: lower end of the box.
        hi: upper end of the box.
    """
    plain = Tolerance(tolerance.absolute, tolerance.relative, tolerance.ulps)
    allowed = float(plain.allowed(np.array([lo]), np.array([smallest]))[0])
    share = absolute / allowed if allowed > 0 else math.inf
    if tolerance.relative > 0:
        share = min(share, relative / tolerance.relative)
    weight = 1.0
    if tolerance.histogram is not None:
        weight = float(_largest_weights(tolerance.histogram, np.array([[lo], [hi]]))[0, 0])
    return share * weight * RAISE
