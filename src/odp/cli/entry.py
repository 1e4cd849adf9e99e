"""Entry points: what turns an exception into one line and an exit code."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence

import rich_click as click

from odp.cli.approximate import approximate_command
from odp.cli.calibrate import calibrate_command
from odp.cli.evaluate import evaluate_command
from odp.cli.ezkl import ezkl_group
from odp.cli.ezkl_solidity import solidity_command
from odp.cli.heal import heal_group
from odp.cli.heal_check_merge import check_merge_command
from odp.cli.heal_compare import compare_command
from odp.cli.heal_rows import rows_command
from odp.cli.inspect import inspect_command
from odp.cli.rewrite import rewrite_command
from odp.cli.sensitivity import sensitivity_command

__all__ = ["main", "odp", "rewrite_main"]

BAD_INPUT, INTERRUPTED = 2, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="odp-rewrite")
def odp() -> None:
    """Operator Discovery Platform: neural networks without transcendental functions."""


odp.add_command(rewrite_command, "rewrite")
odp.add_command(inspect_command, "inspect")
odp.add_command(approximate_command, "approximate")
odp.add_command(calibrate_command, "calibrate")
odp.add_command(evaluate_command, "evaluate")
odp.add_command(sensitivity_command, "sensitivity")
heal_group.add_command(check_merge_command)
heal_group.add_command(compare_command)
heal_group.add_command(rows_command)
odp.add_command(heal_group, "heal")
ezkl_group.add_command(solidity_command)
odp.add_command(ezkl_group, "ezkl")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `odp` and exit."""
    _run(odp, arguments, "odp")


def rewrite_main(arguments: Sequence[str] | None = None) -> None:
    """Run `odp-rewrite` and exit."""
    _run(rewrite_command, arguments, "odp-rewrite")


def _run(command: click.Command, arguments: Sequence[str] | None, name: str) -> None:
    _silence_libraries()
    try:
        code = command.main(
            args=None if arguments is None else list(arguments),
            prog_name=name,
            standalone_mode=False,
        )
    except (click.Abort, KeyboardInterrupt) as stop:
        # Files are renamed into place when they are whole, and temporary ones are gone by now.
        sys.exit(_complain(str(stop) or "interrupted; no partial output was left", INTERRUPTED))
    except click.ClickException as error:
        sys.exit(_complain(error.format_message(), BAD_INPUT))
    except MemoryError:
        sys.exit(_complain("out of memory; try --no-measure or fewer --samples", BAD_INPUT))
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ('{error.filename}')" if error.filename else ""
        sys.exit(_complain(f"{reason}{where}", BAD_INPUT))
    except Exception as error:
        # Imported here because it brings numpy with it, 0.15 s that --help need not pay.
        from odp.approximations.errors import OdpError

        if not isinstance(error, OdpError):
            raise
        sys.exit(max(_complain(line, BAD_INPUT) for line in error.lines))
    sys.exit(code if isinstance(code, int) else 0)


def _silence_libraries() -> None:
    """Keep what libraries tell their developers away from our users.

    `python -W ...` and PYTHONWARNINGS still show warnings.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    # Without any handler Python itself prints log records from WARNING up on standard error.
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())


def _complain(message: str, code: int) -> int:
    line = " ".join(message.split())
    # File and node names may hold control characters; a terminal would obey them.
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    sys.stderr.write(f"error: {shown}\n")
    return code
