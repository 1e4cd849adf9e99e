"""`odp heal rows`: coarser circuits of a language model, for as long as healing brings it back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from odp.cli.language_model import MODEL, load
from odp.cli.shared_options import JSON, QUIET, files_option, max_tokens_option

if TYPE_CHECKING:
    from odp.healing.settings import HealingSettings

__all__ = ["rows_command"]

_EPILOG = """
Examples

  odp heal rows small-bitnet/ --text train.txt --held-out other.txt -o rows/

  odp heal rows small-bitnet/ --text train.txt --held-out other.txt --errors 0.1,0.2 -T 8 -o rows/

  odp heal rows small-bitnet/ --text train.txt --held-out other.txt -o rows/ --resume
"""

click.rich_click.OPTION_GROUPS["odp heal rows"] = [
    {"name": "Texts", "options": ["--text", "--held-out", "--max-tokens"]},
    {"name": "Search", "options": ["--errors", "--quality", "--tokens", "--jobs"]},
    {"name": "Ranges", "options": ["--samples", "--margin"]},
    {
        "name": "Healing",
        "options": [
            *("--train", "--steps", "--learning-rate", "--batch-size", "--seed"),
            *("--rank", "--alpha", "--layers"),
        ],
    },
    {"name": "Output", "options": ["--output", "--resume", "--circuits", "--json", "--quiet"]},
    {"name": "Help", "options": ["--help"]},
]


@click.command("rows", epilog=_EPILOG)
@MODEL
@files_option(
    "-t",
    "--text",
    "texts",
    help="Text to train on and to calibrate the circuits with.",
    required=True,
)
@files_option(
    "--held-out", help="Text that no training sees; it decides the quality.", required=True
)
@max_tokens_option(4096)
@click.option(
    "--errors",
    metavar="E,E,...",
    help="Of the rungs: each layer's largest relative error. Default: 0.01 to 0.5 in seven rungs.",
)
@click.option(
    "--quality",
    default=0.01,
    show_default=True,
    type=float,
    metavar="Q",
    help="Largest expected change of the perplexity, exp(KL) - 1 on held-out text, that counts as "
    "the same quality.",
)
@click.option(
    "-T",
    "--tokens",
    default=16,
    show_default=True,
    type=click.IntRange(min=2),
    metavar="N",
    help="Of a circuit, and so of every window.",
)
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Layers that are compiled at a time.",
)
@click.option(
    "--samples",
    default=256,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Windows that decide domains and ranges. Few of them make many windows refused.",
)
@click.option("--margin", default=0.25, show_default=True, metavar="M", type=float)
@click.option(
    "--train",
    type=click.Choice(["norms", "lora"]),
    default="norms",
    show_default=True,
    help="norms: the weights of the norms; ternary weights stay ternary. lora: updates of low rank "
    "on attention, whose weights are dense then.",
)
@click.option("--steps", type=int, metavar="N", help="Updates of the adapter. Default: 100.")
@click.option("--learning-rate", type=float, metavar="R", help="The largest.")
@click.option("--batch-size", type=int, metavar="N", help="Windows of an update. Default: 32.")
@click.option("--seed", type=int, metavar="N")
@click.option("--rank", type=int, metavar="N", help="Of lora.")
@click.option("--alpha", type=float, metavar="A", help="Of lora.")
@click.option("--layers", metavar="NAMES", help="Of lora: linear layers, with commas between.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="For what each rung finds.",
)
@click.option("--resume", is_flag=True, help="Take rungs that are done from that folder.")
@click.option(
    "--circuits",
    is_flag=True,
    help="Write the circuits of rungs that keep the quality, for 'odp ezkl prove'.",
)
@JSON
@QUIET
def rows_command(
    model: Path,
    texts: Sequence[Path],
    held_out: Sequence[Path],
    max_tokens: int,
    errors: str | None,
    quality: float,
    tokens: int,
    jobs: int,
    samples: int,
    margin: float,
    train: str,
    steps: int | None,
    learning_rate: float | None,
    batch_size: int | None,
    seed: int | None,
    rank: int | None,
    alpha: float | None,
    layers: str | None,
    output: Path,
    resume: bool,
    circuits: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Find the cheapest circuits of a language MODEL that healing can bring back.

    Each rung compiles every decoder layer as a circuit with a larger error, which costs fewer rows;
    trains the circuits, with their very integers, until the model predicts again what the original
    did; and ends the search when it no longer does. On the CPU.
    """
    from odp.cli.terminal import Terminal
    from odp.healing_rows import ERRORS, heal_rows

    rungs = ERRORS if errors is None else _numbers(errors)
    settings = _settings(
        train,
        tokens,
        layers,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        alpha=alpha,
    )
    terminal = Terminal(quiet=quiet or as_json)
    loaded = load(model, "float32", "cpu", None, terminal)
    with terminal.progress() as advance:
        search = heal_rows(
            loaded.model,
            loaded.tokenizer,
            texts,
            output,
            held_out=held_out,
            tokens=tokens,
            errors=rungs,
            quality=quality,
            train="lora" if train == "lora" else "norms",
            settings=settings,
            margin=margin,
            samples=samples,
            max_tokens=max_tokens,
            jobs=jobs,
            circuits=circuits,
            resume=resume,
            progress=advance,
        )
    if as_json:
        click.echo(json.dumps(search.to_dict(), indent=1, allow_nan=False))
    elif not terminal.quiet:
        from odp.healing.rows_table import render_rows

        render_rows(search, terminal.console)
        terminal.wrote(output)
    return 0


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise click.UsageError(
            f"cannot read --errors '{text}': write numbers with commas between, such as 0.1,0.2"
        ) from None


def _settings(
    train: str, tokens: int, layers: str | None, **given: float | None
) -> HealingSettings:
    from odp.healing_rows import rows_settings

    changed: dict[str, object] = {name: v for name, v in given.items() if v is not None}
    if layers is not None:
        changed["targets"] = tuple(name.strip() for name in layers.split(",") if name.strip())
    start = rows_settings("lora" if train == "lora" else "norms", tokens)
    return dataclasses.replace(start, **changed)  # type: ignore[arg-type]
