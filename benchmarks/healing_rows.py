"""Healing buys rows: coarser circuits of the small BitNet's layers, healed, against quality.

    python benchmarks/healing_rows.py                         # trains the small BitNet first
    python benchmarks/healing_rows.py --model small-bitnet/   # of `examples/small_bitnet.py`
    python benchmarks/healing_rows.py --model small-bitnet/ --work rows/   # goes on there

The same ladder of errors is healed twice: by the weights of the norms, which leaves ternary weights
ternary, and by updates of low rank on attention, whose weights are dense then.  No demand but that
every number is there: how many rows healing buys is the result.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
from environment import environment
from rich.console import Console

RESULTS = Path(__file__).parent / "results" / "healing_rows.json"
ERRORS = "0.02,0.05,0.1,0.15,0.2,0.3,0.4"

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))


@contextlib.contextmanager
def small_bitnet(folder: Path | None) -> Iterator[Path]:
    """The folder of the model, or of one that is trained now, five minutes."""
    if folder is not None:
        yield folder
        return
    import small_bitnet as example

    with tempfile.TemporaryDirectory() as scratch:
        model, tokenizer, _ = example.train(example.Recipe(), example.calibration_text())
        example.save(Path(scratch) / "model", model, tokenizer, {})
        yield Path(scratch) / "model"


@click.command()
@click.option("--model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), help="To go on in.")
@click.option("--train", "trained", multiple=True, default=("norms", "lora"), show_default=True)
@click.option("--errors", default=ERRORS, show_default=True)
@click.option("--tokens", default=8, show_default=True)
@click.option("--steps", default=200, show_default=True)
@click.option("--samples", default=256, show_default=True)
@click.option("--jobs", default=2, show_default=True)
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path))
def main(
    model: Path | None,
    work: Path | None,
    trained: tuple[str, ...],
    errors: str,
    tokens: int,
    steps: int,
    samples: int,
    jobs: int,
    output: Path,
) -> None:
    """Search, print the tables and write the JSON."""
    import dataclasses

    import torch
    from small_bitnet import calibration_text, held_out_texts

    from odp import heal_rows
    from odp.evaluation import load_language_model
    from odp.healing.rows_table import render_rows
    from odp.healing_rows import rows_settings

    console, errors_console = Console(width=160), Console(stderr=True)
    torch.set_num_threads(1)
    begun = time.perf_counter()

    def told(what: str, done: int, total: int) -> None:
        if done == total:
            errors_console.print(f"{what}: {time.perf_counter() - begun:.0f} s")

    found: dict[str, object] = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        small_bitnet(model) as folder,
        torch.compiler.set_stance("force_eager"),
    ):
        loaded = load_language_model(folder, dtype="float32", device="cpu")
        texts = Path(scratch)
        (texts / "training.txt").write_text(calibration_text(), encoding="utf-8")
        held_out = next(t for name, t in held_out_texts().items() if name.startswith("Python"))
        (texts / "held-out.txt").write_text(held_out, encoding="utf-8")
        # Where a search goes on, its texts are those of before.
        place = work or Path(scratch) / "work"
        place.mkdir(parents=True, exist_ok=True)
        for file in texts.glob("*.txt"):
            if not (place / file.name).exists():
                file.rename(place / file.name)
        for train in trained:
            settings = dataclasses.replace(rows_settings(train, tokens), steps=steps)
            started = time.perf_counter()
            search = heal_rows(
                loaded.model,
                loaded.tokenizer,
                [place / "training.txt"],
                place / train,
                held_out=[place / "held-out.txt"],
                tokens=tokens,
                errors=[float(error) for error in errors.split(",")],
                train=train,
                settings=settings,
                samples=samples,
                jobs=jobs,
                resume=True,
                progress=told,
            )
            render_rows(search, console)
            console.print()
            found[train] = search.to_dict() | {
                "settings": settings.to_dict(),
                "samples": samples,
                "seconds": time.perf_counter() - started,
            }
    tree = {"environment": environment(), "searches": found}
    output.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
