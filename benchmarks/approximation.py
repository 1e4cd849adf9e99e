"""Errors and times of `odp.approximations.minimax` beside other Python packages.

    python benchmarks/approximation.py

For each function, domain and type: the largest error on one grid of 200,001 points, and processor
time on one core, best of several runs.  Rivals are shown as ratios to ODP: an error ratio of 2 is
twice our error, a time ratio of 2 is twice our time.  Our time includes the proof of the error,
which no rival gives.  Writes results/approximation.json and exits with 1 if a rival's error is
smaller by more than 0.1 % or one of our answers takes more than 0.5 s.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import baryrat
import click
import mpmath
import numpy as np
from environment import environment
from rich.console import Console
from rich.table import Table
from scipy.interpolate import AAA

from odp.approximations import get_function, minimax

MOST_SECONDS = 0.5
LEAST_ERROR_RATIO = 0.999
RUNS = 3
RIVALS = ("baryrat.brasil", "scipy AAA", "mpmath.chebyfit")

CASES: list[tuple[str, tuple[float, float], int | tuple[int, int]]] = [
    ("exp", (-10, 0), 5),
    ("exp", (-10, 0), 9),
    ("exp", (-10, 0), 15),
    ("rsqrt", (1, 4), 8),
    ("log", (1, 2), 10),
    ("sigmoid", (-8, 8), 15),
    ("exp", (-10, 0), (2, 2)),
    ("exp", (-10, 0), (3, 3)),
    ("exp", (-10, 0), (4, 4)),
    ("exp", (-10, 0), (5, 5)),
    ("exp", (-10, 0), (3, 1)),
    ("rsqrt", (0.01, 100), (3, 3)),
    ("rsqrt", (0.01, 100), (5, 5)),
    ("log", (0.01, 100), (5, 5)),
    ("log", (1, 2), (3, 3)),
    ("sigmoid", (-8, 8), (3, 3)),
    ("sigmoid", (-8, 8), (5, 5)),
    ("gelu", (-6, 6), (6, 6)),
    ("silu", (-10, 10), (6, 6)),
]

Function = Callable[[Any], Any]


@dataclass
class Answer:
    """An approximation with its largest error and the processor time it took."""

    error: float
    seconds: float


def timed(make: Callable[[], Function], f: Function, x: np.ndarray) -> Answer | None:
    """The best of several runs; None if the package gives no finite answer."""
    seconds = math.inf
    for _ in range(RUNS):
        start = time.process_time()
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                made = make()
        except (ArithmeticError, ValueError, RuntimeError, np.linalg.LinAlgError):
            return None
        seconds = min(seconds, time.process_time() - start)
    with np.errstate(all="ignore"):
        error = float(np.abs(made(x) - f(x)).max())
    return Answer(error, seconds) if math.isfinite(error) else None


def rivals(
    name: str, domain: tuple[float, float], degree: int | tuple[int, int], x: np.ndarray
) -> dict[str, Answer | None]:
    """What the other packages make of the same function, domain and type."""
    function = get_function(name)
    f = function.numpy
    if isinstance(degree, int):

        def chebyfit() -> Function:
            with mpmath.workdps(30):
                coefficients = mpmath.chebyfit(function.mpmath, list(domain), degree + 1)
            return np.poly1d([float(c) for c in coefficients])

        return {"mpmath.chebyfit": timed(chebyfit, f, x)}
    m, n = degree
    found = {
        "baryrat.brasil": timed(lambda: baryrat.brasil(f, domain, degree, tol=1e-4), f, x),
    }
    if abs(m - n) <= 1:
        lo, hi = domain
        nodes = (lo + hi) / 2 + (hi - lo) / 2 * np.cos(np.linspace(0, math.pi, 2001))
        found["scipy AAA"] = timed(
            lambda: AAA(nodes, f(nodes), max_terms=max(m, n) + 1, rtol=0, clean_up=False), f, x
        )
    return found


def ratio(mine: float, other: float) -> str:
    """How many times as much another needs."""
    return f"{other / mine:.3g}" if mine > 0 else "-"


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path(__file__).parent / "results"
)
def main(output: Path) -> None:
    """Compare all cases."""
    share = f"of {MOST_SECONDS:g} s"
    table = Table("function", "domain", "type", "our error", share, title="ratios: rival / ODP")
    for rival in RIVALS:
        table.add_column(f"{rival}\nerror")
        table.add_column("time")
    # The first call imports scipy's solvers, flint and mpmath.
    minimax("exp", (-1, 0), (2, 2))
    rows = []
    for name, domain, degree in CASES:
        x = np.linspace(*domain, 200_001)
        if domain[0] > 0:
            x = np.unique(np.concatenate([x, np.geomspace(*domain, 100_001)]).clip(*domain))
        f = get_function(name).numpy
        make = lambda n=name, d=domain, t=degree: minimax(n, d, t)  # noqa: E731
        ours = timed(make, f, x)
        if ours is None:
            raise SystemExit(f"{name} on {domain}, type {degree}: no finite answer")
        answer = make()
        if isinstance(degree, tuple):
            # The linear term of gelu and silu comes on top of our type: rivals get it as well.
            rival_type = max(degree[0], len(answer.fit.numerator) - 1), degree[1]
            others = rivals(name, domain, rival_type, x)
        else:
            others = rivals(name, domain, degree, x)
        cells = [name, f"{domain}", f"{degree}", f"{ours.error:.3g}"]
        cells.append(f"{ours.seconds / MOST_SECONDS:.3f}")
        for rival in RIVALS:
            other = others.get(rival)
            missing = "failed" if rival in others else ""
            cells.append(ratio(ours.error, other.error) if other else missing)
            cells.append(ratio(ours.seconds, other.seconds) if other else "")
        table.add_row(*cells)
        rows.append(
            {
                "function": name,
                "domain": domain,
                "type": degree,
                "error": ours.error,
                "certified_error": answer.certified_error,
                "seconds": round(ours.seconds, 4),
                "error_ratios": {k: v and v.error / ours.error for k, v in others.items()},
                "time_ratios": {k: v and v.seconds / ours.seconds for k, v in others.items()},
            }
        )
    Console(width=140).print(table)
    ratios = [r for row in rows for r in row["error_ratios"].values() if r is not None]
    demands = {
        "no rival's error is smaller": min(ratios) >= LEAST_ERROR_RATIO,
        f"fit and proof in {MOST_SECONDS:g} s": max(r["seconds"] for r in rows) <= MOST_SECONDS,
        "every error is proven": all(row["certified_error"] is not None for row in rows),
    }
    output.mkdir(parents=True, exist_ok=True)
    results = {"environment": environment(), "cases": rows, "demands": demands}
    (output / "approximation.json").write_text(json.dumps(results, indent=1) + "\n")
    for demand, met in demands.items():
        print(f"{'met' if met else 'NOT MET':8}{demand}")
    sys.exit(0 if all(demands.values()) else 1)


if __name__ == "__main__":
    main()
