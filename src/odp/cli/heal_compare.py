"""`odp heal compare`: the original, the rewritten and the healed model side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from odp.cli.language_model import MODEL, load, prompts_in
from odp.cli.shared_options import JSON, QUIET, REPORT, files_option, max_tokens_option

__all__ = ["compare_command"]

_EPILOG = """
Examples

  odp heal compare SmolLM2/ healed/ --text other.txt --prompt "The rule of law"

  odp heal compare BitNet/ healed/ merged/ --text other.txt --json
"""


@click.command("compare", epilog=_EPILOG)
@MODEL
@click.argument(
    "others", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="HEALED..."
)
@files_option(
    "-t", "--text", "texts", help="Text to score, best one that no training saw.", required=True
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEXT",
    help="To be continued by all models. Can be repeated. Default: beginnings of lines of the "
    "texts.",
)
@click.option(
    "--prompts",
    "prompt_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Prompts, one in each line.",
)
@click.option("--new-tokens", default=64, show_default=True, type=click.IntRange(min=1))
@click.option("--chat", is_flag=True, help="Put the tokenizer's chat template around prompts.")
@click.option(
    "--context", type=click.IntRange(min=2), metavar="N", help="Tokens that models see at once."
)
@click.option(
    "--stride", type=click.IntRange(min=1), metavar="N", help="Default: half the context."
)
@max_tokens_option(8192)
@click.option("--layers", is_flag=True, help="Measure hidden states layer by layer.")
@click.option("--no-speed", is_flag=True, help="Do not measure tokens per second.")
@click.option(
    "--dtype",
    default="auto",
    show_default=True,
    metavar="TYPE",
    help="float32, bfloat16, float16, float64, or auto for that of the weights.",
)
@click.option("--device", metavar="DEVICE", help="cpu, cuda, ...; default: cpu.")
@REPORT
@JSON
@QUIET
def compare_command(
    model: Path,
    others: Sequence[Path],
    texts: Sequence[Path],
    prompts: Sequence[str],
    prompt_file: Path | None,
    new_tokens: int,
    chat: bool,
    context: int | None,
    stride: int | None,
    max_tokens: int,
    layers: bool,
    no_speed: bool,
    dtype: str,
    device: str | None,
    report: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Compare the original MODEL with what healing made of it.

    HEALED is a folder that 'odp heal' wrote, which brings two models: the one after surgery, and
    that with its adapter. Or it is a folder of transformers, such as a merged model. Perplexity, KL
    and shared top tokens, cosine of the logits, answers side by side, and tokens per second as
    ratios to the original, measured in turns.
    """
    from odp.backends.whole_files import check_writable, write_text
    from odp.cli.terminal import Terminal
    from odp.evaluation import read_texts

    if report is not None:
        check_writable(report)
    terminal = Terminal(quiet=quiet or as_json)
    asked = [*prompts, *prompts_in(prompt_file)]
    read = read_texts(texts)
    loaded = load(model, dtype, device, None, terminal)

    from odp.healing_comparison import compare_healed

    with terminal.progress() as advance:
        found = compare_healed(
            loaded,
            others,
            read,
            prompts=asked or None,
            new_tokens=new_tokens,
            chat=chat,
            context=context,
            stride=stride,
            max_tokens=max_tokens,
            layers=layers,
            speed=not no_speed,
            progress=advance,
        )
    text = found.to_json()
    if report is not None:
        write_text(report, text)
    if as_json:
        click.echo(text)
    elif not quiet:
        from odp.evaluation.evaluation_table import render

        render(found, terminal.console)
        if report is not None:
            terminal.wrote(report)
    terminal.warn(found.warnings)
    return 0
