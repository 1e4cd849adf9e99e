"""How time and memory of a rewrite grow with the model.

    python benchmarks/rewriting_scale.py                       # about four minutes
    python benchmarks/rewriting_scale.py --model model.onnx --calibrate inputs.npz

Three things are shown, and the exit code is 1 if one of them fails:

- time is linear in nodes up to 100,000: the exponent of a power law through the sizes is at most
  1.15.  Fitted is processor time, since other programs on the machine change wall time;
- a real model is rewritten in at most 10 s, calibration and measurement apart: again processor
  time, wall time stands beside it;
- with at most 2.5 times its size in memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from environment import environment
from rich.console import Console
from rich.table import Table
from rivals import TOOLS
from transformer_graph import SMOLLM2, transformer_model

HERE = Path(__file__).parent
SCALING = ("load", "simplify", "match", "rewrite", "lower", "save")
"""Phases whose work grows with the model; `approximate` is a search for each distinct domain."""
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
RIVALS_AT = 3_000
LARGEST_EXPONENT, MOST_SECONDS, MOST_MEMORY = 1.15, 10.0, 2.5
_TIMEOUT = {"phases.py": 300.0, "whole_command.py": 300.0, "rivals.py": 30.0}

console = Console()


def in_process(script: str, *arguments: str | Path) -> dict[str, Any]:
    """Run a script of this folder and read the JSON object that it prints last."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    started = time.perf_counter()
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=_TIMEOUT[script], cwd=HERE
    )
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found | {"process_seconds": time.perf_counter() - started}


def milliseconds_per_node(record: dict[str, Any], phases: tuple[str, ...] = SCALING) -> float:
    """Processor time of some phases for each node of the model, in ms."""
    seconds = sum(record["phases"][name]["processor_seconds"] for name in phases)
    return 1e3 * float(seconds) / float(record["nodes_before"])


