"""What a rewrite makes of one architecture: the sites, what is left, the error and its bound."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import odp
from odp.backends.torch.discovery import Operations
from odp.evaluation.first_order_bound import first_order_bounds
from odp.rewriter.fx_transcendental import is_transcendental
from odp.rewriter.report import Report

from .configurations import ARCHITECTURES, CONTINUATION, Architecture, Feed
from .onnx_route import OnnxModule, export_to_onnx, transcendental_operators

__all__ = ["KINDS", "OnnxRoute", "OriginalInOnnx", "Record", "measure", "original_in_onnx"]

KINDS = ("norm", "softmax", "activation", "rope", "other")

ELEMENTS = 24
"""Elements of the output of each held-out batch for which a bound is computed, by one backward pass
each; they are drawn at random."""

_KIND_OF_PASS = {
    **dict.fromkeys(("rms_norm", "layer_norm", "rsqrt"), "norm"),
    **dict.fromkeys(("silu", "gelu", "sigmoid", "tanh", "softplus", "elu", "mish"), "activation"),
    **{"softmax": "softmax", "rope": "rope"},
}
# A second opinion on what is left, by the words of which the names of ATen are made.
_WORDS = frozenset(
    {
        *("exp", "exp2", "expm1", "log", "log1p", "log2", "logsumexp", "sqrt", "rsqrt", "erf"),
        *("sin", "cos", "tan", "tanh", "sigmoid", "softmax", "silu", "gelu", "softplus", "mish"),
        *("norm", "attention", "elu", "logit", "lstm", "gru", "atan", "atan2", "std"),
    }
)


@dataclass(frozen=True)
class OnnxRoute:
    """What became of a rewritten model on its way to ONNX.

    Attributes:
        left: transcendental operators in the file.
        difference: largest distance of ONNX Runtime from torch.
        rounding: largest rounding error of torch on the same input.
    """

    left: dict[str, int]
    difference: float
    rounding: float


@dataclass(frozen=True)
class OriginalInOnnx:
    """What became of a model that went to ONNX first and was rewritten there.

    Attributes:
        refused: why it cannot be exported, or an empty string.
        sites: how many were found.
        left: transcendental operators that stayed.
    """

    refused: str
    sites: int
    left: dict[str, int]


@dataclass(frozen=True)
class Record:
    """What a rewrite made of one architecture.

    Attributes:
        sites: replaced functions by kind, and sines and cosines that became tables.
        before: transcendental operators of the original by name.
        left: those of the rewritten model that were found in its graph or ran on held-out inputs.
        error: relative L2 error of the output on held-out inputs, all elements.
        sampled_error: likewise of the elements that have a bound.
        bound: their bounds, in the same measure.
        rounding: largest rounding error of any element of the original's outputs.
        rounding_share: the same, relative to the root mean square of the outputs.
        shares: error of each of these elements as a share of what is allowed: its bound, and the
            rounding of the two models that are compared.
        text: tokens that the original generates, or None.
        rewritten_text: likewise of the rewritten model.
        onnx: the way to ONNX, of a graph.
    """

    sites: dict[str, int]
    before: dict[str, int]
    left: dict[str, int]
    error: float
    sampled_error: float
    bound: float
    rounding: float
    rounding_share: float
    shares: list[float]
    text: list[int] | None
    rewritten_text: list[int] | None
    onnx: OnnxRoute | None


@functools.cache
def measure(name: str, attention: str, structure: str) -> Record:
    """Rewrite an architecture with default settings and look at what came out."""
    architecture = ARCHITECTURES[name]
    original = architecture.build(attention)
    result: Any = odp.rewrite(
        original,
        calibration=architecture.calibration(structure),
        structure=structure,  # type: ignore[arg-type]
        measure=False,
    )
    runs = [
        _Run.of(original, result, architecture, feed, seed)
        for seed, feed in enumerate(architecture.held_out())
    ]
    left = sum((run.left for run in runs), _left_in_graphs(result.model))
    text = rewritten_text = None
    if architecture.generates and structure == "modules":
        text = _continued(original, architecture)
        with Operations() as executed:
            rewritten_text = _continued(result.model, architecture)
        left += _suspicious(executed)
    route = None
    if structure == "graph":
        route = _onnx_route(result.model, architecture)
    rounding = max(run.rounding for run in runs)
    pairs = [pair for run in runs for pair in run.pairs]
    return Record(
        sites=_by_kind(result.report),
        before=result.report.model.transcendental_before,
        left=dict(left) | result.report.model.transcendental_after,
        error=_norm(runs, lambda run: run.difference) / _norm(runs, lambda run: run.expected),
        sampled_error=_norm(runs, lambda run: run.sampled_difference)
        / _norm(runs, lambda run: run.sampled_expected),
        bound=_norm(runs, lambda run: run.bounds) / _norm(runs, lambda run: run.sampled_expected),
        rounding=rounding,
        rounding_share=rounding / _root_mean_square(runs),
        shares=[error / (bound + 2.0 * rounding) for error, bound in pairs],
        text=text,
        rewritten_text=rewritten_text,
        onnx=route,
    )


@dataclass(frozen=True)
class _Run:
    """Original and rewritten model on one input; tensors are flat and float64."""

    expected: torch.Tensor
    difference: torch.Tensor
    sampled_expected: torch.Tensor
    sampled_difference: torch.Tensor
    bounds: torch.Tensor
    rounding: float
    left: Counter[str]

    @classmethod
    def of(
        cls, original: Any, result: Any, architecture: Architecture, feed: Feed, seed: int
    ) -> _Run:
        with torch.no_grad():
            expected = _flat(architecture, original, feed)
            found = _flat(architecture, result.model, feed)
            with Operations() as executed:
                result.model(**feed)
        generator = torch.Generator().manual_seed(seed)
        elements = torch.randperm(expected.numel(), generator=generator)[:ELEMENTS]
        bounds = first_order_bounds(
            result.model,
            result.report,
            lambda: architecture.output_of(result.model, feed),
            elements.tolist(),
        )
        difference = found - expected
        return cls(
            expected,
            difference,
            expected[elements],
            difference[elements],
            torch.tensor([bound.bound for bound in bounds], dtype=torch.float64),
            _rounding(architecture, original, feed),
            _suspicious(executed),
        )

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Error and bound of every element that has one."""
        errors = self.sampled_difference.abs().tolist()
        return list(zip(errors, self.bounds.tolist(), strict=True))


