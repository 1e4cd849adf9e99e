"""`odp heal`: train an adapter on a rewritten language model, with its controls."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from odp.cli.heal_plot import plot_command
from odp.cli.language_model import MODEL, calibration_of, load, model_options
from odp.cli.shared_options import JSON, QUIET, files_option, max_tokens_option

if TYPE_CHECKING:
    from odp.cli.terminal import Terminal
    from odp.healing.settings import HealingSettings
    from odp.healing_run import Healed

__all__ = ["heal_group"]

_EPILOG = """
Examples

  odp heal SmolLM2/ --text train.txt --held-out other.txt -p "all{error=1e-2}" -o healed/

  odp heal SmolLM2/ --text train.txt --held-out other.txt -p "all{error=1e-2}" -o healed/ --resume

  accelerate launch --num_processes 4 -m odp heal SmolLM2/ --text train.txt -o healed/

  odp heal plot healed/ -o losses.png

  odp heal compare SmolLM2/ healed/ --text other.txt

A model whose folder is named like a command is written ./plot.
"""

_GROUPS = [
    ("Texts", ["--text", "--held-out"]),
    ("What to rewrite", ["--passes", "--error", "--margin", "--guard", "--target"]),
    ("Domains", ["--calibrate", "--calibrate-context", "--samples"]),
    ("Adapter", ["--preset", "--rank", "--alpha", "--dropout", "--layers", "--magnitudes"]),
    (
        "Training",
        [
            *("--steps", "--learning-rate", "--warm-up", "--batch-size", "--accumulation"),
            *("--train-context", "--precision", "--gradient-checkpointing", "--clipping", "--seed"),
        ],
    ),
    ("Losses", ["--language-model", "--kl", "--features"]),
    ("Controls", ["--no-control", "--context", "--max-tokens", "--prompt", "--new-tokens"]),
    ("Model", ["--dtype", "--device", "--attention"]),
    ("Output", ["--output", "--resume", "--checkpoint-every", "--plot", "--json", "--quiet"]),
    ("Help", ["--help"]),
]
for _name in ("odp heal", "odp heal run"):
    click.rich_click.OPTION_GROUPS[_name] = [
        {"name": title, "options": options} for title, options in _GROUPS
    ]


class _HealGroup(click.RichGroup):
    """Commands, and `run` for everything else: `odp heal MODEL` is `odp heal run MODEL`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group("heal", cls=_HealGroup)
def heal_group() -> None:
    """Train an adapter on a rewritten language model until it does what the original did."""


heal_group.add_command(plot_command, "plot")


