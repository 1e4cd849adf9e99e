"""Options that several commands have, each said once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich_click as click

__all__ = ["JSON", "QUIET", "REPORT", "files_option", "max_tokens_option"]

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")
REPORT = click.option(
    "-r",
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Write the numbers there as well.",
)


def files_option(*names: str, help: str, required: bool = False) -> Callable[..., Any]:
    """An option that names texts, any number of them.

    Args:
        names: of the option, and of the argument if it is another.
        help: what the texts are for; that they are UTF-8 and how many there may be is added.
        required: whether there has to be one.
    """
    return click.option(
        *names,
        multiple=True,
        required=required,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"{help} UTF-8; can be repeated.",
    )


def max_tokens_option(default: int) -> Callable[..., Any]:
    """How many tokens of each text are scored at most."""
    return click.option(
        "--max-tokens",
        default=default,
        show_default=True,
        type=click.IntRange(min=2),
        metavar="N",
        help="Of each text that is scored, at most.",
    )