def _flat(architecture: Architecture, model: Any, feed: Feed) -> torch.Tensor:
    return architecture.output_of(model, feed).detach().double().flatten()


def _rounding(architecture: Architecture, model: Any, feed: Feed) -> float:
    """Largest distance of any output in float32 from what float64 gives, without padding.

    Where all is masked, transformers gives NaN in float64, in which its masks are minus infinity
    once they are cast to float32 for the softmax.
    """
    if "attention_mask" in feed:
        feed = {**feed, "attention_mask": torch.ones_like(feed["attention_mask"])}
    wide = {k: x.double() if x.is_floating_point() else x for k, x in feed.items()}
    with torch.no_grad():
        exact = _flat(architecture, copy.deepcopy(model).double(), wide)
        return float((_flat(architecture, model, feed) - exact).abs().max())


def _norm(runs: list[_Run], of: Callable[[_Run], torch.Tensor]) -> float:
    return float(torch.cat([of(run) for run in runs]).norm())


def _root_mean_square(runs: list[_Run]) -> float:
    return float(torch.cat([run.expected for run in runs]).square().mean().sqrt())


def _by_kind(report: Report) -> dict[str, int]:
    counts = Counter(_kind(site.id.split("/")[0], site.function) for site in report.sites)
    for record in report.passes:
        if record.folded:
            counts[_kind(record.name, record.name)] += record.folded
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def _kind(pass_name: str, function: str) -> str:
    return _KIND_OF_PASS.get(pass_name) or _KIND_OF_PASS.get(function, "other")


def _suspicious(executed: Operations) -> Counter[str]:
    found = Counter(executed.transcendental)
    for name, count in executed.all.items():
        if _WORDS & set(name.partition("::")[2].split("_")):
            found[name] = count
    return found


def _left_in_graphs(model: torch.nn.Module) -> Counter[str]:
    """Transcendental operators in the graphs of a model, bodies of higher-order ones included."""
    return Counter(
        str(node.target)
        for part in model.modules()
        if isinstance(part, torch.fx.GraphModule)
        for node in part.graph.nodes
        if is_transcendental(node)
    )


def _continued(model: Any, architecture: Architecture) -> list[int]:
    """Greedy text, with a cache, in which no two tokens follow each other twice.

    Small models tend to say one word forever, which they would do whatever was rewritten.
    """
    ids = model.generate(
        **architecture.prompt(),
        max_new_tokens=CONTINUATION,
        min_new_tokens=CONTINUATION,
        do_sample=False,
        no_repeat_ngram_size=2,
        use_cache=True,
        pad_token_id=0,
    )
    tokens: list[int] = ids[0, -CONTINUATION:].tolist()
    return tokens


def _onnx_route(rewritten: Any, architecture: Architecture) -> OnnxRoute:
    feed = architecture.held_out()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rewritten.onnx"
        export_to_onnx(rewritten, feed, path)
        left = transcendental_operators(path)
        exported = OnnxModule(path, architecture.output)
        with torch.no_grad():
            expected = _flat(architecture, rewritten, feed)
            difference = float((_flat(architecture, exported, feed) - expected).abs().max())
    return OnnxRoute(left, difference, _rounding(architecture, rewritten, feed))


@functools.cache
def original_in_onnx(name: str, attention: str) -> OriginalInOnnx:
    """Export an original to ONNX and rewrite the file."""
    architecture = ARCHITECTURES[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "original.onnx"
        try:
            export_to_onnx(architecture.build(attention), architecture.held_out()[0], path)
        except Exception as error:  # the exporter raises what it likes
            return OriginalInOnnx(" ".join(str(error).split())[:200], 0, {})
        report = _rewrite_onnx(path, architecture.calibration("graph"))
    return OriginalInOnnx("", len(report.sites), report.model.transcendental_after)


def _rewrite_onnx(path: Path, feeds: list[Feed]) -> Report:
    """The report of a rewrite of a file, calibrated on the same inputs."""
    names = [value.name for value in onnx.load(path).graph.input]
    arrays = {name: np.stack([feed[name].numpy() for feed in feeds]) for name in names}
    report: Report = odp.rewrite(path, calibration=arrays, opset=None, measure=False).report
    return report
