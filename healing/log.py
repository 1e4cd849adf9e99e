"""The log of a training: one line of JSON for each step, and its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from odp.approximations.errors import OdpError
from odp.backends.whole_files import write_bytes, write_text

__all__ = ["TrainingLog", "check_plot", "plot_logs", "read_log"]

_FORMATS = (".png", ".svg", ".pdf")
_CURVES = (
    ("loss", "loss"),
    ("language_model", "language model (nats)"),
    ("kl", "KL to the original (nats)"),
    ("features", "hidden states (relative)"),
    ("learning_rate", "learning rate"),
    ("gradient_norm", "norm of the gradient"),
)


class TrainingLog:
    """Appends what each step found to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: dict[str, Any]) -> None:
        """Write one line, at once, so that a kill loses at most the line being written.

        Raises:
            OdpError: the file cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OdpError(f"cannot write '{self.path}': {reason}") from None

    def keep_until(self, step: int) -> None:
        """Drop what came after a step: it is about to come again.

        Raises:
            OdpError: the file cannot be written.
        """
        if self.path.is_file():
            kept = [entry for entry in read_log(self.path) if entry["step"] <= step]
            write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a log, in their order; a last line that was cut off is left out.

    Raises:
        OdpError: there is no such file, or it is no log.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text"
        raise OdpError(f"cannot read log '{path}': {reason.lower()}") from None
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
                raise ValueError
        except ValueError:
            if number == len(lines):
                break
            raise OdpError(f"line {number} of '{path}' is not of a log of healing") from None
        entries.append(entry)
    return entries


def check_plot(path: Path) -> None:
    """Fail before the work: can a picture be drawn, and in the format of that name?

    Raises:
        OdpError: matplotlib is missing, or the name has another ending.
    """
    if path.suffix.lower() not in _FORMATS:
        raise OdpError(f"cannot draw '{path}': the name must end in {', '.join(_FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise OdpError("plots need matplotlib: pip install 'odp-rewrite[plot]'") from None


def plot_logs(logs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw all curves of some logs over their steps and write the picture, whole or not at all.

    Args:
        logs: entries by the name of the training.
        path: a file whose name ends in .png, .svg or .pdf.

    Raises:
        OdpError: no log has an entry, or the picture cannot be written.
    """
    import io

    check_plot(path)
    if not any(logs.values()):
        raise OdpError("there is nothing to draw: no step has been logged yet")
    from matplotlib.figure import Figure

    curves = [
        (key, title)
        for key, title in _CURVES
        if any(entry.get(key) is not None for entries in logs.values() for entry in entries)
    ]
    figure = Figure(figsize=(9, 2.6 * ((len(curves) + 1) // 2)), layout="constrained")
    axes = figure.subplots((len(curves) + 1) // 2, 2, squeeze=False).flat
    for axis, (key, title) in zip(axes, curves, strict=False):
        positive = True
        for name, entries in logs.items():
            points = [(e["step"], e[key]) for e in entries if e.get(key) is not None]
            positive = positive and all(value > 0 for _, value in points)
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1)
        # Losses of healing fall by orders of magnitude.
        if positive and key != "learning_rate":
            axis.set_yscale("log")
        axis.set_title(title, fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(axes)[len(curves) :]:
        axis.set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=8)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower(), dpi=150)
    write_bytes(path, drawn.getvalue())
