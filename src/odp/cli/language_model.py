"""What the commands for language models share: options, loading, variants and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

if TYPE_CHECKING:
    from odp.cli.terminal import Terminal
    from odp.evaluation import LanguageModel

__all__ = [
    "MODEL",
    "PRESETS",
    "calibration_of",
    "load",
    "model_options",
    "parse_variants",
    "prompts_in",
]

Command = TypeVar("Command", bound=Callable[..., Any])

MODEL = click.argument("model", type=click.Path(path_type=Path))

PRESETS = {
    "report": (
        "rsqrt{formula=y=2/(1+x); y=y*(1.5-0.5*x*y*y); y=y*(1.5-0.5*x*y*y); y=y*(1.5-0.5*x*y*y)},"
        "exp{formula=(1+x/8)**8,domain=-8:0},"
        "sigmoid{formula=u=1+x*x; y=2/(1+u); y=y*(1.5-0.5*u*y*y); y=y*(1.5-0.5*u*y*y);"
        " y=y*(1.5-0.5*u*y*y); 0.5+0.5*x*y},"
        "rope{scheme=chebyshev,degree=7}"
    )
}
"""Passes that others chose, by name.  `report` is the BitNet b1.58-2B-4T report that ODP continues:
three Newton steps from 2/(1+x), (1+x/8)^8, 0.5 + 0.5x/sqrt(1+x^2) with the same root, and sine and
cosine by Chebyshev of degree 7."""


def model_options(command: Command) -> Command:
    """The options that say how a model is loaded and what its domains come from."""
    options = [
        click.option(
            "--calibrate",
            "calibrations",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Texts that decide the domains (UTF-8), or ranges from 'odp calibrate' (.json). "
            "Texts can be repeated. Without any, random tokens are used, with a warning.",
        ),
        click.option(
            "--calibrate-context",
            type=click.IntRange(min=2),
            metavar="N",
            help="Tokens of a calibration window. Default: 512, or all that the model takes.",
        ),
        click.option(
            "--samples",
            type=click.IntRange(min=1),
            metavar="N",
            help="Calibration windows to use. Default: 16.",
        ),
        click.option(
            "--dtype",
            default="auto",
            show_default=True,
            metavar="TYPE",
            help="float32, bfloat16, float16, float64, or auto for that of the weights.",
        ),
        click.option(
            "--device",
            metavar="DEVICE",
            help="cpu, cuda, ... Default: cpu; to heal, a GPU if there is one.",
        ),
        click.option(
            "--attention",
            type=click.Choice(["eager", "sdpa"]),
            help="Attention of the original. Default: what the model prefers.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def load(
    model: Path, dtype: str, device: str | None, attention: str | None, terminal: Terminal
) -> LanguageModel:
    """Load a model from a folder or a GGUF file, with progress."""
    from odp.evaluation import load_language_model

    with terminal.progress() as advance:
        loaded = load_language_model(
            model, dtype=dtype, device=device, attention=attention, progress=advance
        )
    if getattr(loaded.model.config, "quantization_config", None) is not None:
        import torch

        # transformers compiles the quantisers of BitNet at their first call, for every shape and
        # mode again: minutes, where a command runs them for seconds.
        context = click.get_current_context()
        # rich_click says None where click raises.
        assert context is not None
        context.with_resource(torch.compiler.set_stance("force_eager"))
    return loaded


def calibration_of(files: Sequence[Path]) -> Any:
    """What `odp.rewrite` takes as calibration, from the files of `--calibrate`.

    Raises:
        UsageError: ranges together with anything else.
    """
    if any(file.suffix == ".json" for file in files) and len(files) > 1:
        raise click.UsageError("--calibrate takes one file of ranges (.json), or texts")
    if len(files) == 1:
        return files[0]
    return list(files) or None


def parse_variants(passes: str | None, variants: Sequence[str]) -> dict[str, str]:
    """Names of variants to passes.

    Args:
        passes: of `--passes`: the variant `rational`.
        variants: of `--variant`: `NAME=PASSES`, or the name of a preset.

    Raises:
        UsageError: a variant is malformed or named twice.
    """
    chosen: dict[str, str] = {}
    if passes is not None or not variants:
        chosen["rational"] = passes or "all"
    for text in variants:
        name, separator, listed = text.partition("=")
        if not separator and name in PRESETS:
            listed = PRESETS[name]
        elif not separator or not name.strip() or not listed.strip():
            raise click.UsageError(
                f"cannot read --variant '{text}': write NAME=PASSES, such as "
                f"'coarse=rsqrt,exp{{error=1e-3}}', or a preset ({', '.join(PRESETS)})"
            )
        if name.strip() in chosen:
            raise click.UsageError(f"two variants are named '{name.strip()}'")
        chosen[name.strip()] = listed
    return chosen


def prompts_in(file: Path | None) -> list[str]:
    """The lines of a file of prompts that are not blank; none without a file.

    Raises:
        OdpError: the file cannot be read, or is empty.
    """
    if file is None:
        return []
    from odp.evaluation import read_texts

    return [line for line in read_texts([file])[0].text.splitlines() if line.strip()]
