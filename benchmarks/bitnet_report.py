"""The report on BitNet: surgery, perplexity, healing, merging, circuits; numbers and page.

    make report-bitnet                                       # a small BitNet, trained here
    python benchmarks/bitnet_report.py --model PATH -o report.md

Without `--model` the small BitNet of `examples/small_bitnet.py` is trained first.  Every stage
leaves a JSON file in the folder, and is not run again while that is there; `--again STAGE` runs one
anew.  The page is `bitnet_report.md.jinja` with the numbers in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
from bitnet_stages import STAGES, Study
from environment import environment
from rich.console import Console

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "bitnet_report.json"
PAGE = ROOT / "docs" / "bitnet.md"
EXAMPLE = ROOT / "examples" / "small_bitnet.py"


def render(tree: dict[str, Any]) -> str:
    """The page that says what the stages found."""
    import jinja2

    loader = jinja2.FileSystemLoader(HERE)
    made = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "signed": lambda x, digits=2: "not finite" if x is None else f"{100 * x:+.{digits}f} %",
        "percent": lambda x, digits=1: "not finite" if x is None else f"{100 * x:.{digits}f} %",
        "short": lambda x: "not finite" if x is None else f"{x:.2g}",
        "number": lambda x: "infinite" if x is None else f"{x:.5g}",
        "gigabytes": lambda x: f"{x / 1e9:.2f} GB",
        "grouped": lambda x: f"{x:,}",
    }
    return made.get_template("bitnet_report.md.jinja").render(**tree)


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="Default: one trained here.")
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / "artifacts" / "bitnet")
@click.option("--again", multiple=True, type=click.Choice(list(STAGES)), help="Run it anew.")
@click.option("--real-size/--no-real-size", default=True, help="The stages at 2.4 billion.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: docs/bitnet.md.")
def main(
    model: Path | None,
    folder: Path,
    again: tuple[str, ...],
    real_size: bool,
    output: Path | None,
) -> None:
    """Run what has not been run, and write the page."""
    import torch

    from odp import OdpError
    from odp.backends.whole_files import write_text

    console = Console(stderr=True)
    if (model is None) != (output is None):
        raise click.UsageError("--model and --output go together; docs/bitnet.md is of the small")
    folder.mkdir(parents=True, exist_ok=True)
    texts = folder / "texts"
    if not texts.is_dir():
        subprocess.run([sys.executable, str(EXAMPLE), "texts", str(texts)], check=True)
    chosen = model or folder / "small"
    if model is None and not chosen.is_dir():
        subprocess.run([sys.executable, str(EXAMPLE), "train", str(chosen)], check=True)
    study = Study(chosen, texts, folder, with_real_size=real_size)
    tree: dict[str, Any] = {
        "environment": environment(),
        "name": "small BitNet" if model is None else chosen.name,
        "is_small": model is None,
    }
    # Compiling the quantisers of transformers for every shape takes minutes.
    with torch.compiler.set_stance("force_eager"):
        for name, stage in STAGES.items():
            file = folder / f"{name}.json"
            if name in again or not file.is_file():
                console.print(f"{name} ...")
                started = time.perf_counter()
                try:
                    found = stage(study)
                except OdpError as error:
                    raise SystemExit(f"error: {name}: {error}") from None
                seconds = time.perf_counter() - started
                write_text(file, json.dumps({"found": found, "seconds": seconds}, indent=1))
            tree[name] = json.loads(file.read_text())["found"]
    rows = HERE / "results" / "healing_rows.json"
    tree["rows"] = json.loads(rows.read_text()) if model is None and rows.is_file() else None
    if output is None:
        write_text(RESULTS, json.dumps(tree, indent=1))
    write_text(output or PAGE, render(tree))
    console.print(f"wrote {output or PAGE}")


if __name__ == "__main__":
    main()
