"""Entry points: what turns an exception into one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import rich_click as click

from odp.approximations.errors import OdpError
from odp.cli.inspect import inspect_command
from odp.cli.rewrite import rewrite_command

__all__ = ["main", "odp", "rewrite_main"]

BAD_INPUT, INTERRUPTED = 2, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="odp-rewrite")
def odp() -> None:
    """Operator Discovery Platform: neural networks without transcendental functions."""


odp.add_command(rewrite_command, "rewrite")
odp.add_command(inspect_command, "inspect")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `odp` and exit."""
    _run(odp, arguments, "odp")


def rewrite_main(arguments: Sequence[str] | None = None) -> None:
    """Run `odp-rewrite` and exit."""
    _run(rewrite_command, arguments, "odp-rewrite")


def _run(command: click.Command, arguments: Sequence[str] | None, name: str) -> None:
    try:
        code = command.main(
            args=None if arguments is None else list(arguments),
            prog_name=name,
            standalone_mode=False,
        )
    except click.Abort:
        sys.exit(_complain("interrupted; nothing was written", INTERRUPTED))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted; nothing was written", INTERRUPTED))
    except click.ClickException as error:
        sys.exit(_complain(error.format_message(), BAD_INPUT))
    except OdpError as error:
        sys.exit(_complain(str(error), BAD_INPUT))
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does; that is no error.
        sys.stderr.close()
        sys.exit(0)
    except MemoryError:
        sys.exit(_complain("out of memory; try --no-measure or fewer --samples", BAD_INPUT))
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ('{error.filename}')" if error.filename else ""
        sys.exit(_complain(f"{reason}{where}", BAD_INPUT))
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code
