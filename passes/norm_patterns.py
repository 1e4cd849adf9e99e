"""Layer, root-mean-square and instance norms as exporters spell them out, as patterns."""

from __future__ import annotations

from odp.approximations.interval import Interval
from odp.passes.spellings import inverse_root, root, square
from odp.rewriter.graph import Value
from odp.rewriter.pattern import Match, Pattern, number, op
from odp.rewriter.site import SiteBuilder

__all__ = ["inverse_deviation", "normalise", "rewrite_normalise"]


def normalise(numerator: Pattern, deviation_of: Pattern) -> Pattern:
    """`numerator / sqrt(mean(deviation_of^2) + epsilon)` in all its spellings."""
    mean_square = op("reduce_mean", square(deviation_of))
    epsilon = number(lambda epsilon: epsilon > 0, "epsilon")
    regularised = op("add", mean_square, epsilon, capture="regularised")
    # Division by the root, or multiplication by its inverse; without epsilon the norm is left to
    # the rsqrt pass, because nothing then bounds its domain away from zero.
    return op("div", numerator, root(regularised)) | op("mul", numerator, inverse_root(regularised))


def rewrite_normalise(match: Match, numerator: Value, build: SiteBuilder) -> Value:
    """Emit `numerator * rsqrt(regularised)`."""
    domain = Interval(match.number("epsilon"), float("inf"))
    inverse = build.function("rsqrt", match.nodes["regularised"].output, domain=domain)
    return build.mul(numerator, inverse)


def inverse_deviation(variance: Value, epsilon: float, build: SiteBuilder) -> Value:
    """Emit `rsqrt(variance + epsilon)`."""
    regularised = build.add(variance, epsilon) if epsilon else variance
    return build.function("rsqrt", regularised, domain=Interval(epsilon, float("inf")))
