"""The picture of an approximant: function and expression, and the error between its bounds."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.whole_files import write_bytes
from odp.cli.approximate_answer import target_text
from odp.rewriter.report_summary import format_error, format_interval, format_upper_bound

if TYPE_CHECKING:
    from odp.approximations import Approximant

__all__ = ["check_plot", "draw"]

Array = NDArray[np.float64]

_FORMATS = (".png", ".svg", ".pdf")
_POINTS = 4001
# What is drawn beyond the domain, as a share of its width (of its logarithm on a logarithmic axis).
_MARGIN = 0.15
# From this ratio of the bounds on, functions of scale have a logarithmic axis.
_LOGARITHMIC_RATIO = 20.0

_INK, _GREY, _PALE = "#1f2933", "#8a94a0", "#e4e8ec"
_FUNCTION, _EXPRESSION, _SAFE = "#9aa5b1", "#c2410c", "#e6f2ea"

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": True,
    "axes.formatter.limits": (-3, 4),
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "legend.frameon": False,
    "svg.hashsalt": "odp",
    "svg.fonttype": "none",
}


def check_plot(path: Path) -> None:
    """Fail before the work: can a picture be drawn, and in the format of that name?

    Raises:
        OdpError: matplotlib is missing, or the name has another ending.
    """
    if path.suffix.lower() not in _FORMATS:
        raise OdpError(f"--plot '{path}': the name must end in {', '.join(_FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise OdpError(
            "--plot needs matplotlib: pip install 'odp-rewrite[plot]' (or pip install matplotlib)"
        ) from None


def draw(approximant: Approximant, path: Path) -> None:
    """Draw an approximant and write the picture, whole or not at all.

    Above: the function and the expression on the domain and a margin around it, where the interval
    on which the expression stays sane is shaded.  Below: the error on the domain, in real
    arithmetic or of the integer program, between the bounds that the approximant declares.

    Args:
        approximant: what to draw.
        path: a name that ends in .png, .svg or .pdf.

    Raises:
        OdpError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 5.4), layout="constrained")
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _title(above, approximant)
        if _is_logarithmic(approximant):
            above.set_xscale("log")
        _draw_function(above, approximant)
        _draw_error(below, approximant)
        _legend(above, below)
        buffer = io.BytesIO()
        kind = path.suffix.lower().removeprefix(".")
        # The date would make two pictures of one approximant differ.
        dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        figure.savefig(buffer, format=kind, dpi=150, metadata=dated)
    write_bytes(path, buffer.getvalue())


def _title(axes: Any, approximant: Approximant) -> None:
    counts = approximant.counts
    kind = "relative" if approximant.relative else "absolute"
    facts = [
        f"{kind} error {_error(approximant)}",
        f"{counts.multiplications} mul, {counts.divisions} div, {counts.additions} add",
        f"cost {approximant.target.cost(counts):.4g} on {target_text(approximant.target)}",
    ]
    lines = (
        (_shortened(f"{approximant.function.name} on {_interval(approximant)}", 72), 11, "bold"),
        (_shortened(approximant.description, 96), 9, "normal"),
        ("    ".join(facts), 9, "normal"),
    )
    for row, (text, size, weight) in enumerate(lines):
        axes.annotate(
            text,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 8 + 14 * (len(lines) - 1 - row)),
            textcoords="offset points",
            fontsize=size,
            fontweight=weight,
        )


