"""How far apart the outputs of two models are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.rewriter.report import Metrics

__all__ = ["Comparison", "Outputs", "compare", "compare_output"]

Outputs = Sequence[Mapping[str, NDArray[Any]]]
"""The outputs of a model by name, for each run."""

_LOGITS = re.compile(r"logit|score", re.IGNORECASE)

_BLOCK = 1 << 16
"""Elements that are compared at a time: the float64 temporaries of a block stay in the cache.
The logits of a language model (50 million elements in 16 runs) are compared ten times faster than
as whole arrays, which took longer than running the model, and 2 GB."""


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
        The metrics, as `Comparison` finds them.
    """
    comparison = Comparison(name)
    for one, two in zip(original, rewritten, strict=True):
        comparison.add(np.asarray(one), np.asarray(two))
    return comparison.metrics()


class Comparison:
    """The metrics of one output of two models, taken in run by run.

    Elements that are not finite in the original are left out, and an element that is finite in the
    original only makes all errors infinite.
    """

    def __init__(self, name: str) -> None:
        """Compare the output `name`; `logits` or `scores` in it says how it is to be read."""
        self._distance = _Distance()
        self._logits = bool(_LOGITS.search(name))
        self._divergence: _Divergence | None = _Divergence(self._logits)
        self._broken = False

    def add(self, original: NDArray[Any], rewritten: NDArray[Any]) -> None:
        """Take in the output of one run, two arrays of the same shape and a floating-point type."""
        if not self._has_rows(original):
            self._divergence = None
        for a, b in _blocks(original, rewritten):
            if self._broken:
                return
            self._broken = not self._distance.add(a, b)
            if self._divergence is not None and not self._broken:
                self._divergence.add(a, b)

    def metrics(self) -> Metrics:
        """The metrics of all runs together."""
        if self._broken:
            return Metrics(*(float("inf"),) * 3, 0.0)
        divergence = self._divergence
        return self._distance.metrics(divergence if divergence and divergence.rows else None)

    def _has_rows(self, original: NDArray[Any]) -> bool:
        """Whether the rows along the last axis are logits or distributions."""
        if original.ndim == 0 or original.shape[-1] < 2:
            return False
        return self._logits or _is_distribution(original)


def _blocks(
    one: NDArray[Any], two: NDArray[Any]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Corresponding rows along the last axis, some at a time, in float64."""
    if one.size == 0:
        return
    width = one.shape[-1] if one.ndim else 1
    a, b = one.reshape(-1, width), two.reshape(-1, width)
    step = max(1, _BLOCK // width)
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        yield a[rows].astype(np.float64), b[rows].astype(np.float64)


@dataclass
class _Distance:
    """Sums over the elements that are finite in the original."""

    elements: int = 0
    max_abs: float = 0.0
    squares: float = 0.0
    squares_a: float = 0.0
    squares_b: float = 0.0
    product: float = 0.0

    def add(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
        """Take in a block; False if an element became infinite or NaN."""
        finite = np.isfinite(a)
        a, b = (a.ravel(), b.ravel()) if finite.all() else (a[finite], b[finite])
        if a.size == 0:
            return True
        difference = b - a
        self.elements += a.size
        self.max_abs = max(self.max_abs, float(difference.max()), -float(difference.min()))
        self.squares += _product(difference, difference)
        self.squares_a += _product(a, a)
        self.squares_b += _product(b, b)
        self.product += _product(a, b)
        return bool(np.isfinite(b).all())

    def metrics(self, divergence: _Divergence | None) -> Metrics:
        """The metrics of all blocks together."""
        if self.elements == 0:
            return Metrics(0.0, 0.0, 0.0, 1.0)
        distance = float(np.sqrt(self.squares))
        norm_a, norm_b = float(np.sqrt(self.squares_a)), float(np.sqrt(self.squares_b))
        unchanged = 0.0 if distance == 0.0 else float("inf")
        both_zero = norm_a == norm_b == 0.0
        cosine = 1.0 if both_zero else self.product / max(norm_a * norm_b, 1e-300)
        return Metrics(
            max_abs=self.max_abs,
            rmse=distance / float(np.sqrt(self.elements)),
            relative_l2=distance / norm_a if norm_a else unchanged,
            cosine=min(max(cosine, -1.0), 1.0),  # rounding may put it a last digit outside
            kl=None if divergence is None else divergence.kl,
            top1=None if divergence is None else divergence.agree / divergence.rows,
        )


def _product(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Scalar product; `a @ b` of BLAS wakes its threads, 0.05 ms became 8 ms on a busy machine."""
    return float(np.einsum("i,i->", a, b))


def _is_distribution(array: NDArray[Any]) -> bool:
    return bool((array >= 0).all()) and bool(
        np.allclose(array.sum(-1, dtype=np.float64), 1.0, atol=1e-3)
    )


@dataclass
class _Divergence:
    """Kullback-Leibler divergence from the original and agreement on the largest, over rows."""

    logits: bool
    rows: int = 0
    total: float = 0.0
    agree: int = 0

    def add(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        """Take in a block of rows, (rows, classes)."""
        self.rows += len(a)
        self.agree += int((a.argmax(-1) == b.argmax(-1)).sum())
        if self.logits:
            self.total += _divergence_of_logits(a, b)
        else:
            # An approximated softmax may put a tiny negative number where the original has zero.
            p, q = np.maximum(a, 1e-30), np.maximum(b, 1e-30)
            self.total += float((p * np.log(p / q)).sum())

    @property
    def kl(self) -> float:
        """Mean over the rows, in nats."""
        # Rounding makes the divergence of two equal distributions a tiny number of either sign.
        return max(self.total / self.rows, 0.0)


def _divergence_of_logits(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Sum over rows of KL(softmax(a) | softmax(b)) = sum p (a - b) - (lse(a) - lse(b)).

    With log-sum-exp (lse) that takes two exponentials an element, and no logarithm.
    """
    largest_a, largest_b = a.max(-1, keepdims=True), b.max(-1, keepdims=True)
    p = np.exp(a - largest_a)
    sum_a = p.sum(-1, keepdims=True)
    sum_b = np.exp(b - largest_b).sum(-1, keepdims=True)
    p /= sum_a
    with np.errstate(invalid="ignore"):
        difference = a - b
    difference[p == 0.0] = 0.0  # also a class that -inf excludes from both
    change = largest_a - largest_b + np.log(sum_a / sum_b)
    return float((p * difference).sum() - change.sum())
