"""Our operators on a GPU, forward and backward, beside PyTorch, torch.compile and Liger-Kernel.

    python benchmarks/gpu_operators.py                       # bfloat16, at most 7 minutes
    python benchmarks/gpu_operators.py --only silu --dtype float16 --variants
    python benchmarks/gpu_operators.py --model               # SmolLM2, too
    python benchmarks/gpu_operators.py --dry-run             # on a CPU, tiny, to exercise the code

Each row has the bytes that have to be moved, each tensor once, and times as shares of the measured
speed of a copy on that GPU; ratios are to the better of eager and compiled.  Times are medians of
CUDA graphs, which leave out what Python takes to launch a kernel; the JSON has those of calls, too,
and the quantiles.  Errors are against float64, on a part of the rows.

The demands, at the two large sizes and in bfloat16: silu, swiglu, rms_norm, rope and gelu take at
most as long as the best of eager and compiled, forward and backward, and reach 90 % of the copy
forward; softmax takes at most 1.05 times as long, forward and backward; gelu is faster than eager;
attention forward reaches 0.9 of the speed of scaled_dot_product_attention's flash backend.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from environment import environment
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "gpu_operators.json"
DRY_RESULTS = Path(__file__).parents[1] / "artifacts" / "gpu_operators_dry_run.json"
NO_GPU = (
    "no CUDA device: nothing measured; instruction counts: tests/triton/instruction_budgets.json"
)
DTYPES = ("bfloat16", "float16", "float32")


@click.command()
@click.option("--only", multiple=True, help="Operators to measure; all if left out.")
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(DTYPES), default=["bfloat16"])
@click.option("--variants", is_flag=True, help="Ours with other divisions and gradients, too.")
@click.option("--graphs/--no-graphs", default=True, show_default=True, help="Time CUDA graphs.")
@click.option("--repeat", default=50, show_default=True, metavar="MS", help="Of each timing.")
@click.option(
    "--seconds", default=420.0, show_default=True, help="What has not begun then is left out."
)
@click.option("--model", "with_model", is_flag=True, help="Tokens per second of SmolLM2, too.")
@click.option("--dry-run", is_flag=True, help="On the CPU with tiny sizes; nothing is demanded.")
@click.option("--output", type=click.Path(path_type=Path), help="Default: in benchmarks/results.")
def main(
    only: tuple[str, ...],
    dtypes: tuple[str, ...],
    variants: bool,
    graphs: bool,
    repeat: int,
    seconds: float,
    with_model: bool,
    dry_run: bool,
    output: Path | None,
) -> None:
    """Measure all operators, write what there is after each, and check the demands."""
    import torch

    console = Console(soft_wrap=True)
    if not dry_run and not torch.cuda.is_available():
        console.print(NO_GPU, highlight=False)
        return
    from gpu_cases import CASES
    from gpu_demands import verdicts
    from gpu_language_model import compare_models
    from gpu_plots import plot
    from gpu_timing import Stopwatch, device_description

    unknown = set(only) - {case.name for case in CASES}
    if unknown:
        raise click.BadParameter(f"no operator {', '.join(sorted(unknown))}", param_hint="--only")
    # A backward that is run again and again must not give its buffers away.
    torch._functorch.config.donated_buffer = False
    device = torch.device("cpu" if dry_run else "cuda")
    path = output or (DRY_RESULTS if dry_run else RESULTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch(device, repeat, graphs)
    cases = [case for case in CASES if not only or case.name in only]
    with watch.stream():
        speed = watch.copy_speed()
    tree: dict[str, Any] = {
        "environment": environment(),
        "device": device_description(device),
        "dry_run": dry_run,
        "dtypes": list(dtypes),
        "copy_gigabytes_per_second": speed / 1e3,
        "large": {c.name: [c.tiny] if dry_run else list(c.sizes[:2]) for c in cases},
        "rows": [],
        "skipped": [],
        "failures": [],
    }
    console.print(f"{tree['device']['name']}: a copy moves {speed / 1e3:,.0f} GB/s")
    deadline = time.monotonic() + seconds
    for case in cases:
        rows = [
            row for dtype in dtypes for row in _rows(case, dtype, watch, tree, variants, deadline)
        ]
        tree["rows"] += rows
        _write(path, tree)
        for table in _tables(rows):
            console.print(table)
    _print_gaps(tree, console)
    if with_model:
        with watch.stream():
            tree["model"] = compare_models(watch, getattr(torch, dtypes[0]))
        console.print_json(data=tree["model"])
    tree["demands"] = []
    if not dry_run and "bfloat16" in dtypes:
        rows = [row for row in tree["rows"] if row["dtype"] == "bfloat16"]
        tree["demands"] = list(verdicts(rows, tree["large"], [case.name for case in cases]))
        console.print(_demands(tree["demands"]))
    _write(path, tree)
    pictures = plot(tree, path)
    names = ", ".join(one.name for one in pictures) or "no pictures (matplotlib is not installed)"
    console.print(f"{path}; {names}")
    raise SystemExit(0 if all(one["met"] for one in tree["demands"]) else 1)


def _rows(
    case: Any, dtype: str, watch: Any, tree: dict[str, Any], variants: bool, deadline: float
) -> list[dict[str, Any]]:
    import torch
    from gpu_measure import contenders, measure
    from gpu_timing import first_line

    rows = []
    for size in (case.tiny,) if tree["dry_run"] else case.sizes:
        name = f"{case.name} {'x'.join(map(str, size))} {dtype}"
        if time.monotonic() > deadline:
            tree["skipped"].append(name)
            continue
        found = contenders(case, not tree["dry_run"], variants)
        try:
            rows += measure(case, size, getattr(torch, dtype), watch, found)
        except Exception as failure:
            # Operands that do not fit into the memory of this GPU, say: the others go on.
            tree["failures"].append(f"{name}: {first_line(failure)}")
    return rows


def _write(path: Path, tree: dict[str, Any]) -> None:
    """In one step, so that a run that is killed leaves a whole file."""
    whole = path.with_suffix(".partial")
    whole.write_text(json.dumps(tree, indent=1))
    whole.replace(path)


def _tables(rows: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """One table for each direction and type."""
    for kind in dict.fromkeys((r["operator"], r["direction"], r["dtype"]) for r in rows):
        table = Table(title=", ".join(kind), title_justify="left")
        here = [r for r in rows if (r["operator"], r["direction"], r["dtype"]) == kind]
        speed = "TFLOP/s" if kind[0].startswith("attention") else "GB/s"
        for column in ("size", ""):
            table.add_column(column, no_wrap=True)
        for column in ("us", speed, "of copy", "ratio", "error", "relative"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in here:
            size = "x".join(map(str, row["size"]))
            for name, one in row["contenders"].items():
                table.add_row(size, name, *_cells(row, one))
                size = ""
        yield table


def _cells(row: dict[str, Any], one: dict[str, Any]) -> list[str]:
    if "failure" in one:
        return ["failed"]
    best = row["contenders"].get(row["best_native"], {}).get("microseconds")
    return [
        f"{one['microseconds']:.1f}",
        f"{one.get('teraflops', one['gigabytes_per_second']):,.0f}",
        f"{one['share_of_copy']:.1%}",
        f"{one['microseconds'] / best:.3f}" if best else "",
        *(_number(one["error"][kind]) for kind in ("largest", "relative")),
    ]


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"


def _print_gaps(tree: dict[str, Any], console: Console) -> None:
    """What was not measured, and why."""
    for row in tree["rows"]:
        for name, one in row["contenders"].items():
            if "failure" in one:
                where = f"{row['operator']} {'x'.join(map(str, row['size']))} {row['direction']}"
                tree["failures"].append(f"{where}, {name}: {one['failure']}")
    for failure in tree["failures"]:
        console.print(f"failed: {failure}", markup=False)
    if tree["skipped"]:
        console.print(f"no time was left for {', '.join(tree['skipped'])}")


def _demands(found: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Demands", title_justify="left")
    for column in ("operator", "size", "", "number", "bound", "value", ""):
        table.add_column(column)
    for one in found:
        value = "not measured" if one["value"] is None else f"{one['value']:.3f}"
        table.add_row(
            one["operator"],
            "x".join(map(str, one["size"])),
            one["direction"],
            one["number"],
            f"{one['bound']:.2f}",
            value,
            "met" if one["met"] else "[bold red]missed[/]",
        )
    return table


if __name__ == "__main__":
    main()