@heal_group.command("run", epilog=_EPILOG)
@MODEL
@model_options
@files_option("-t", "--text", "texts", help="Text to train on, of any size.", required=True)
@files_option(
    "--held-out", help="Text of another domain that no training sees, to score all models on."
)
@click.option("-p", "--passes", default="all", show_default=True, metavar="PASSES")
@click.option("--error", default=1e-5, show_default=True, metavar="E", type=float)
@click.option("--margin", default=0.25, show_default=True, metavar="M", type=float)
@click.option("--guard", type=click.Choice(["clip", "none"]), default="clip", show_default=True)
@click.option(
    "--target", type=click.Choice(["torch", "triton"]), default="torch", show_default=True
)
@click.option(
    "--preset",
    default="default",
    show_default=True,
    metavar="NAME",
    help="Settings to begin with: default (KL to the original), layerwise (also its hidden states "
    "after every block, and magnitudes; heals most in a given time), or seed (the BitNet report's, "
    "as far as they are known). Options below replace single ones.",
)
@click.option("--rank", type=int, metavar="N")
@click.option("--alpha", type=float, metavar="A")
@click.option("--dropout", type=float, metavar="P")
@click.option(
    "--layers",
    metavar="NAMES",
    help="Linear layers that get an adapter, by the end of their names, with commas between.",
)
@click.option(
    "--magnitudes",
    type=float,
    metavar="R",
    help="Learning rate of DoRA's magnitudes, relative; 0 is LoRA.",
)
@click.option("--steps", type=int, metavar="N", help="Updates of the adapter.")
@click.option("--learning-rate", type=float, metavar="R", help="The largest.")
@click.option("--warm-up", type=float, metavar="SHARE", help="Of the steps; then a cosine.")
@click.option("--batch-size", type=int, metavar="N", help="Windows that a process runs at once.")
@click.option("--accumulation", type=int, metavar="N", help="Batches for one update.")
@click.option("--train-context", type=int, metavar="N", help="Tokens of a training window.")
@click.option(
    "--precision", metavar="TYPE", help="Of matrix products: float32, bfloat16 or float16."
)
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory, more time.")
@click.option("--clipping", type=float, metavar="NORM", help="Largest norm of the gradient.")
@click.option("--seed", type=int, metavar="N")
@click.option("--language-model", type=float, metavar="W", help="Weight of the text's loss.")
@click.option("--kl", type=float, metavar="W", help="Weight of the KL to the original.")
@click.option("--features", type=float, metavar="W", help="Weight of the hidden states.")
@click.option("--no-control", is_flag=True, help="Do not train the same adapter without surgery.")
@click.option(
    "--context", type=click.IntRange(min=2), metavar="N", help="Tokens of windows to score."
)
@max_tokens_option(8192)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEXT",
    help="To be continued by all models. Default: beginnings of lines of the texts.",
)
@click.option("--new-tokens", default=64, show_default=True, type=click.IntRange(min=1))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="For adapter, log, checkpoints and controls.",
)
@click.option("--resume", is_flag=True, help="Go on with the healing in that folder.")
@click.option("--checkpoint-every", default=50, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the losses (.png, .svg, .pdf).",
)
@JSON
@QUIET
def run_command(
    model: Path,
    calibrations: Sequence[Path],
    calibrate_context: int | None,
    samples: int | None,
    dtype: str,
    device: str | None,
    attention: str | None,
    texts: Sequence[Path],
    held_out: Sequence[Path],
    preset: str,
    layers: str | None,
    train_context: int | None,
    precision: str | None,
    no_control: bool,
    prompts: Sequence[str],
    output: Path,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Rewrite a language MODEL, train an adapter, and compare four models.

    MODEL is a folder of transformers or a GGUF file. An adapter of low rank on the attention's
    layers is trained until the rewritten model predicts what the original did; the same adapter is
    trained on the original, as a control. Both, the original and the rewritten model without an
    adapter are scored on the text of the training and on texts held out. A run that was stopped, by
    whatever, goes on with --resume.
    """
    from odp.healing.log import check_plot

    settings = _settings(
        preset,
        options,
        targets=layers,
        context=train_context,
        dtype=precision,
    )
    if plot is not None:
        check_plot(plot)
    from odp.healing.acceleration import process_state

    is_main: bool = process_state(device).is_main_process
    from odp.cli.terminal import Terminal

    terminal = Terminal(quiet=quiet or as_json or not is_main)
    loaded = load(model, dtype, device, attention, terminal)

    from odp.healing_run import heal

    with _resumable(output), terminal.progress() as advance:
        healed = heal(
            loaded.model,
            loaded.tokenizer,
            texts,
            output,
            held_out=held_out,
            settings=settings,
            calibration=calibration_of(calibrations),
            calibrate_context=calibrate_context,
            samples=samples,
            control=not no_control,
            device=device,
            prompts=list(prompts) or None,
            progress=advance,
            **options,
        )
    if is_main:
        _show(healed, output, plot, terminal, as_json=as_json)
    return 0


@contextlib.contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Whoever stops a healing by Ctrl-C is told how it goes on."""
    from odp.healing_folder import RECORD

    try:
        yield
    except KeyboardInterrupt:
        if not (folder / RECORD).is_file():
            raise
        raise click.Abort(
            "interrupted; the same command with --resume goes on from the last checkpoint in "
            f"'{folder}'"
        ) from None


def _settings(preset: str, options: dict[str, Any], **renamed: Any) -> HealingSettings:
    """A preset with the options that were given, which are taken out of `options`."""
    from odp.healing.settings import preset as find_preset

    chosen = find_preset(preset)
    given = dict(renamed)
    for setting in dataclasses.fields(chosen):
        if setting.name in options and setting.name not in renamed:
            given[setting.name] = options.pop(setting.name)
    # The scoring has a context, too.
    if given["targets"] is not None:
        given["targets"] = tuple(n.strip() for n in given["targets"].split(",") if n.strip())
    # A flag that was not given is False.
    if not given["gradient_checkpointing"]:
        del given["gradient_checkpointing"]
    return dataclasses.replace(chosen, **{n: v for n, v in given.items() if v is not None})


def _show(
    healed: Healed, folder: Path, plot: Path | None, terminal: Terminal, *, as_json: bool
) -> None:
    import json

    if plot is not None:
        from odp.cli.heal_plot import logs_of
        from odp.healing.log import plot_logs

        plot_logs(logs_of(folder), plot)
    if as_json:
        tree = {
            "trained": dataclasses.asdict(healed.trained),
            "control": healed.control and dataclasses.asdict(healed.control),
            "controls": healed.controls and healed.controls.to_dict(),
            "warnings": healed.warnings,
        }
        click.echo(json.dumps(tree, indent=1))
        return
    terminal.warn(healed.warnings)
    if terminal.quiet:
        return
    from odp.healing.controls_table import render_controls, render_training

    for warning in healed.warnings:
        terminal.errors.print(f"warning: {warning}", soft_wrap=True, highlight=False, markup=False)
    render_training({"surgery": healed.trained, "control": healed.control}, terminal.console)
    if healed.controls is not None:
        terminal.console.print()
        render_controls(healed.controls, terminal.console)
    terminal.wrote(folder)
    if plot is not None:
        terminal.wrote(plot)