def measure_sizes(folder: Path, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Rewrite synthetic transformers of all sizes and fit time = c * nodes ** exponent."""
    records = []
    for size in sizes:
        path = folder / f"transformer_{size}.onnx"
        onnx.save(transformer_model(size), path)
        # Short runs are repeated: the fastest is the one that was disturbed least.
        repeats = 2 if size < 5_000 else 1
        runs = [in_process("phases.py", path, "--warm") for _ in range(repeats)]
        records.append(min(runs, key=milliseconds_per_node))
    nodes = [record["nodes_before"] for record in records]
    exponents = {
        name: _exponent(nodes, [milliseconds_per_node(r, phases) for r in records])
        for name, phases in [(p, (p,)) for p in SCALING] + [("all", SCALING)]
    }
    return {"runs": records, "exponents": exponents}


def _exponent(nodes: list[int], per_node: list[float]) -> float:
    return 1.0 + float(np.polyfit(np.log(nodes), np.log(per_node), 1)[0])


def show_sizes(found: dict[str, Any]) -> None:
    """Print time per node relative to the smallest model."""
    table = Table(title="Processor time per node, relative to the smallest model")
    for heading in ("nodes", "sites", *SCALING, "all", "peak RSS per node"):
        table.add_column(heading, justify="right")
    first = found["runs"][0]
    for run in found["runs"]:
        ratios = [
            milliseconds_per_node(run, (p,)) / milliseconds_per_node(first, (p,)) for p in SCALING
        ]
        total = milliseconds_per_node(run) / milliseconds_per_node(first)
        table.add_row(
            f"{run['nodes_before']:,}",
            f"{run['sites']:,}",
            *(f"{ratio:.2f}" for ratio in (*ratios, total)),
            f"{run['peak_rss_bytes'] / run['nodes_before'] / 1e3:.0f} kB",
        )
    table.add_section()
    exponents = [found["exponents"][name] for name in (*SCALING, "all")]
    table.add_row("exponent", "", *(f"{exponent:.2f}" for exponent in exponents), "")
    console.print(table)


def measure_rivals(folder: Path, ours: dict[str, Any]) -> dict[str, Any]:
    """Other tools on the file that `ours` was measured on, as ratios to ODP."""
    path = folder / f"transformer_{RIVALS_AT}.onnx"
    own = sum(ours["phases"][name]["processor_seconds"] for name in SCALING)
    found: dict[str, Any] = {}
    for tool in TOOLS:
        try:
            found[tool] = in_process("rivals.py", tool, path)
            found[tool]["ratio_to_odp"] = found[tool]["processor_seconds"] / own
        except subprocess.TimeoutExpired:
            found[tool] = {"failure": f"not done after {_TIMEOUT['rivals.py']:g} s"}
        except subprocess.CalledProcessError as error:
            found[tool] = {"failure": (error.stderr.strip().splitlines() or ["?"])[-1][:200]}
    table = Table(title=f"Other tools on the {ours['nodes_before']:,}-node model, ODP = 1")
    for heading in ("tool", "processor time", "transcendental operators left"):
        table.add_column(heading)
    table.add_row("odp (whole rewrite)", "1.00", "none" if not ours["transcendental_after"] else "")
    known = {"Exp", "Erf", "Sqrt", "Sigmoid", "Softmax", "Sin", "Cos"}
    for tool, record in found.items():
        if "failure" in record:
            table.add_row(tool, record["failure"], "")
            continue
        left = sorted(known.intersection(record["operators"]))
        table.add_row(tool, f"{record['ratio_to_odp']:.2f}", ", ".join(left) or "none")
    console.print(table)
    return found


def measure_model(model: Path, passes: str, calibration: Path | None) -> dict[str, Any]:
    """Rewrite one model from a cold start; then, apart, with calibration and measurement."""
    found = in_process("phases.py", model, "--passes", passes)
    for clock in ("seconds", "processor_seconds"):
        found[clock] = sum(phase[clock] for phase in found["phases"].values())
    found["memory_ratio"] = found["peak_rss_bytes"] / found["bytes"]
    if calibration is not None:
        command = in_process("whole_command.py", model, calibration, "--passes", passes)
        found["with_calibration_and_measurement"] = command
    return found


def show_model(name: str, found: dict[str, Any]) -> None:
    """Print the phases of one model."""
    title = f"{name}: {found['nodes_before']:,} nodes, {found['bytes'] / 1e6:.0f} MB"
    table = Table(title=title)
    for heading in ("phase", "share of time", "peak RSS / model", "peak anonymous / model"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    for phase, record in found["phases"].items():
        table.add_row(
            phase,
            f"{record['seconds'] / found['seconds']:.0%}",
            f"{record['peak_rss_bytes'] / found['bytes']:.2f}",
            f"{record['peak_anonymous_bytes'] / found['bytes']:.2f}",
        )
    console.print(table)
    console.print(
        f"{found['processor_seconds']:.1f} s of processor time, {found['seconds']:.1f} s wall on "
        f"this machine; {found['memory_ratio']:.2f} x memory"
    )
    apart = found.get("with_calibration_and_measurement")
    if apart is not None:
        stages = ", ".join(f"{k} {v:.1f}" for k, v in apart["stages"].items())
        console.print(f"with calibration and measurement, in seconds on this machine: {stages}")


@click.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="A real model.")
@click.option("--calibrate", type=click.Path(path_type=Path, exists=True))
@click.option("--passes", default="rsqrt,exp,rope,sigmoid", help="For the real model.")
@click.option("--largest", default=SIZES[-1], help="Leave out larger synthetic models.")
@click.option("--output", type=click.Path(path_type=Path), default=HERE / "results")
def main(
    model: Path | None, calibrate: Path | None, passes: str, largest: int, output: Path
) -> None:
    """Measure, print tables, write results/rewriting_scale.json, and check the demands."""
    results: dict[str, Any] = {"environment": environment()}
    artifacts = HERE.parent / "artifacts"
    if model is None and (artifacts / "smollm2.onnx").exists():
        model = artifacts / "smollm2.onnx"
        inputs = artifacts / "smollm2.npz"
        calibrate = inputs if calibrate is None and inputs.exists() else calibrate
    with tempfile.TemporaryDirectory(prefix="odp-benchmark-") as name:
        folder = Path(name)
        if model is None:
            model = folder / "random_weights.onnx"
            onnx.save(transformer_model(3334, SMOLLM2), model)
        real = measure_model(model, passes, calibrate)
        show_model(model.name, real)
        scale = measure_sizes(folder, tuple(size for size in SIZES if size <= largest))
        show_sizes(scale)
        rivals = measure_rivals(folder, scale["runs"][SIZES.index(RIVALS_AT)])
    results |= {"model": {"name": model.name, **real}, "scale": scale, "rivals": rivals}
    demands = {
        f"exponent at most {LARGEST_EXPONENT}": scale["exponents"]["all"] <= LARGEST_EXPONENT,
        f"real model in at most {MOST_SECONDS:g} s": real["processor_seconds"] <= MOST_SECONDS,
        f"memory at most {MOST_MEMORY} x model": real["memory_ratio"] <= MOST_MEMORY,
    }
    results["demands"] = demands
    output.mkdir(parents=True, exist_ok=True)
    (output / "rewriting_scale.json").write_text(json.dumps(results, indent=1) + "\n")
    for demand, met in demands.items():
        console.print(f"{'met' if met else 'NOT MET':8}{demand}")
    sys.exit(0 if all(demands.values()) else 1)


if __name__ == "__main__":
    main()
