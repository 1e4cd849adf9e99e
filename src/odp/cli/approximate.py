"""`odp approximate`: the cheapest rational expression for a function on a domain."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from odp.cli.shared_options import JSON

__all__ = ["approximate_command"]

_EPILOG = """
Examples

  odp approximate exp --domain -10:0 --error 1e-4 --target ezkl

  odp approximate "x*exp(-x**2)" --domain -3:3 --error 1e-5 --plot error.png

  odp approximate rsqrt --domain "2**-10:2**6" --operations 12

  odp approximate sigmoid --domain -8:8 --error 1e-3 --target "fixed{scale=13}" --emit c > sigmoid.c

  odp approximate sin --domain -pi:pi --scheme minimax --set degree=7 --emit onnx -o sin.onnx

  odp approximate exp --domain -8:0 --formula "(1+x/8)**8"

  odp approximate --list
"""

LANGUAGES = ("python", "c", "onnx", "latex", "triton")

_GROUPS = [
    ("What to approximate", ["--domain", "--histogram", "--list"]),
    ("Accuracy", ["--error", "--relative", "--atol", "--rtol", "--ulps", "--operations"]),
    ("How", ["--target", "--scheme", "--set", "--formula"]),
    ("Output", ["--emit", "--output", "--name", "--shape", "--plot", "--json", "--front"]),
    ("Help", ["--help"]),
]
click.rich_click.OPTION_GROUPS["odp approximate"] = [
    {"name": title, "options": options} for title, options in _GROUPS
]


class _FormulaCommand(click.RichCommand):
    """A command whose argument may begin with a minus, which looks like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            formula = next((a for a in given if a.startswith("-") and set(a) & set("*/(+")), None)
            if formula is None or error.option_name.startswith("--"):
                raise
            raise click.UsageError(
                f"'{formula}' looks like an option; put a formula that begins with a minus into"
                f" parentheses: '({formula})'"
            ) from None


@click.command("approximate", cls=_FormulaCommand, epilog=_EPILOG)
@click.argument("function", required=False)
@click.option(
    "-d",
    "--domain",
    metavar="LO:HI",
    help="Where the error must hold, such as -10:0, -pi:pi or 2**-10:2**6.",
)
@click.option(
    "--histogram",
    type=click.Path(path_type=Path),
    metavar="FILE.npy|npz",
    help="Typical inputs: where they are rare the error may be larger. The proof still holds "
    "for the whole domain.",
)
@click.option("--list", "list_all", is_flag=True, help="List functions, schemes and targets, stop.")
@click.option(
    "-e",
    "--error",
    type=float,
    metavar="E",
    help="Largest error. Default: 1e-5, on integers 1.1 times that of rounding the result.",
)
@click.option(
    "--relative/--absolute",
    default=None,
    help="Kind of the error. Default: relative for roots, powers and reciprocals, else absolute.",
)
@click.option("--atol", type=float, metavar="E", help="Absolute part of the largest error.")
@click.option("--rtol", type=float, metavar="E", help="Relative part, added to the others.")
@click.option("--ulps", type=float, metavar="N", help="Part in float32 units in the last place.")
@click.option(
    "-n",
    "--operations",
    type=float,
    metavar="N",
    help="Instead of an error: the largest cost on the target.",
)
@click.option(
    "-t",
    "--target",
    default="float32",
    show_default=True,
    metavar="TARGET",
    help="Where it will run: what operations cost there and what numbers are. "
    "'fixed{scale=13,guard=6}' means integers at scale 2^13.",
)
@click.option("--scheme", metavar="NAME", help="Use only this scheme. Default: the best of all.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Fix a parameter of the scheme, such as degree=5. Can be repeated.",
)
@click.option(
    "--formula",
    metavar="FORMULA",
    help="Measure and prove this expression of yours instead of choosing one, such as '(1+x/8)**8' "
    "or 't=1+x/8; t**8'. Any error will do unless --error is given.",
)
@click.option(
    "--emit",
    type=click.Choice(LANGUAGES),
    metavar="LANGUAGE",
    help="Print the expression as python, c, onnx, latex or triton, and nothing else.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what --emit makes to a file.",
)
@click.option("--name", metavar="NAME", help="Name of the emitted function. Default: FUNCTION.")
@click.option(
    "--shape",
    metavar="D1,D2,...",
    help="Shape of the ONNX input; names are dynamic axes. Default: n.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE.png|svg|pdf",
    help="Draw the function, the expression and the error. Needs matplotlib.",
)
@JSON
@click.option(
    "--front/--no-front",
    default=True,
    help="Whether to show what is cheaper and less accurate, too. Default: yes.",
)
def approximate_command(
    function: str | None,
    domain: str | None,
    histogram: Path | None,
    list_all: bool,
    error: float | None,
    relative: bool | None,
    atol: float | None,
    rtol: float | None,
    ulps: float | None,
    operations: float | None,
    target: str,
    scheme: str | None,
    settings: Sequence[str],
    formula: str | None,
    emit: str | None,
    output: Path | None,
    name: str | None,
    shape: str | None,
    plot: Path | None,
    as_json: bool,
    front: bool,
) -> int:
    """Find the cheapest rational expression for a FUNCTION of one variable.

    FUNCTION is a name such as exp or rsqrt, or a formula such as "x*exp(-x**2)". All schemes
    compete; the answer is the cheapest expression on the target that keeps the error on the whole
    domain, with a proof (≤) wherever one is found in short time.

    Exit code: 0 if there is an answer, 2 for bad input or an error out of reach.
    """
    if list_all:
        return _list(as_json)
    if function is None:
        raise click.UsageError("give a function; odp approximate --list shows those with a name")
    if domain is None:
        raise click.UsageError(f"give a domain, for example: odp approximate {function} -d -1:1")
    parts = _parts(atol, rtol, ulps)
    _check_limits(error, relative, operations, parts)
    _check_output(emit, output, name, shape, as_json)
    from odp.backends.whole_files import check_writable

    files = [path for path in (output, plot) if path is not None]
    if len({path.resolve() for path in files}) < len(files):
        raise click.UsageError(f"'{plot}' is named twice: give each output its own file")
    for path in files:
        check_writable(path)
    if plot is not None:
        from odp.cli.approximate_plot import check_plot

        check_plot(plot)

    from odp.cli.approximate_answer import Question, find_answer
    from odp.cli.approximate_input import read_domain, read_histogram, read_settings
    from odp.cli.terminal import Terminal

    interval = read_domain(domain)
    question = Question.of(
        function,
        interval,
        target=target,
        error=error,
        operations=operations,
        relative=relative,
        parts=parts,
        histogram=None if histogram is None else read_histogram(histogram, interval),
        scheme=scheme,
        settings=read_settings(settings),
        formula=formula,
    )
    terminal = Terminal()
    with terminal.waiting(f"Searching for {question.function.name}") as say:
        answer = find_answer(question, lambda found: say(found.description))
    best = answer.best.approximant
    if emit is not None:
        from odp.cli.approximate_emit import emit_approximant

        emit_approximant(best, emit, output, name=name, shape=shape)
    if plot is not None:
        from odp.cli.approximate_plot import draw

        draw(best, plot)
    if emit is not None and output is None:
        return 0
    if as_json:
        click.echo(json.dumps(answer.to_dict(with_front=front), indent=1, allow_nan=False))
        return 0
    from odp.cli.approximate_table import render_answer

    render_answer(answer, terminal.console, with_front=front)
    for path in files:
        terminal.wrote(path)
    return 0


