"""`odp evaluate`: what rewriting does to the quality of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from odp.cli.language_model import (
    MODEL,
    calibration_of,
    load,
    model_options,
    parse_variants,
    prompts_in,
)
from odp.cli.shared_options import JSON, QUIET, REPORT, files_option

if TYPE_CHECKING:
    from odp.cli.terminal import Terminal
    from odp.evaluation import LanguageModel

__all__ = ["evaluate_command"]

_EPILOG = """
Examples

  odp evaluate SmolLM2/ --text prose.txt --calibrate other.txt

  odp evaluate SmolLM2/ --text prose.txt --calibrate ranges.json --passes rsqrt,exp,rope,sigmoid

  odp evaluate SmolLM2/ --text prose.txt --calibrate other.txt --variant report \\
    --variant "coarse=all{error=1e-3}" --prompts prompts.txt --json

  odp evaluate SmolLM2/ --calibrate other.txt --task hellaswag --task arc_easy
"""

_GROUPS = [
    ("What to rewrite", ["--passes", "--variant", "--error", "--margin", "--guard"]),
    ("Domains", ["--calibrate", "--calibrate-context", "--samples"]),
    ("Texts", ["--text", "--context", "--stride", "--max-tokens"]),
    ("Answers", ["--prompt", "--prompts", "--new-tokens", "--chat"]),
    ("Benchmarks", ["--task", "--task-folder", "--shots", "--limit"]),
    ("Model", ["--dtype", "--device", "--attention"]),
    ("Output", ["--no-layers", "--no-speed", "--report", "--json", "--quiet"]),
    ("Help", ["--help"]),
]
click.rich_click.OPTION_GROUPS["odp evaluate"] = [
    {"name": title, "options": options} for title, options in _GROUPS
]


@click.command("evaluate", epilog=_EPILOG)
@MODEL
@model_options
@click.option("-p", "--passes", metavar="PASSES", help="Of the variant 'rational'. Default: all.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME=PASSES",
    help="A further variant, or 'report' for the choices of the BitNet report. Can be repeated.",
)
@click.option("--error", default=1e-5, show_default=True, metavar="E", type=float)
@click.option("--margin", default=0.25, show_default=True, metavar="M", type=float)
@click.option("--guard", type=click.Choice(["clip", "none"]), default="clip", show_default=True)
@files_option("-t", "--text", "texts", help="Text to score.")
@click.option(
    "--context", type=click.IntRange(min=2), metavar="N", help="Tokens that models see at once."
)
@click.option(
    "--stride", type=click.IntRange(min=1), metavar="N", help="Default: half the context."
)
@click.option(
    "--max-tokens", type=click.IntRange(min=2), metavar="N", help="Of each text, at most so many."
)
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="Can be repeated.")
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
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME",
    help="Task of lm-evaluation-harness, such as mmlu. Can be repeated.",
)
@click.option(
    "--task-folder", "folders", multiple=True, type=click.Path(path_type=Path), metavar="FOLDER"
)
@click.option("--shots", type=click.IntRange(min=0), metavar="N", help="Examples before questions.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Questions of each task.")
@click.option("--no-layers", is_flag=True, help="Do not measure hidden states layer by layer.")
@click.option("--no-speed", is_flag=True, help="Do not measure tokens per second.")
@REPORT
@JSON
@QUIET
def evaluate_command(
    model: Path,
    calibrations: Sequence[Path],
    calibrate_context: int | None,
    samples: int | None,
    dtype: str,
    device: str | None,
    attention: str | None,
    passes: str | None,
    variants: Sequence[str],
    error: float,
    margin: float,
    guard: str,
    texts: Sequence[Path],
    context: int | None,
    stride: int | None,
    max_tokens: int | None,
    prompts: Sequence[str],
    prompt_file: Path | None,
    new_tokens: int,
    chat: bool,
    tasks: Sequence[str],
    folders: Sequence[Path],
    shots: int | None,
    limit: int | None,
    no_layers: bool,
    no_speed: bool,
    report: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Rewrite a language MODEL and compare it with the original.

    MODEL is a folder of transformers or a GGUF file. Perplexity of texts in sliding windows, KL
    divergence and agreement of the most likely tokens, hidden states layer by layer, greedy
    answers, speed, and benchmarks of lm-evaluation-harness: for the original and every variant, on
    the same tokens.
    """
    from odp.backends.whole_files import check_writable, write_text
    from odp.cli.terminal import Terminal

    if not texts and not tasks and not folders:
        raise click.UsageError("give a --text to score, or a --task")
    chosen = parse_variants(passes, variants)
    asked = [*prompts, *prompts_in(prompt_file)]
    if report is not None:
        check_writable(report)
    terminal = Terminal(quiet=quiet or as_json)

    from odp.evaluation import plan_evaluation, read_texts

    read = read_texts(texts) if texts else []
    loaded = load(model, dtype, device, attention, terminal)
    scoring: dict[str, Any] = {
        "context": context,
        "stride": stride,
        "max_tokens": max_tokens,
        "prompts": asked,
        "new_tokens": new_tokens,
        "chat": chat,
    }
    if read:
        # Before the models are rewritten, which takes minutes.
        plan_evaluation({"original": loaded.model}, loaded.tokenizer, read, **scoring)
    rational, warnings = _rewritten(
        loaded,
        chosen,
        terminal,
        calibration=calibration_of(calibrations),
        context=calibrate_context if calibrations else None,
        samples=samples,
        error=error,
        margin=margin,
        guard=guard,
    )
    from odp.evaluation import Evaluation, evaluate, run_tasks

    found: Evaluation | None = None
    with terminal.progress() as advance:
        scores = []
        if tasks or folders:
            scores = run_tasks(
                loaded.model,
                rational,
                loaded.tokenizer,
                tasks,
                folders=folders,
                shots=shots,
                limit=limit,
                chat=chat,
                progress=advance,
            )
        if read:
            found = evaluate(
                loaded.model,
                rational,
                loaded.tokenizer,
                read,
                **scoring,
                layers=not no_layers,
                speed=not no_speed,
                progress=advance,
            )
            found.tasks = scores
            found.warnings = [*warnings, *found.warnings]
    text = found.to_json() if found is not None else _tasks_json(scores)
    if report is not None:
        write_text(report, text)
    if as_json:
        click.echo(text)
    elif not quiet:
        from odp.evaluation.evaluation_table import render, render_tasks

        if found is not None:
            render(found, terminal.console)
        else:
            render_tasks(scores, terminal.console)
        if report is not None:
            terminal.wrote(report)
    terminal.warn(warnings)
    return 0


