"""What rational expressions cost at run time: SmolLM2 under torch.compile, before and after.

    python benchmarks/compile_overhead.py

Both models are compiled by inductor in one process, and their forward passes alternate on one
thread; what counts is the ratio of the medians of processor time, at most 1.15.  (On the two cores
of a busy machine the ratio of wall times wandered between 0.7 and 1.4 within one run.)  Eager mode
stands beside it: there every operation of an expression is a pass over memory, which a compiler
fuses into one.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from debian_texts import FORTUNES
from environment import environment
from language_model import PASSES, _model
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "compile_overhead.json"
LIMIT = 1.15


def _ratio(
    original: Callable[[], Any], rewritten: Callable[[], Any], rounds: int
) -> dict[str, float]:
    """The ratio of the medians of alternating runs, after one run of each, and its spread."""
    original(), rewritten()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, found in zip((original, rewritten), times, strict=True):
            started = time.process_time()
            run()
            found.append(time.process_time() - started)
    ratios = sorted(b / a for a, b in zip(*times, strict=True))
    return {
        "ratio": statistics.median(times[1]) / statistics.median(times[0]),
        "ratio_of_best": min(times[1]) / min(times[0]),
        "lower_quartile": ratios[len(ratios) // 4],
        "upper_quartile": ratios[-1 - len(ratios) // 4],
    }


@click.command()
@click.option("--tokens", default=256, show_default=True)
@click.option("--rounds", default=15, show_default=True)
def main(tokens: int, rounds: int) -> None:
    """Compile both models and time them in turn."""
    import torch

    import odp
    from odp.evaluation import load_language_model

    torch.set_num_threads(1)
    console = Console()
    loaded = load_language_model(_model(), dtype="float32")
    result = odp.rewrite(
        loaded.model,
        PASSES,
        calibration=FORTUNES / "science",
        tokenizer=loaded.tokenizer,
        samples=8,
        measure=False,
        share_parameters=True,
    )
    text = (FORTUNES / "wisdom").read_text(encoding="utf-8")
    ids = torch.tensor([loaded.tokenizer.encode(text, add_special_tokens=False)[:tokens]])
    rows: dict[str, dict[str, float]] = {}
    compile_seconds: dict[str, float] = {}

    def call(model: Any) -> Callable[[], Any]:
        return lambda: model(input_ids=ids, use_cache=False).logits

    with torch.no_grad():
        rows["eager"] = _ratio(call(loaded.model), call(result.model), 3)
        compiled = {}
        for name, model in (("original", loaded.model), ("rewritten", result.model)):
            started = time.perf_counter()
            compiled[name] = torch.compile(model, fullgraph=True)
            call(compiled[name])()
            compile_seconds[name] = time.perf_counter() - started
        difference = call(compiled["rewritten"])() - call(result.model)()
        rows["torch.compile"] = _ratio(
            call(compiled["original"]), call(compiled["rewritten"]), rounds
        )
    title = f"Processor time of {tokens} tokens, rewritten / original"
    table = Table(title=title, title_justify="left")
    for column in ("", "ratio of medians", "of best times", "quartiles"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        quartiles = f"{row['lower_quartile']:.3f} - {row['upper_quartile']:.3f}"
        table.add_row(name, f"{row['ratio']:.3f}", f"{row['ratio_of_best']:.3f}", quartiles)
    console.print(table)
    slower = compile_seconds["rewritten"] / compile_seconds["original"]
    console.print(f"compiling the rewritten model took {slower:.1f} times as long")
    tree = {
        "environment": environment(),
        "tokens": tokens,
        "rows": rows,
        "compile_time_ratio": slower,
        "compiled_minus_eager": float(difference.abs().max()),
    }
    RESULTS.write_text(json.dumps(tree, indent=1))
    raise SystemExit(0 if rows["torch.compile"]["ratio"] <= LIMIT else 1)


if __name__ == "__main__":
    main()
