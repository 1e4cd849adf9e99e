"""Plots of the HTML report, as inline SVG text.

An approximant gets one figure of two panels over the same inputs: the function with its
approximation above, the error on a log scale with the histogram of the calibrated inputs behind it
below.  Colours come from the style sheet of the page, so that the figures follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from odp.rewriter.report import ApproximantRecord, Histogram

__all__ = ["Scale", "approximant_figure", "error_is_relative", "rebin", "sparkline"]

Array = npt.NDArray[np.float64]

# One unit is one CSS pixel on a phone of 390 pixels and in a third of a desktop page, so that the
# labels keep their size.
WIDTH, LEFT, RIGHT = 360.0, 44.0, 352.0
FUNCTION_TOP, FUNCTION_BOTTOM = 8.0, 112.0
ERROR_TOP, ERROR_BOTTOM = 130.0, 226.0
HEIGHT = 248.0
HISTOGRAM_BINS = 56
# More points than this do not change a curve that is 308 pixels wide.
CURVE_POINTS = 616
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels, linearly or by their logarithm; values outside stick to the rim.

    Attributes:
        low: value at `start`; positive if `log`.
        high: value at `stop`, above `low`.
        start: pixel of `low`.
        stop: pixel of `high`; below `start` for an axis that points up.
        log: whether equal ratios have equal length.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, values: Array) -> Array:
        """Pixels of `values`; nan where a value is not finite."""
        values = np.where(np.isfinite(values), values, np.nan)
        clipped = np.clip(values, self.low, self.high)
        if self.log:
            share = np.log(clipped / self.low) / math.log(self.high / self.low)
        else:
            share = (clipped - self.low) / (self.high - self.low)
        return np.asarray(self.start + share * (self.stop - self.start))

    def edges(self, count: int) -> Array:
        """`count` + 1 values at equal distances in pixels."""
        if self.log:
            return np.geomspace(self.low, self.high, count + 1)
        return np.linspace(self.low, self.high, count + 1)

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """At most `count` + 1 round values with their labels.

        >>> Scale(0.0, 1.0, 0.0, 100.0).ticks(2)
        [(0.0, '0'), (0.5, '0.5'), (1.0, '1')]
        >>> [label for _, label in Scale(1e-5, 10.0, 0.0, 100.0, log=True).ticks(3)]
        ['10⁻⁵', '10⁻³', '10⁻¹', '10']
        """
        if self.log:
            first = math.ceil(math.log10(self.low) - 1e-9)
            last = math.floor(math.log10(self.high) + 1e-9)
            step = max(1, math.ceil((last - first) / count))
            return [(10.0**power, _power_label(power)) for power in range(first, last + 1, step)]
        raw = (self.high - self.low) / count
        magnitude = 10.0 ** math.floor(math.log10(raw))
        step_size = next(
            factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw * 0.999
        )
        values = []
        for index in range(
            math.ceil(self.low / step_size - 1e-9), math.floor(self.high / step_size + 1e-9) + 1
        ):
            value = index * step_size
            values.append((value, _value_label(value)))
        return values


def rebin(histograms: Sequence[Histogram], edges: Array) -> tuple[Array, float]:
    """Sum of histograms with different bins on common bins.

    Values are taken as spread evenly within their bin.

    Args:
        histograms: the histograms to add; those with unusable bins are left out.
        edges: the common bin edges, ascending.

    Returns:
        The number of values per common bin, and the share of all values outside of `edges`.
    """
    sums = np.zeros(len(edges) - 1)
    everything = 0.0
    for histogram in histograms:
        old = np.asarray(histogram.edges, dtype=np.float64)
        counts = np.asarray(histogram.counts, dtype=np.float64)
        if len(old) != len(counts) + 1 or not len(counts) or not np.isfinite(old).all():
            continue
        running = np.concatenate([[0.0], np.cumsum(counts)])
        sums += np.diff(np.interp(edges, old, running))
        everything += running[-1]
    outside = 1.0 - sums.sum() / everything if everything else 0.0
    return sums, max(0.0, float(outside)) if outside > 1e-9 else 0.0


def error_is_relative(approximant: ApproximantRecord) -> bool:
    """Whether the error panel shows the relative error: the kind that the choice was made by."""
    return approximant.relative and approximant.relative_error is not None


def approximant_figure(
    approximant: ApproximantRecord,
    histograms: Sequence[Histogram],
    observed: tuple[float, float] | None,
) -> Markup | None:
    """The two-panel figure of an approximant.

    Args:
        approximant: the approximant with its curves.
        histograms: inputs of all sites that use it.
        observed: smallest and largest input over those sites.

    Returns:
        An `<svg>` element, or None if the curves hold fewer than two usable points.
    """
    count = min(
        len(approximant.curve_x), len(approximant.curve_exact), len(approximant.curve_approximate)
    )
    x = np.asarray(approximant.curve_x[:count], dtype=np.float64)
    exact = np.asarray(approximant.curve_exact[:count], dtype=np.float64)
    approximate = np.asarray(approximant.curve_approximate[:count], dtype=np.float64)
    usable = np.isfinite(x)
    x, exact, approximate = x[usable], exact[usable], approximate[usable]
    known = exact[np.isfinite(exact)]
    if len(known) < 2 or not x.max() > x.min():
        return None

    low, high = float(x.min()), float(x.max())
    x_scale = Scale(low, high, LEFT, RIGHT, log=low > 0 and high / low > 50)
    pixels = x_scale(x)
    y_scale = _function_scale(known, x_scale.log)
    relative = error_is_relative(approximant)
    with np.errstate(all="ignore"):
        error = np.abs(approximate - exact)
        if relative:
            error = np.where(exact != 0, error / np.abs(exact), np.nan)
    bound = approximant.relative_error if relative else approximant.absolute_error
    error_scale = _error_scale(error, bound)

    parts: list[Markup] = []
    parts += _axis(y_scale, FUNCTION_TOP, 4)
    parts += _axis(error_scale, ERROR_TOP, 3)
    parts += _histogram_bars(histograms, x_scale)
    parts += _input_axis(x_scale, observed)
    shown = _thin(len(x))
    parts.append(_path(pixels[shown], y_scale(exact)[shown], "exact"))
    parts.append(_path(pixels[shown], y_scale(approximate)[shown], "approximate"))
    kept = _keep_extremes(error)
    heights = np.where(_far_below(error, error_scale.low), np.nan, error_scale(error))
    parts.append(_path(pixels[kept], heights[kept], "error"))
    if bound is not None and math.isfinite(bound) and bound > 0:
        y = float(error_scale(np.array([bound]))[0])
        parts.append(Markup(f'<path class="bound" d="M{LEFT:g} {y:.1f}H{RIGHT:g}"/>'))
    kind = "relative" if relative else "absolute"
    parts.append(
        Markup('<text class="panel" x="{}" y="{}">{} error</text>').format(
            f"{LEFT:g}", f"{ERROR_TOP - 6:g}", kind
        )
    )
    title = (
        f"{approximant.function} and its approximation {approximant.key}; "
        f"below, the {kind} error over the domain"
    )
    return Markup(
        '<svg class="figure" viewBox="0 0 {} {}" role="img"><title>{}</title>{}</svg>'
    ).format(f"{WIDTH:g}", f"{HEIGHT:g}", title, Markup("").join(parts))


def sparkline(histogram: Histogram | None, bins: int = 24) -> Markup | None:
    """A histogram as a filled outline of 72 by 18 pixels; None if there is nothing to draw.

    Heights are logarithmic in the counts, as in the figures.
    """
    if histogram is None or len(histogram.edges) < 2:
        return None
    low, high = histogram.edges[0], histogram.edges[-1]
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return None
    counts, _ = rebin([histogram], np.linspace(low, high, bins + 1))
    heights = np.log1p(np.maximum(counts, 0.0))
    if not heights.max() > 0:
        return None
    tops = 18 - 17 * heights / heights.max()
    step = 72 // bins
    steps = "".join(f"V{top:.0f}h{step}" for top in tops)
    return Markup(
        '<svg class="spark" viewBox="0 0 72 18" aria-hidden="true">'
        f'<path d="M0 18{steps}V18z"/></svg>'
    )


def _function_scale(values: Array, log_inputs: bool) -> Scale:
    low, high = float(values.min()), float(values.max())
    if log_inputs and low > 0 and high / low > 50:
        return Scale(low, high, FUNCTION_BOTTOM, FUNCTION_TOP, log=True)
    room = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    return Scale(low - room, high + room, FUNCTION_BOTTOM, FUNCTION_TOP)


def _error_scale(error: Array, bound: float | None) -> Scale:
    positive = error[np.isfinite(error) & (error > 0)]
    tops = [float(positive.max())] if len(positive) else []
    if bound is not None and math.isfinite(bound) and bound > 0:
        tops.append(bound)
    top = max(tops, default=1.0)
    # The error falls to nothing at every crossing; five decades show the shape, more only the dips.
    floor = top * 1e-5
    if len(positive):
        floor = max(floor, float(np.quantile(positive, 0.02)))
    low = 10.0 ** math.floor(math.log10(floor))
    high = max(top * 1.6, low * 100)
    return Scale(low, high, ERROR_BOTTOM, ERROR_TOP, log=True)


def _far_below(error: Array, floor: float) -> npt.NDArray[np.bool_]:
    """Points below the axis whose neighbours are too: dips touch the axis, stretches leave it."""
    below = np.pad(error < floor, 1, constant_values=True)
    return below[:-2] & below[1:-1] & below[2:]


def _axis(scale: Scale, top: float, count: int) -> list[Markup]:
    parts = []
    for value, label in scale.ticks(count):
        y = float(scale(np.array([value]))[0])
        parts.append(Markup(f'<path class="grid" d="M{LEFT:g} {y:.1f}H{RIGHT:g}"/>'))
        # A label at the rim would run into the panel above.
        baseline = max(y + 3.5, top + 4)
        parts.append(
            Markup('<text class="tick y" x="{}" y="{}">{}</text>').format(
                f"{LEFT - 6:g}", f"{baseline:.1f}", label
            )
        )
    return parts


def _input_axis(scale: Scale, observed: tuple[float, float] | None) -> list[Markup]:
    parts = [Markup(f'<path class="axis" d="M{LEFT:g} {ERROR_BOTTOM:g}H{RIGHT:g}"/>')]
    for value, label in scale.ticks(5):
        x = float(scale(np.array([value]))[0])
        anchor = " start" if x < LEFT + 8 else " end" if x > RIGHT - 8 else ""
        parts.append(
            Markup(f'<path class="axis" d="M{x:.1f} {ERROR_BOTTOM:g}v3"/>')
            + Markup('<text class="tick x{}" x="{}" y="{}">{}</text>').format(
                anchor, f"{x:.1f}", f"{ERROR_BOTTOM + 15:g}", label
            )
        )
    if observed is not None and all(math.isfinite(value) for value in observed):
        first, last = scale(np.array(observed, dtype=np.float64))
        if last > first:
            parts.append(
                Markup(f'<path class="observed" d="M{first:.1f} {ERROR_BOTTOM:g}H{last:.1f}"/>')
            )
    return parts


def _histogram_bars(histograms: Sequence[Histogram], scale: Scale) -> list[Markup]:
    edges = scale.edges(HISTOGRAM_BINS)
    counts, _ = rebin(histograms, edges)
    heights = np.log1p(np.maximum(counts, 0.0))
    if not heights.max() > 0:
        return []
    tops = ERROR_BOTTOM - 0.92 * (ERROR_BOTTOM - ERROR_TOP) * heights / heights.max()
    columns = np.linspace(LEFT, RIGHT, HISTOGRAM_BINS + 1)[1:]
    steps = "".join(f"V{top:.1f}H{right:.1f}" for top, right in zip(tops, columns, strict=True))
    return [
        Markup(f'<path class="inputs" d="M{LEFT:g} {ERROR_BOTTOM:g}{steps}V{ERROR_BOTTOM:g}z"/>')
    ]


def _path(x: Array, y: Array, css_class: str) -> Markup:
    """A line through the points; points that are not finite leave a gap."""
    words: list[str] = []
    pen_down = False
    for left, top in zip(x.tolist(), y.tolist(), strict=True):
        if not (math.isfinite(left) and math.isfinite(top)):
            pen_down = False
            continue
        words.append(f"{'L' if pen_down else 'M'}{left:.1f} {top:.1f}")
        pen_down = True
    return Markup('<path class="{}" d="{}"/>').format(escape(css_class), "".join(words))


def _thin(count: int) -> npt.NDArray[np.intp]:
    """Indices of at most `CURVE_POINTS` points, the ends included."""
    if count <= CURVE_POINTS:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, CURVE_POINTS).round().astype(np.intp))


def _keep_extremes(values: Array) -> npt.NDArray[np.intp]:
    """Indices of the smallest and largest value of every stretch, so that no peak gets lost."""
    if len(values) <= CURVE_POINTS:
        return np.arange(len(values))
    kept: list[int] = []
    for stretch in np.array_split(np.arange(len(values)), CURVE_POINTS // 2):
        finite = stretch[np.isfinite(values[stretch])]
        if len(finite):
            kept += [int(finite[np.argmin(values[finite])]), int(finite[np.argmax(values[finite])])]
    return np.unique(np.asarray(kept, dtype=np.intp))


def _power_label(power: int) -> str:
    plain = {0: "1", 1: "10"}
    return plain.get(power) or f"10{str(power).translate(SUPERSCRIPT)}"


def _value_label(value: float) -> str:
    text = f"{value:.6g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "\N{MINUS SIGN}")
