"""How long a user waits for `import odp` and for `--help`.

    python benchmarks/startup.py

Prints the best of several runs beside a bare interpreter, writes results/startup.json and exits
with 1 if one of them takes 0.5 s or more.  That is decided by processor time, which is wall time
on an idle machine: what else runs on the machine is no property of ODP.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
from environment import environment
from rich.console import Console
from rich.table import Table

LIMIT = 0.5
_COMMAND = "from odp.cli import {entry}; {entry}(['--help'])"
CASES = {
    "bare interpreter": "pass",
    "import odp": "import odp",
    "odp-rewrite --help": _COMMAND.format(entry="rewrite_main"),
    "odp --help": _COMMAND.format(entry="main"),
}


def best_of(runs: int, code: str) -> tuple[float, float]:
    """Least wall and least processor time of several fresh interpreters, in s."""
    walls, processor = [], []
    for _ in range(runs):
        wall, before = time.perf_counter(), os.times()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        walls.append(time.perf_counter() - wall)
        user = after.children_user - before.children_user
        processor.append(user + after.children_system - before.children_system)
    return min(walls), min(processor)


@click.command()
@click.option("--runs", default=7, help="The fastest of so many counts.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path(__file__).parent / "results"
)
def main(runs: int, output: Path) -> None:
    """Measure all cases."""
    found = {name: best_of(runs, code) for name, code in CASES.items()}
    bare = found["bare interpreter"][1]
    table = Table("case", "wall, s on this machine", "processor, s", "bare interpreter = 1")
    for name, (wall, processor) in found.items():
        table.add_row(name, f"{wall:.2f}", f"{processor:.2f}", f"{processor / bare:.1f}")
    Console().print(table)
    output.mkdir(parents=True, exist_ok=True)
    seconds = {
        name: {"wall": wall, "processor": processor} for name, (wall, processor) in found.items()
    }
    results = {"environment": environment(), "limit_seconds": LIMIT, "seconds": seconds}
    (output / "startup.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(0 if max(processor for _, processor in found.values()) < LIMIT else 1)


if __name__ == "__main__":
    main()