def _rewritten(
    loaded: LanguageModel, chosen: dict[str, str], terminal: Terminal, **options: Any
) -> tuple[dict[str, Any], list[str]]:
    """The rewritten models by name, and what a person must know about them."""
    from odp.rewriting import rewrite

    models: dict[str, Any] = {}
    warnings: list[str] = []
    for name, passes in chosen.items():
        with terminal.progress() as advance:
            result = rewrite(
                loaded.model,
                passes,
                tokenizer=loaded.tokenizer,
                measure=False,
                share_parameters=True,
                progress=advance,
                **options,
            )
        models[name] = result.model
        report = result.report
        warnings += [f"{name}: {warning}" for warning in report.warnings]
        left = sum(report.model.transcendental_after.values())
        if left:
            kinds = ", ".join(report.model.transcendental_after)
            warnings.append(f"{name}: {left} transcendental operators are left ({kinds})")
        if not terminal.quiet:
            from odp.rewriter.statistics import statistics

            found = statistics(report)
            line = f"{name}: replaced {found.parts()}; eliminated {found.operations()}"
            terminal.errors.print(line, soft_wrap=True, highlight=False, markup=False)
    return models, warnings


def _tasks_json(scores: Sequence[Any]) -> str:
    import json
    from dataclasses import asdict

    return json.dumps({"tasks": [asdict(score) for score in scores]}, indent=1)
