"""How far apart the outputs of two models are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.rewriter.report import Metrics

__all__ = ["Outputs", "compare", "compare_output"]

Outputs = Sequence[Mapping[str, NDArray[Any]]]
"""The outputs of a model by name, for each run."""

_LOGITS = re.compile(r"logit|score", re.IGNORECASE)


def compare(original: Outputs, rewritten: Outputs) -> dict[str, Metrics]:
    """Metrics of every floating-point output over all runs, by output name."""
    if not original:
        return {}
    return {
        name: compare_output(
            name, [run[name] for run in original], [run[name] for run in rewritten]
        )
        for name, array in original[0].items()
        if np.issubdtype(np.asarray(array).dtype, np.floating)
    }


def compare_output(
    name: str, original: Sequence[NDArray[Any]], rewritten: Sequence[NDArray[Any]]
) -> Metrics:
    """Metrics of one output.

    Args:
        name: of the output; `logits` or `scores` in it says that it is to be read as logits.
        original: the output in each run.
        rewritten: likewise, of the same shapes.

    Returns:
        The metrics; elements that are not finite in the original are left out, and an element that
        is finite in the original only makes all errors infinite.
    """
    a = np.concatenate([np.asarray(array, np.float64).reshape(-1) for array in original])
    b = np.concatenate([np.asarray(array, np.float64).reshape(-1) for array in rewritten])
    finite = np.isfinite(a)
    a, b = a[finite], b[finite]
    if a.size == 0:
        return Metrics(0.0, 0.0, 0.0, 1.0)
    if not np.isfinite(b).all():
        return Metrics(*(float("inf"),) * 3, 0.0)
    difference = b - a
    norm_a, norm_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    distance = float(np.linalg.norm(difference))
    cosine = 1.0 if norm_a == norm_b == 0.0 else float(a @ b) / max(norm_a * norm_b, 1e-300)
    kl, top1 = _distribution_metrics(name, original, rewritten)
    return Metrics(
        max_abs=float(np.abs(difference).max()),
        rmse=distance / float(np.sqrt(a.size)),
        relative_l2=distance / norm_a if norm_a else (0.0 if distance == 0.0 else float("inf")),
        cosine=cosine,
        kl=kl,
        top1=top1,
    )


def _distribution_metrics(
    name: str, original: Sequence[NDArray[Any]], rewritten: Sequence[NDArray[Any]]
) -> tuple[float | None, float | None]:
    if original[0].ndim == 0 or original[0].shape[-1] < 2:
        return None, None
    logits = bool(_LOGITS.search(name))
    if not logits and not all(_is_distribution(array) for array in original):
        return None, None
    divergence, agree, rows = 0.0, 0, 0
    for one, two in zip(original, rewritten, strict=True):
        width = one.shape[-1]
        p = _log_probabilities(one.reshape(-1, width).astype(np.float64), logits)
        q = _log_probabilities(two.reshape(-1, width).astype(np.float64), logits)
        divergence += float((np.exp(p) * (p - q)).sum())
        agree += int((p.argmax(-1) == q.argmax(-1)).sum())
        rows += len(p)
    # Rounding makes the divergence of two equal distributions a tiny number of either sign.
    return max(divergence / rows, 0.0), agree / rows


def _is_distribution(array: NDArray[Any]) -> bool:
    return bool((array >= 0).all()) and bool(np.allclose(array.sum(-1), 1.0, atol=1e-3))


def _log_probabilities(rows: NDArray[np.float64], logits: bool) -> NDArray[np.float64]:
    if not logits:
        # An approximated softmax may put a tiny negative number where the original has zero.
        return np.log(np.maximum(rows, 1e-30))
    shifted = rows - rows.max(-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
