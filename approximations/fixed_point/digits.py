"""How many digits each intermediate needs: derivatives of the result by all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression
from odp.approximations.interval import Interval

__all__ = ["extra_digits", "input_range", "sample_points", "sensitivities"]

Array = NDArray[np.float64]

_SAMPLES = 513
# Beyond this the expression is close to a pole: refusing is up to the analysis.
_MOST_DIGITS = 300


def input_range(domain: Interval, input_scale: int) -> tuple[int, int]:
    """The smallest and largest integer whose value lies in `domain`.

    Raises:
        ApproximationError: if there are not two of them, or a bound is infinite.

    >>> input_range(Interval(0.01, 100), 7)
    (2, 12800)
    """
    if not domain.is_finite:
        raise ApproximationError(f"fixed point on {domain}: give finite bounds")
    unit = Fraction(2) ** -input_scale
    lowest = math.ceil(Fraction(domain.lo) / unit)
    highest = math.floor(Fraction(domain.hi) / unit)
    if lowest >= highest:
        raise ApproximationError(
            f"fixed point on {domain}: fewer than two multiples of 2^-{input_scale} lie there;"
            " use a larger input scale"
        )
    return lowest, highest


def sample_points(domain: Interval) -> Array:
    """About a thousand points of a domain, denser at its ends and at its small end."""
    lo, hi = domain.lo, domain.hi
    parts = [(lo + hi) / 2 - (hi - lo) / 2 * np.cos(np.linspace(0.0, math.pi, _SAMPLES))]
    if not domain.contains(0.0):
        near, far = sorted((abs(lo), abs(hi)))
        parts.append(math.copysign(1.0, lo) * np.geomspace(near, far, _SAMPLES))
    return np.unique(np.clip(np.concatenate(parts), lo, hi))


def sensitivities(
    expression: Expression, x: Array, constants: Mapping[Expression, Fraction] | None = None
) -> tuple[dict[Expression, Array], dict[Expression, Array]]:
    """The value of every node of an expression at points, and the derivative by every node.

    Args:
        expression: in the variable ``x``.
        x: points, shape (points,).
        constants: what some of the constants are instead.

    Returns:
        For every node two arrays of that shape: its value, and by how much the result changes with
        a change of that node alone (reverse accumulation in float64).
    """
    nodes = expression.nodes()
    values: dict[Expression, Array] = {}
    adjoint: dict[Expression, Array] = {}
    with np.errstate(all="ignore"):
        for node in nodes:
            if node.op == "variable":
                values[node] = x
            elif node.op == "constant":
                values[node] = np.full_like(x, float((constants or {}).get(node, node.value)))
            else:
                a, b = (values[operand] for operand in node.operands)
                values[node] = _OPERATIONS[node.op](a, b)
            adjoint[node] = np.zeros_like(x)
        adjoint[expression] = np.ones_like(x)
        for node in reversed(nodes):
            if not node.operands:
                continue
            left, right = node.operands
            here = adjoint[node]
            if node.op == "mul":
                adjoint[left] = adjoint[left] + here * values[right]
                adjoint[right] = adjoint[right] + here * values[left]
            elif node.op == "div":
                quotient = here / values[right]
                adjoint[left] = adjoint[left] + quotient
                adjoint[right] = adjoint[right] - quotient * values[node]
            else:
                adjoint[left] = adjoint[left] + here
                adjoint[right] = adjoint[right] + (here if node.op == "add" else -here)
    return values, adjoint


_OPERATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
}


def extra_digits(
    expression: Expression, domain: Interval, *, relative: bool
) -> dict[Expression, int]:
    """The digits e that every node of an adapted program has beyond the guard bits.

    Args:
        expression: in the variable ``x``.
        domain: where it is used.
        relative: whether the relative error of the result counts; a rounding may then move the
            result the more the larger it is.

    Raises:
        ApproximationError: if the expression or a derivative of it is not finite on the domain.
    """
    values, derivatives = sensitivities(expression, sample_points(domain))
    with np.errstate(all="ignore"):
        size = np.abs(values[expression])
        weight = size.min() / size if relative else np.ones_like(size)
        digits: dict[Expression, int] = {}
        for node in values:
            effect = float((np.abs(derivatives[node]) * weight).max())
            largest = float(np.abs(values[node]).max())
            if not (math.isfinite(effect) and math.isfinite(largest)):
                raise ApproximationError(
                    f"fixed point on {domain}: the expression or its derivative is not finite there"
                )
            # A self-correcting iteration hardly feels a rounding of its start, but only while
            # that is small: as many significant digits as the result has are kept.
            wanted = max(_binary_logarithm(effect), -_binary_logarithm(largest))
            digits[node] = max(-_MOST_DIGITS, min(_MOST_DIGITS, wanted))
    return digits


def _binary_logarithm(size: float) -> int:
    """Rounded up; far below everything for 0."""
    return math.ceil(math.log2(size)) if size else -_MOST_DIGITS