def _parts(
    atol: float | None, rtol: float | None, ulps: float | None
) -> tuple[float, float, float] | None:
    if atol is None and rtol is None and ulps is None:
        return None
    return (atol or 0.0, rtol or 0.0, ulps or 0.0)


def _check_limits(
    error: float | None,
    relative: bool | None,
    operations: float | None,
    parts: tuple[float, float, float] | None,
) -> None:
    if operations is not None and (error is not None or parts is not None):
        raise click.UsageError("give an error or --operations, not both")
    if operations is not None and not 0 <= operations < math.inf:
        raise click.UsageError(f"--operations must be zero or a positive number, not {operations}")
    if parts is not None and error is not None:
        raise click.UsageError("give --error, or its parts --atol, --rtol, --ulps, not both")
    if parts is not None and relative is not None:
        raise click.UsageError("--relative and --absolute say what --error is; leave them out")


def _check_output(
    emit: str | None, output: Path | None, name: str | None, shape: str | None, as_json: bool
) -> None:
    if output is not None and emit is None:
        raise click.UsageError(f"-o {output}: say what to write there with --emit")
    if shape is not None and emit != "onnx":
        raise click.UsageError("--shape is the shape of an ONNX input; use it with --emit onnx")
    if name is not None and emit not in ("python", "c", "triton"):
        raise click.UsageError("--name is a name in source code; use it with --emit")
    if emit is None or output is not None:
        return
    if as_json:
        raise click.UsageError("--json and --emit both want standard output; give --emit a file -o")
    if emit == "onnx" and is_terminal():
        raise click.UsageError("an ONNX model is binary; name a file with -o, or use a pipe")


def is_terminal() -> bool:
    """Whether standard output is read by a person."""
    return sys.stdout.isatty()


def _list(as_json: bool) -> int:
    from odp.cli.approximate_list import listing, render_listing

    if as_json:
        click.echo(json.dumps(listing(), indent=1, allow_nan=False))
        return 0
    from odp.cli.terminal import Terminal

    render_listing(Terminal().console)
    return 0
