"""Constants rounded together: integers at a scale that make the expression's own error smallest.

Rounding each constant to the nearest multiple of ``2^-digits`` loses up to a thousand times where
the effects of the constants nearly cancel.  Here all of them are chosen at once.  The result
depends on small changes of the constants linearly (for a polynomial exactly, for a quotient or a
power to first order), so the search is for integers that make the largest residual of a linear
system smallest, repeated from what was found while that helps: one method for polynomials, rational
functions, chains of squarings and iterations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from odp.approximations.expression import Expression
from odp.approximations.fixed_point.digits import sample_points, sensitivities
from odp.approximations.fixed_point.integer_minimax import integer_minimax
from odp.approximations.fixed_point.lowering import (
    replace_constants,
    round_to_scale,
    shift_constants,
)
from odp.approximations.fixed_point.refusal import FixedPointRefusal
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval

__all__ = ["JointRounding", "round_jointly"]

Array = NDArray[np.float64]

_LINEARISATIONS = 4
# Where the constants depend on each other (a slope and the coefficients after it) only damped steps
# stay small enough for the linear model.
_DAMPINGS = (0.0, 2.0**-8)


@dataclass(frozen=True)
class JointRounding:
    """An expression whose constants are integers at a scale.

    Attributes:
        expression: with the constants found.
        error: its largest error at the sampled points, in real arithmetic.
        nearest_error: that of the expression with every constant rounded by itself.
        method: ``nearest``, ``lattice`` or ``program``: what found it.
    """

    expression: Expression
    error: float
    nearest_error: float
    method: str


def round_jointly(
    expression: Expression,
    function: Function,
    domain: Interval,
    digits: int,
    *,
    extra: Mapping[Expression, int] | None = None,
    relative: bool = False,
) -> JointRounding:
    """Round all constants to multiples of ``2^-(digits + e)`` at once.

    By lattice reduction, and for up to 8 constants by an integer program after it.
    Powers of two that something is multiplied or divided by stay as they are: they are shifts.

    Args:
        expression: in the variable ``x``, close to the best real one of its form.
        function: what it approximates.
        domain: where; finite.
        digits: binary digits after the point.
        extra: e of every constant, as from `digits.extra_digits`; None for 0.
        relative: whether the relative error is to be small.

    Returns:
        The best expression found; never one with a larger error than rounding one by one gives.

    Raises:
        FixedPointRefusal: if a constant divisor rounds to zero.

    >>> from odp.approximations import approximate, get_function
    >>> cubic = approximate("exp", (-1, 0), scheme="minimax", degree=3, error=1e-3).expression
    >>> rounded = round_jointly(cubic, get_function("exp"), Interval(-1, 0), 10)
    >>> rounded.error < 0.7 * rounded.nearest_error
    True
    """
    points = sample_points(domain)
    values = function.numpy(points)
    weight = 1 / np.abs(values) if relative else np.ones_like(values)

    def largest(candidate: Expression) -> float:
        with np.errstate(all="ignore"):
            result = candidate(points) if candidate.variables else float(candidate.value)
            error = float((np.abs(result - values) * weight).max())
        return error if math.isfinite(error) else math.inf

    nearest = round_to_scale(expression, digits, extra)
    best, error, method = nearest, largest(nearest), "nearest"
    nearest_error = error
    shifts = shift_constants(expression)
    free = [n for n in expression.nodes() if n.op == "constant" and n not in shifts]
    units = [Fraction(2) ** -(digits + (extra or {}).get(node, 0)) for node in free]
    # Everything is counted in units from the constants that are nearest.
    rounded = [round(node.value / unit) for node, unit in zip(free, units, strict=True)]
    real = np.array(
        [float(node.value / unit - n) for node, unit, n in zip(free, units, rounded, strict=True)]
    )
    for damping in _DAMPINGS if free else ():
        now, position = {node: node.value for node in free}, real
        for _ in range(_LINEARISATIONS):
            result, derivatives = sensitivities(expression, points, now)
            units_effect = [
                derivatives[node] * float(unit) * weight
                for node, unit in zip(free, units, strict=True)
            ]
            matrix = np.stack(units_effect, axis=1)
            target = (values - result[expression]) * weight + matrix @ position
            if not (np.isfinite(matrix).all() and np.isfinite(target).all()):
                break
            found = integer_minimax(matrix, target, real, damping=damping)
            constants = [n + step for n, step in zip(rounded, found.integers, strict=True)]
            now = {node: n * unit for node, n, unit in zip(free, constants, units, strict=True)}
            position = np.array(found.integers, dtype=np.float64)
            try:
                candidate = replace_constants(expression, {c.value: v for c, v in now.items()})
            except FixedPointRefusal:
                break
            reached = largest(candidate)
            if not reached < error * (1 - 1e-6):
                break
            best, error, method = candidate, reached, found.method
        if method != "nearest":
            break
    return JointRounding(best, error, nearest_error, method)
