"""`odp heal plot`: the losses of a healing, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

__all__ = ["logs_of", "plot_command"]


@click.command("plot")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The picture: .png, .svg or .pdf.",
)
def plot_command(folder: Path, output: Path) -> int:
    """Draw the losses of the healing in FOLDER, also while it runs."""
    from odp.backends.whole_files import check_writable
    from odp.cli.terminal import Terminal
    from odp.healing.log import check_plot, plot_logs

    check_plot(output)
    check_writable(output)
    plot_logs(logs_of(folder), output)
    Terminal().wrote(output)
    return 0


def logs_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The logs of a healing by the name of the training.

    Raises:
        OdpError: there is none.
    """
    from odp.approximations.errors import OdpError
    from odp.healing.log import read_log
    from odp.healing.training import LOG

    found = {
        name: read_log(file)
        for name in ("surgery", "control")
        if (file := folder / name / LOG).is_file()
    }
    if not found:
        raise OdpError(f"there is no log of a healing in '{folder}'")
    return found
