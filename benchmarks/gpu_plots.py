"""Bars of measured operators: how much of the speed of a copy each contender reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["plot"]

_COLOURS = {"eager": "#b0b7c3", "compiled": "#6b7a90", "liger": "#d9a441", "ours": "#2a6fdb"}


def plot(tree: Mapping[str, Any], output: Path) -> list[Path]:
    """Draw one picture a direction, and one of attention, beside the JSON file.

    Args:
        tree: what the JSON file holds.
        output: its path.

    Returns:
        The files that were written; none without matplotlib.
    """
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    large = {(name, tuple(size)) for name, sizes in tree["large"].items() for size in sizes}
    rows = [r for r in tree["rows"] if (r["operator"], tuple(r["size"])) in large]
    rows = [r for r in rows if r["dtype"] == tree["dtypes"][0]]
    written = []
    for direction in ("forward", "backward"):
        here = [r for r in rows if r["direction"] == direction]
        moving = [r for r in here if "attention" not in r["operator"]]
        label = "share of the measured copy speed"
        written += _bars(moving, direction, "share_of_copy", label, tree, output)
        attending = [r for r in here if "attention" in r["operator"]]
        written += _bars(attending, f"attention_{direction}", "teraflops", "TFLOP/s", tree, output)
    return written


def _bars(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    number: str,
    label: str,
    tree: Mapping[str, Any],
    output: Path,
) -> list[Path]:
    if not rows:
        return []
    from matplotlib import pyplot

    names = [n for n in _COLOURS if any(number in r["contenders"].get(n, {}) for r in rows)]
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.42 * len(rows)), layout="constrained")
    height = 0.8 / max(len(names), 1)
    for position, name in enumerate(names):
        places = [row + position * height for row in range(len(rows))]
        values = [r["contenders"].get(name, {}).get(number, 0.0) for r in rows]
        axes.barh(places, values, height, label=name, color=_COLOURS[name])
    axes.set_yticks(
        [row + height * (len(names) - 1) / 2 for row in range(len(rows))],
        [f"{r['operator']} {'x'.join(map(str, r['size']))}" for r in rows],
        fontsize=8,
    )
    axes.invert_yaxis()
    if number == "share_of_copy":
        axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlabel(label)
    axes.set_title(f"{title.replace('_', ' ')}, {tree['dtypes'][0]}, {tree['device']['name']}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    paths = [output.with_name(f"{output.stem}_{title}{suffix}") for suffix in (".svg", ".png")]
    for path in paths:
        figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return paths
