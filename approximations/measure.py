"""Measured errors: an expression against its function on a dense grid, in float64 and float32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from odp.approximations.error_analysis import denominators
from odp.approximations.expression import Expression
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.tolerance import Tolerance

__all__ = ["UNIT_ROUNDOFF", "Grid", "Measurement", "measure", "measurement_grid", "safe_interval"]

Array = NDArray[np.float64]

UNIT_ROUNDOFF = 2.0**-24
"""Unit roundoff of float32 with rounding to nearest."""

_CHEBYSHEV_POINTS = 4097
_LOGARITHMIC_POINTS = 1024
# A sine has this many oscillations before 4097 points resolve it too coarsely.
_WIDE = 256.0


@dataclass(frozen=True)
class Grid:
    """Where a function is compared on a domain, with the values it has there.

    Attributes:
        points: ascending float64; all but the two endpoints are representable in float32.
        reference: the function at `points`.
        inner: which of the points float32 represents.
        single: those points in float32.
        has_zero: whether the function vanishes or changes sign on the domain.
        scale: largest |f(x)|.
        float32_floor: absolute error below which float32 cannot be asked to go: 4 roundings of
            the largest value plus 4 times the effect of rounding the input once.
        relative_floor: the same for the relative error.
    """

    points: Array
    reference: Array
    inner: NDArray[np.bool_]
    single: NDArray[np.float32]
    has_zero: bool
    scale: float
    float32_floor: float
    relative_floor: float


@lru_cache(maxsize=256)
def measurement_grid(function: Function, domain: Interval) -> Grid:
    """The grid for a function and a domain: at least 4097 points.

    Chebyshev-spaced points over the domain (16385 on very wide ones), plus points whose
    magnitudes are logarithmically spaced, which resolve a narrow transition at the origin of a
    wide domain and the small end of a domain of positive numbers.
    """
    lo, hi = domain.lo, domain.hi
    wide = domain.width > _WIDE and not function.positive_scale
    count = 4 * (_CHEBYSHEV_POINTS - 1) + 1 if wide else _CHEBYSHEV_POINTS
    parts = [(lo + hi) / 2 + (hi - lo) / 2 * np.cos(np.linspace(0.0, math.pi, count))]
    if domain.contains(0.0):
        magnitudes = np.geomspace(
            domain.magnitude * 2.0**-20, domain.magnitude, _LOGARITHMIC_POINTS
        )
        parts += [np.zeros(1), magnitudes, -magnitudes]
    else:
        near, far = sorted((abs(lo), abs(hi)))
        sign = 1.0 if lo > 0 else -1.0
        dense = 4 * _LOGARITHMIC_POINTS if function.positive_scale else _LOGARITHMIC_POINTS
        parts.append(sign * np.geomspace(near, far, dense))
    with np.errstate(over="ignore"):
        single = np.concatenate(parts).astype(np.float32).astype(np.float64)
    points = np.unique(np.concatenate([single[(single >= lo) & (single <= hi)], [lo, hi]]))
    reference = function.numpy(points)
    with np.errstate(over="ignore"):
        inner = points.astype(np.float32).astype(np.float64) == points
    has_zero = bool((reference == 0).any() or (np.diff(np.sign(reference)) != 0).any())
    scale = float(np.abs(reference).max())
    slope = np.abs(points * np.gradient(reference, points))
    slope[~np.isfinite(slope)] = 0.0
    relative_floor = 4 * UNIT_ROUNDOFF
    nonzero = reference != 0
    if not has_zero or function.parity == "odd":
        relative_floor *= 1 + float((slope[nonzero] / np.abs(reference[nonzero])).max())
    return Grid(
        points=points,
        reference=reference,
        inner=inner,
        single=points[inner].astype(np.float32),
        has_zero=has_zero,
        scale=scale,
        float32_floor=4 * UNIT_ROUNDOFF * (scale + float(slope.max())),
        relative_floor=relative_floor,
    )


@dataclass(frozen=True)
class Measurement:
    """Largest errors on a grid.

    Attributes:
        absolute: in real arithmetic (float64).
        relative: in real arithmetic; None where the function has a zero that the expression does
            not reproduce by its form.
        float32_absolute: evaluated in float32; infinite where it overflows.
        float32_relative: likewise relative.
        share: of the allowed error, in real arithmetic; None if no mixed tolerance was given.
        float32_share: likewise in float32, where float32's own floor is always allowed.
    """

    absolute: float
    relative: float | None
    float32_absolute: float
    float32_relative: float | None
    share: float | None = None
    float32_share: float | None = None

    def error(self, relative: bool) -> float:
        """The absolute or relative error; infinite where there is none."""
        value = self.relative if relative else self.absolute
        return math.inf if value is None else value

    def float32_error(self, relative: bool) -> float:
        """The absolute or relative error in float32; infinite where there is none."""
        value = self.float32_relative if relative else self.float32_absolute
        return math.inf if value is None else value


def measure(
    expression: Expression,
    function: Function,
    domain: Interval,
    tolerance: Tolerance | None = None,
) -> Measurement:
    """Largest errors of `expression` on the measurement grid of `domain`.

    The float64 errors are refined between the grid points next to each maximum, so that they are
    those of the error curve's peak and not of the grid point next to it.

    Args:
        expression: in the variable ``x``.
        function: what it stands for.
        domain: where.
        tolerance: a budget of several parts, of which the share that is used is wanted as well.
    """
    grid = measurement_grid(function, domain)
    with np.errstate(all="ignore"):
        error = np.abs(_evaluate(expression, grid.points) - grid.reference)
        single = _evaluate(expression, grid.single).astype(np.float64)
        error32 = np.abs(single - grid.reference[grid.inner])
        absolute = _peak(expression, function, grid, error, relative=False)
        relative = relative32 = None
        if _relative_is_defined(expression, function, grid):
            nonzero = grid.reference != 0
            ratio = np.where(nonzero, error / np.abs(grid.reference), 0.0)
            relative = _peak(expression, function, grid, ratio, relative=True)
            inner = grid.inner & nonzero
            relative32 = _largest(error32[nonzero[grid.inner]] / np.abs(grid.reference[inner]))
        share = share32 = None
        if tolerance is not None:
            allowed = tolerance.allowed(grid.points, grid.reference)
            share = _largest(error / allowed)
            share32 = _largest(error32 / np.maximum(allowed[grid.inner], grid.float32_floor))
    return Measurement(absolute, relative, _largest(error32), relative32, share, share32)


def _evaluate(expression: Expression, x: NDArray[np.floating]) -> NDArray[np.floating]:
    """The value on an array, also for expressions that are constant."""
    value = np.asarray(expression(x) if expression.variables else float(expression.value), x.dtype)
    return np.broadcast_to(value, x.shape)


def _largest(errors: Array) -> float:
    """Maximum that counts NaN as infinite."""
    if errors.size == 0:
        return 0.0
    largest = float(errors.max())
    return math.inf if math.isnan(largest) else largest


def _relative_is_defined(expression: Expression, function: Function, grid: Grid) -> bool:
    if not grid.has_zero:
        return True
    # An odd form reproduces the zero of an odd function exactly: the ratio has a limit there.
    only_at_origin = (
        function.parity == "odd" and not ((grid.reference == 0) & (grid.points != 0)).any()
    )
    sign = np.sign(grid.reference) * np.sign(grid.points)
    one_sign = bool((sign >= 0).all() or (sign <= 0).all())
    return only_at_origin and one_sign and float(_evaluate(expression, np.zeros(1))[0]) == 0.0


def _peak(
    expression: Expression, function: Function, grid: Grid, errors: Array, *, relative: bool
) -> float:
    """The largest of `errors`, refined between the neighbours of the largest grid points."""
    largest = _largest(errors)
    if not math.isfinite(largest) or largest == 0.0:
        return largest
    # Only local maxima: a flat peak has more points within 2 % than are looked at, and a narrow one
    # behind it (erf on [-200, 200]) would go unseen.
    beside = np.concatenate([[0.0], errors, [0.0]])
    peaks = (errors >= beside[:-2]) & (errors >= beside[2:]) & (errors >= 0.98 * largest)
    candidates = np.flatnonzero(peaks)[:64]
    left = grid.points[np.maximum(candidates - 1, 0)]
    right = grid.points[np.minimum(candidates + 1, grid.points.size - 1)]
    x = (left[:, None] + (right - left)[:, None] * np.linspace(0.0, 1.0, 17)).ravel()
    reference = function.numpy(x)
    refined = np.abs(_evaluate(expression, x) - reference)
    if relative:
        refined = np.where(reference != 0, refined / np.abs(reference), 0.0)
    return max(largest, _largest(refined[np.isfinite(refined)]))


def safe_interval(
    expression: Expression,
    function: Function,
    domain: Interval,
    measured: Measurement,
    *,
    relative: bool,
) -> Interval:
    """The widest interval around `domain` on which `expression` stays sane, by outward scan.

    A point is sane when (a) every division there has a divisor of the same sign as inside the
    domain, (b) the value in float32 is finite, and (c) the error is at most 10 times the
    measured error of the domain or 1 % (of the largest |f| on the domain for absolute
    approximations, of |f(x)| for relative ones), whichever is larger.  Each bound moves outward
    in geometric steps of the distance to the domain, up to +-1e38 or the end of the natural
    domain, and stops at the last sane point before the first insane one.

    Args:
        expression: the approximation.
        function: what it approximates.
        domain: where its error was measured.
        measured: that measurement.
        relative: whether relative errors are compared.
    """
    grid = measurement_grid(function, domain)
    middle = grid.points[:: max(1, grid.points.size // 64)]
    inside = [np.sign(d) for d in denominators(expression, middle)[1]]
    signs = [float(s[0]) for s in inside]
    bound = max(10 * measured.error(relative), 1e-2 * (1.0 if relative else grid.scale))

    def sane_up_to(end: float, direction: float, limit: float) -> float:
        steps = domain.width * np.geomspace(2.0**-12, 1e39 / domain.width, 2048)
        x = end + direction * steps
        if function.positive_scale and end > 0 and direction < 0:
            x = end / np.geomspace(1.0 + 2.0**-8, 1e38 * min(end, 1.0) + 2.0, 2048)
        with np.errstate(all="ignore"):
            x = x.astype(np.float32).astype(np.float64)
            x = x[(np.abs(x) <= 1e38) & (direction * x <= direction * limit)]
            if function.singularities:
                x = x[~np.isin(x, function.singularities)]
            if x.size == 0:
                return end
            value, divisors = denominators(expression, x)
            reference = function.numpy(x)
            error = np.abs(value - reference)
            if relative:
                error = error / np.abs(reference)
            sane = np.isfinite(_evaluate(expression, x.astype(np.float32))) & (error <= bound)
            for sign, divisor in zip(signs, divisors, strict=True):
                sane &= np.sign(divisor) == sign
        insane = np.flatnonzero(~sane)
        last = int(insane[0]) if insane.size else x.size
        return float(x[last - 1]) if last else end

    natural = function.domain
    lo = sane_up_to(domain.lo, -1.0, natural.lo)
    hi = sane_up_to(domain.hi, 1.0, natural.hi)
    return Interval(min(lo, domain.lo), max(hi, domain.hi))
