"""`odp heal check-merge`: does an adapter of a BitNet merge, and how not to merge it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from odp.cli.language_model import MODEL, load
from odp.cli.shared_options import JSON

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from odp.healing.merge_check import MergeCheck

__all__ = ["check_merge_command"]


@click.command("check-merge")
@MODEL
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="An adapter that PEFT saved. Default: one of random numbers.",
)
@click.option(
    "--targets",
    default="q_proj,k_proj,v_proj,o_proj",
    show_default=True,
    metavar="NAMES",
    help="Layers of the random adapter.",
)
@click.option("--rank", default=16, show_default=True, type=click.IntRange(min=1), metavar="R")
@click.option(
    "--strength",
    default=0.05,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Norm of the random updates relative to the weights.",
)
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What the model reads (UTF-8). Default: random tokens.",
)
@click.option("--tokens", default=128, show_default=True, type=click.IntRange(min=2), metavar="N")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    metavar="TYPE",
    help="float32, float64, bfloat16, or auto for that of the weights.",
)
@click.option("--device", metavar="DEVICE", help="cpu, cuda, ...; default: cpu.")
@JSON
def check_merge_command(
    model: Path,
    adapter: Path | None,
    targets: str,
    rank: int,
    strength: float,
    text: Path | None,
    tokens: int,
    seed: int,
    dtype: str,
    device: str | None,
    as_json: bool,
) -> int:
    """Merge an adapter into a BitNet MODEL in several ways and compare with the unmerged model.

    The layers of a BitNet quantise their input. A LoRA that reads the input before that has no
    weight that it could be merged into; one that reads what the layer sees merges exactly. Exit
    code 1 if ours is not equal within float rounding.
    """
    from odp.cli.terminal import Terminal

    terminal = Terminal(quiet=as_json)
    loaded = load(model, dtype, device, None, terminal)

    from odp.healing.bit_linear import bit_linears
    from odp.healing.bitnet_adapters import random_adapter, read_adapter
    from odp.healing.merge_check import check_merge

    bit_linears(loaded.model, f"'{model}'")
    ids = _tokens(loaded, text, tokens, seed)
    if adapter is None:
        names = [name.strip() for name in targets.split(",") if name.strip()]
        adapted = random_adapter(loaded.model, names, rank, strength, seed)
    else:
        adapted = read_adapter(loaded.model, adapter)
    with terminal.progress() as advance:
        check = check_merge(adapted, ids.to(loaded.model.device), advance)
    if as_json:
        click.echo(json.dumps({**asdict(check), "is_equal": check.is_equal}, indent=1))
    else:
        _show(check, terminal.console)
    return 0 if check.is_equal else 1


def _tokens(loaded: Any, text: Path | None, count: int, seed: int) -> torch.Tensor:
    """Ids (1, count): the beginning of a text, or random ones."""
    import torch

    if text is None:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(loaded.model.config.vocab_size, (1, count), generator=generator)
    from odp.evaluation import read_texts
    from odp.evaluation.texts import tokenise

    (found,) = tokenise(read_texts([text]), loaded.tokenizer, least=2, most=count)
    return torch.from_numpy(found.tokens)[None]


def _show(check: MergeCheck, console: Console) -> None:
    from odp.rewriter.table_style import plain_table

    kinds = ", ".join(f"{count} {kind}" for kind, count in check.layers.items())
    console.print(
        f"BitNet layers: {kinds}. Adapters on {check.adapted}, {check.strength:.1%} of the "
        f"weights. {check.tokens} tokens, {check.dtype}.\n"
    )
    table = plain_table("Merged beside unmerged, relative difference")
    table.add_column("way")
    for column in ("worst layer", "logits", "same top token"):
        table.add_column(column, justify="right")
    for way in check.ways:
        numbers = ["" if number is None else f"{number:.1e}" for number in (way.layer, way.logits)]
        top = way.note if way.same_top1 is None else f"{way.same_top1:.1%}"
        table.add_row(way.name, *numbers, top)
    console.print(table)
    verdict = "equal" if check.is_equal else "NOT equal"
    console.print(
        f"\nOurs: {verdict} within float rounding (layers: {check.tolerance:.0e}). "
        f"{check.flips:,} of {check.activations:,} activations fall on another of their 256 "
        "levels, where rounding moves them over the middle of two."
    )
    if check.flips and check.dtype == "float32":
        console.print(
            "That is what the logits of ours differ by, and any other order of sums would do "
            "it too; with --dtype float64 it does not happen."
        )
