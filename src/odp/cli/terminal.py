"""What the commands print: progress while they work, tables when they are done."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from odp.rewriter.rewrite_pass import Pass
    from odp.rewriting import RewriteResult, Stage

__all__ = ["Terminal"]

_STAGES = {
    "load": "Loading and simplifying",
    "calibrate": "Calibrating",
    "approximate": "Choosing expressions",
    "measure": "Measuring each pass",
    "rewrite": "Rewriting and checking",
    "convert": "Converting weights",
    "score": "Scoring texts",
    "generate": "Answering prompts",
    "speed": "Measuring speed",
    "tasks": "Running tasks",
    "sensitivity": "Measuring each site",
    "heal": "Training the adapter",
    "control": "Training the control",
    "merge": "Merging",
    "schedule": "Placing rescales",
    "split": "Cutting",
    "srs": "Reference string",
    "compile_circuit": "Compiling",
    "setup": "Making keys",
    "gen_witness": "Witness",
    "prove": "Proving",
    "verify": "Verifying",
    "parts": "Proving parts",
}


class Terminal:
    """Standard output for results, standard error for progress and warnings."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console()
        self.errors = Console(stderr=True)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Stage]:
        """A progress bar for each stage; nothing when quiet or not a terminal."""
        if self.quiet or not self.errors.is_terminal:
            yield lambda what, done, total: None
            return
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:24}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.errors, transient=True) as bars:
            tasks: dict[str, TaskID] = {}

            def advance(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(_STAGES.get(what, what), total=total)
                bars.update(tasks[what], completed=done, total=total)

            yield advance

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[Callable[[str], None]]:
        """A line that says what is going on, from the second second on; nothing when quiet."""
        if self.quiet or not self.errors.is_terminal:
            yield lambda detail: None
            return
        status = self.errors.status(escape(what))
        timer = threading.Timer(1.0, status.start)
        timer.daemon = True
        timer.start()
        try:
            yield lambda detail: status.update(escape(f"{what}: {detail}"))
        finally:
            timer.cancel()
            # It may have been starting at this very moment.
            timer.join()
            status.stop()

    def warn(self, warnings: Sequence[str]) -> None:
        """Print warnings on standard error where `show` does not show them."""
        if self.quiet:
            for warning in warnings:
                self.errors.print(f"warning: {escape(warning)}", soft_wrap=True, highlight=False)

    def list_passes(self) -> None:
        """Print every pass with what it does and its own options."""
        from odp.passes import registry
        from odp.rewriter.report_table import PassSummary, render_passes_list
        from odp.rewriter.rewrite_pass import Pass

        shared = {option.name for option in fields(Pass)}
        summaries = [
            PassSummary(name, kind.summary(), _own_options(kind, shared))
            for name, kind in registry().items()
        ]
        render_passes_list(summaries, self.console)
        self.console.print("\nOptions of every pass, as in 'exp{error=1e-6,scheme=pade}':\n")
        for line in _documented_options(inspect.getdoc(Pass) or ""):
            self.console.print(f"  {line}", highlight=False)
        others = ", ".join(name for name, kind in registry().items() if not kind.in_all)
        self.console.print(f"\n'all' stands for every pass except {others}.")

    def show(self, result: RewriteResult, target: Path, reports: Sequence[Path]) -> None:
        """Print the report, near misses, and where everything was written."""
        if self.quiet:
            return
        from odp.rewriter.report_table import render, render_explanations

        report = result.report
        render(report, self.console)
        for name, misses in report.near_misses.items():
            self.console.print(f"\nNear misses of {name}")
            if misses:
                render_explanations(misses, self.console)
            else:
                self.console.print("none: nothing else in the model resembles what it looks for")
        self.wrote(target)
        for path in reports:
            self.wrote(path)

    def wrote(self, path: Path) -> None:
        """Say where something was written."""
        self.console.print(f"wrote {escape(str(path))}", soft_wrap=True, highlight=False)


def _own_options(kind: type[Pass], shared: set[str]) -> dict[str, object]:
    return {field.name: field.default for field in fields(kind) if field.name not in shared}


def _documented_options(documentation: str) -> list[str]:
    """The lines of the section `Attributes` of a docstring."""
    return [line.strip() for line in documentation.partition("Attributes:")[2].splitlines() if line]
