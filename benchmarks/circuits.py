"""Circuits of blocks of language models: as EZKL makes them, and ours.

    python benchmarks/circuits.py                 # rows, tables, errors
    python benchmarks/circuits.py --prove         # keys and proofs, too: half an hour

Each block at the error of EZKL's own circuit at scale 7 or better, and the seed's block (hidden
256, intermediate 688, 4 tokens) also at 0.005.  Visibilities and range checks are the same on both
sides (public inputs and outputs, checked by the verifier).  The demands: no tables; for the seed's
block at most 2^17 rows at an error of 0.14 and 2^18 at 0.005; for attention at most 0.6 of the
rows; for the others fewer rows; every proof verifies, and EZKL's witness equals our integers.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
from circuit_blocks import export_block
from environment import environment
from rich.console import Console

RESULTS = Path(__file__).parent / "results" / "circuits.json"

# Block, error, EZKL's circuit, and what the rows may be: a number, or a share of EZKL's.
CASES: tuple[tuple[str, float, str, float], ...] = (
    ("gated_mlp_small", 0.05, "scale 7", 1.0),
    ("attention", 0.008, "scale 7", 0.6),
    ("encoder", 0.012, "scale 7", 1.0),
    ("state_space", 0.02, "scale 7", 1.0),
    ("gated_mlp", 0.14, "scale 7", 2.0**17),
    ("gated_mlp", 0.005, "scale 12", 2.0**18),
)


@click.command()
@click.option("--prove", "with_proof", is_flag=True, help="Make keys and proofs, too.")
@click.option("--only", multiple=True, help="Blocks to run; results of others stay.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(with_proof: bool, only: tuple[str, ...], output: Path) -> None:
    """Compare all blocks, and check the demands."""
    from odp.backends.ezkl.comparison_table import render

    console = Console()
    failures: list[str] = []
    results: list[dict[str, Any]] = []
    if only and output.is_file():
        known = json.loads(output.read_text())["results"]
        results = [one for one in known if one["block"] not in only]
    for name, error, goal, limit in CASES:
        if only and name not in only:
            continue
        console.print(f"\n[bold]{name}[/] at a relative error of {error:g}")
        found = _compared(name, error, goal, with_proof)
        render(found, console)
        standard, ours = found
        allowed = limit if limit > 1.0 else limit * standard.rows
        if ours.tables or ours.rows > allowed:
            failures.append(f"{name} at {error:g}: {ours.rows:,} rows, tables {ours.tables}")
        if with_proof and not ours.verified:
            failures.append(f"{name} at {error:g}: no proof ({ours.failure})")
        results.append(
            {"block": name, "wanted_error": error, "circuits": [one.to_dict() for one in found]}
        )
        tree = {"environment": environment(), "results": results, "failures": failures}
        output.write_text(json.dumps(tree, indent=1))
    for failure in failures:
        console.print(f"[bold red]missed[/]: {failure}")
    raise SystemExit(1 if failures else 0)


def _compared(name: str, error: float, goal: str, with_proof: bool) -> list[Any]:
    from odp.circuit_comparison import compare_circuits

    with tempfile.TemporaryDirectory(prefix="odp-circuits-") as folder:
        model, data = export_block(name, Path(folder))
        return compare_circuits(
            model,
            goals=[goal],
            folder=Path(folder) / "circuits",
            with_proof=with_proof,
            calibration=data,
            error=error,
        )


if __name__ == "__main__":
    main()
