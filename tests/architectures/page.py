"""Writes docs/architectures.md: `python -m tests.architectures.page`, ten minutes on one core."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import transformers

from .configurations import ARCHITECTURES, CONTINUATION, TOKENS
from .measuring import ELEMENTS, KINDS, Record, measure, original_in_onnx

__all__ = ["PAGE", "architectures_page", "counts", "head", "rows_of"]

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"

_HEAD = """\
# Architectures

<!-- Written by `python -m tests.architectures.page`; tests compare its rows and counts. -->

What `odp.rewrite` does with {total} architectures of transformers {version}, with all passes at
default settings (error 1e-5 at each site). The models are small ({layers} layers, random weights):
the kinds of sites are those of large ones, their number grows with the layers.
`tests/architectures/configurations.py` builds them, and `pytest tests/architectures` with and
without `-m slow` repeats everything that is stated here, on inputs of {tokens} tokens.

**Nothing transcendental is left in any of them**, neither in the nodes of the rewritten graph nor
among the operators that a run executes, generation with a key-value cache included.

- *attention*: the implementation in transformers; *own* where there is no choice of one.
- *norm, softmax, activation, other*: sites in the graph, places where a rational expression now is;
  *rope*: sines and cosines that became exact tables. *Other* are exponentials of state spaces and
  decays, and the logarithms of T5's relative positions, which became exact tables.
- *ops*: transcendental operators in the exported graph, before and after.
- *error*: relative L2 error of the output (logits; hidden states of Whisper) on inputs that
  calibration has not seen. What stands at padding is left out, because nothing reads it: eager
  attention that may look at nothing is uniform in the original, and need not be in the graph.
- *bound*: what the errors declared for the sites allow for it, to first order
  (`evaluation/first_order_bound.py`).
- *used*: the largest error of any single output, as a share of its own bound and of rounding.
- *text*: whether {continuation} greedily generated tokens, no two of which follow each other twice,
  are those of the original (structure modules, with cache).
- *ONNX*: the rewritten graph after `torch.onnx.export(dynamo=True)`; transcendental operators left,
  and the distance of ONNX Runtime from torch as a share of rounding.
- *ONNX original*: the same export of the original, rewritten by `odp.rewrite`; sites found and
  operators left. What the exporter computed beforehand, such as exponentials of weights, is no
  site any more.

Bounds are computed for {elements} random outputs of each held-out batch; error and bound are over
the same outputs. Rounding is the largest distance between float32 and float64: twice that of the
original for *used*, which compares two models, and that of the rewritten model for *ONNX*.
"""

_COLUMNS = (
    "architecture",
    "attention",
    *KINDS,
    "ops",
    "graph: error / bound",
    "used",
    "modules: error / bound",
    "used",
    "text",
    "ONNX",
    "ONNX original",
)


def counts(name: str, attention: str, record: Record) -> list[str]:
    """The cells of a row that are the same on every machine."""
    before, after = sum(record.before.values()), sum(record.left.values())
    return [
        name,
        attention,
        *(str(record.sites.get(kind, "")) for kind in KINDS),
        f"{before} → {after}",
    ]


def rows_of(page: str) -> list[list[str]]:
    """The cells of the table of architectures, row by row."""
    table = page.partition("## Results")[2].partition("## Classes")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def head() -> str:
    """What the page says before its tables."""
    return _HEAD.format(
        total=len(ARCHITECTURES),
        version=transformers.__version__,
        layers=2,
        tokens=TOKENS,
        elements=ELEMENTS,
        continuation=CONTINUATION,
    )


def architectures_page() -> str:
    """The page as it should stand in docs/."""
    lines = [head(), "## Results", "", _line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    for name, architecture in ARCHITECTURES.items():
        for attention in architecture.attentions:
            graph, modules = (measure(name, attention, s) for s in ("graph", "modules"))
            lines.append(_line(_row(name, attention, graph, modules)))
            print(lines[-1], file=sys.stderr, flush=True)
    lines += ["", "## Classes", "", _line(["architecture", "class", "note"]), _line(["---"] * 3)]
    for name, architecture in ARCHITECTURES.items():
        lines.append(_line([name, f"`{architecture.model.__name__}`", architecture.note]))
    return "\n".join([*lines, ""])


def _row(name: str, attention: str, graph: Record, modules: Record) -> list[str]:
    route, original = graph.onnx, original_in_onnx(name, attention)
    assert route is not None
    text = "" if modules.text is None else _yes(modules.text == modules.rewritten_text)
    return [
        *counts(name, attention, graph),
        *_errors(graph),
        *_errors(modules),
        text,
        f"{sum(route.left.values())} left, {route.difference / route.rounding:.1f}",
        original.refused or f"{original.sites} sites, {sum(original.left.values())} left",
    ]


def _errors(record: Record) -> list[str]:
    return [f"{record.sampled_error:.0e} / {record.bound:.0e}", f"{max(record.shares):.0%}"]


def _yes(same: bool) -> str:
    return "same" if same else "**differs**"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    # What is measured must not depend on what an earlier run left on this machine.
    os.environ["ODP_CACHE"] = "off"
    PAGE.write_text(architectures_page())