def _legend(above: Any, below: Any) -> None:
    """Below everything: inside it would hide a curve, or lie on the shading that it explains."""
    handles, labels = above.get_legend_handles_labels()
    shading_last = (1, 2, 0)
    below.legend(
        [handles[i] for i in shading_last],
        [labels[i] for i in shading_last],
        loc="upper left",
        bbox_to_anchor=(0, -0.28),
        borderaxespad=0,
        borderpad=0,
        ncols=3,
        handlelength=1.6,
        fontsize=8.5,
    )


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _draw_function(axes: Any, approximant: Approximant) -> None:
    domain, safe = approximant.domain, approximant.safe_interval
    lo, hi = _view(approximant)
    x = _points(lo, hi, _is_logarithmic(approximant))
    natural = approximant.function.domain
    with np.errstate(all="ignore"):
        exact = approximant.function.numpy(np.clip(x, natural.lo, natural.hi))
        found = _evaluate(approximant, x)
    exact[(x < natural.lo) | (x > natural.hi) | ~np.isfinite(exact)] = math.nan
    found[~np.isfinite(found)] = math.nan
    inside = exact[(x >= domain.lo) & (x <= domain.hi)]
    low, high = float(np.nanmin(inside)), float(np.nanmax(inside))
    room = 0.12 * ((high - low) or abs(high) or 1.0)
    axes.axvspan(
        max(lo, safe.lo), min(hi, safe.hi), color=_SAFE, lw=0, zorder=0, label="where it stays sane"
    )
    for bound in (domain.lo, domain.hi):
        axes.axvline(bound, color=_GREY, lw=0.8, ls=(0, (1, 2)), zorder=1)
    name = _shortened(approximant.function.name, 40)
    axes.plot(x, exact, color=_FUNCTION, lw=4, label=name, zorder=2)
    axes.plot(x, found, color=_EXPRESSION, lw=1.3, label="expression", zorder=3)
    axes.set_xlim(lo, hi)
    # Beyond the domain either may run away; the picture is about the domain.
    axes.set_ylim(low - 1.5 * room, high + 1.5 * room)


def _draw_error(axes: Any, approximant: Approximant) -> None:
    domain, bound = approximant.domain, approximant.error
    x = _points(domain.lo, domain.hi, _is_logarithmic(approximant))
    certified_program = approximant.fixed_point
    if certified_program is not None:
        scale = certified_program.program.input_scale
        x = np.unique(np.ldexp(np.ceil(np.ldexp(x, scale)), -scale))
        x = x[x <= domain.hi]
    with np.errstate(all="ignore"):
        exact = approximant.function.numpy(x)
        found = _evaluate(approximant, x) if certified_program is None else certified_program(x)
        error = found - exact
        if approximant.relative:
            error = error / np.abs(exact)
    error[~np.isfinite(error)] = math.nan
    for side in (bound, -bound):
        axes.axhline(side, color=_EXPRESSION, lw=0.8, ls=(0, (4, 3)))
    axes.axhline(0, color=_PALE, lw=0.8, zorder=0)
    # The rounding of integers jumps from one input to the next.
    axes.plot(x, error, color=_INK, lw=1.1 if certified_program is None else 0.5)
    for end in (domain.lo, domain.hi):
        axes.axvline(end, color=_GREY, lw=0.8, ls=(0, (1, 2)), zorder=1)
    axes.set_ylim(-1.35 * bound, 1.35 * bound)
    certified = approximant.error_kind == "certified"
    axes.annotate(
        f"{'certified' if certified else 'measured'} {_error(approximant)}",
        (1, bound),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        color=_EXPRESSION,
        fontsize=8.5,
    )
    axes.set_ylabel("relative error" if approximant.relative else "error")
    axes.set_xlabel("x")


def _is_logarithmic(approximant: Approximant) -> bool:
    domain = approximant.domain
    scale = approximant.function.positive_scale
    return scale and domain.lo > 0 and domain.ratio >= _LOGARITHMIC_RATIO


def _view(approximant: Approximant) -> tuple[float, float]:
    """The domain with a margin."""
    domain = approximant.domain
    if _is_logarithmic(approximant):
        stretch = domain.ratio**_MARGIN
        return domain.lo / stretch, domain.hi * stretch
    margin = _MARGIN * domain.width
    return domain.lo - margin, domain.hi + margin


def _points(lo: float, hi: float, logarithmic: bool) -> Array:
    return np.geomspace(lo, hi, _POINTS) if logarithmic else np.linspace(lo, hi, _POINTS)


def _evaluate(approximant: Approximant, x: Array) -> Array:
    """The expression in real arithmetic, also where it is constant."""
    value = approximant(x) if approximant.expression.variables else approximant(1.0)
    return np.array(np.broadcast_to(np.asarray(value, dtype=np.float64), x.shape))


def _interval(approximant: Approximant) -> str:
    return format_interval((approximant.domain.lo, approximant.domain.hi), digits=6)


def _error(approximant: Approximant) -> str:
    """The error with its sign, typeset; what is proven is rounded up."""
    certified = approximant.error_kind == "certified"
    text = (format_upper_bound if certified else format_error)(approximant.error)
    mantissa, _, exponent = text.partition("e")
    power = rf" \times 10^{{{exponent}}}" if exponent else ""
    return f"{'≤' if certified else '≈'} ${mantissa}{power}$"
