"""Distances between outputs, against the definitions written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from odp.rewriter.measurement import compare, compare_output

Array = NDArray[Any]


@pytest.fixture
def pair() -> tuple[list[Array], list[Array]]:
    random = np.random.default_rng(0)
    original = [random.normal(size=(3, 4, 5)).astype(np.float32) for _ in range(2)]
    return original, [a + 1e-3 * random.normal(size=a.shape).astype(np.float32) for a in original]


def test_the_four_distances(pair: tuple[list[Array], list[Array]]) -> None:
    found = compare_output("y", *pair)
    a, b = (np.concatenate([x.ravel() for x in side]).astype(np.float64) for side in pair)
    assert found.max_abs == pytest.approx(np.abs(a - b).max(), rel=1e-12)
    assert found.rmse == pytest.approx(np.sqrt(np.mean((a - b) ** 2)), rel=1e-12)
    assert found.relative_l2 == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-12)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert found.cosine == pytest.approx(cosine, rel=1e-12)
    assert found.kl is None and found.top1 is None


def test_many_elements_are_compared_in_blocks_without_a_seam() -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=(40, 5000))
    b = a + 1e-4 * random.normal(size=a.shape)
    found = compare_output("logits", [a], [b])
    assert found.max_abs == np.abs(a - b).max()
    assert found.rmse == pytest.approx(np.sqrt(np.mean((a - b) ** 2)), rel=1e-9)
    p, q = log_softmax(a, -1), log_softmax(b, -1)
    assert found.kl == pytest.approx((np.exp(p) * (p - q)).sum(-1).mean(), rel=1e-5)
    assert found.top1 == (a.argmax(-1) == b.argmax(-1)).mean()


@pytest.mark.parametrize("name", ["logits", "last_logits", "scores", "Score_0"])
def test_names_that_say_logits(name: str, pair: tuple[list[Array], list[Array]]) -> None:
    found = compare_output(name, *pair)
    p, q = (log_softmax(np.concatenate(side).astype(np.float64), -1) for side in pair)
    assert found.kl == pytest.approx((np.exp(p) * (p - q)).sum(-1).mean(), rel=1e-6)
    assert found.top1 == (p.argmax(-1) == q.argmax(-1)).mean()


def test_distributions_are_recognised(pair: tuple[list[Array], list[Array]]) -> None:
    original, rewritten = ([softmax(x, -1) for x in side] for side in pair)
    found = compare_output("y", original, rewritten)
    p, q = (np.concatenate(side).astype(np.float64) for side in (original, rewritten))
    assert found.kl == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-4, abs=1e-9)
    assert found.top1 is not None and 0.9 <= found.top1 <= 1.0


def test_a_distribution_with_zeros_and_tiny_negatives() -> None:
    original = [np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)]
    rewritten = [np.array([[1.0, -1e-9], [0.5, 0.5]], np.float32)]
    found = compare_output("y", original, rewritten)
    assert found.kl == pytest.approx(0.0, abs=1e-6) and found.top1 == 1.0


@pytest.mark.parametrize("shape", [(), (1,), (3, 1)])
def test_what_is_too_narrow_is_no_distribution(shape: tuple[int, ...]) -> None:
    found = compare_output("logits", [np.ones(shape)], [np.ones(shape)])
    assert (found.max_abs, found.relative_l2, found.cosine) == (0.0, 0.0, 1.0)
    assert found.kl is None and found.top1 is None


def test_changed_winners_are_counted() -> None:
    original = [np.array([[1.0, 2.0], [2.0, 1.0], [5.0, 0.0], [0.0, 5.0]])]
    rewritten = [np.array([[2.0, 1.0], [2.0, 1.0], [5.0, 0.0], [0.0, 5.0]])]
    assert compare_output("logits", original, rewritten).top1 == 0.75


def test_what_was_not_finite_before_is_left_out() -> None:
    original = [np.array([1.0, np.inf, np.nan, -np.inf, 2.0])]
    found = compare_output("y", original, [np.array([1.5, 0.0, 7.0, 0.0, 2.0])])
    assert found.max_abs == 0.5
    assert found.relative_l2 == pytest.approx(0.5 / math.sqrt(5.0))
    nothing = compare_output("y", [np.array([np.nan])], [np.array([1.0])])
    assert (nothing.max_abs, nothing.cosine) == (0.0, 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_any_more_is_an_infinite_error(bad: float) -> None:
    found = compare_output("y", [np.ones((2, 2))], [np.array([[1.0, 1.0], [bad, 1.0]])])
    assert found.max_abs == found.rmse == found.relative_l2 == math.inf
    assert found.cosine == 0.0


def test_zeros() -> None:
    zeros = [np.zeros(3)]
    assert compare_output("y", zeros, zeros).relative_l2 == 0.0
    assert compare_output("y", zeros, [np.ones(3)]).relative_l2 == math.inf
    assert compare_output("y", zeros, [np.ones(3)]).cosine == 0.0


def test_an_empty_output() -> None:
    empty = [np.zeros((0, 4), np.float32)]
    assert compare_output("logits", empty, empty).max_abs == 0.0


def test_logits_with_masked_entries() -> None:
    """-inf in the original, as causal language models write it, is no error and no NaN."""
    original = [np.array([[1.0, -np.inf], [0.0, 2.0]])]
    rewritten = [np.array([[1.0, -1e9], [0.0, 2.0]])]
    found = compare_output("logits", original, rewritten)
    assert found.max_abs == 0.0
    assert found.kl is None or found.kl == pytest.approx(0.0, abs=1e-12)
    assert found.top1 is None or found.top1 == 1.0


def test_all_outputs_over_all_runs_and_only_floating_ones() -> None:
    runs = [{"a": np.ones(2, np.float32), "n": np.ones(2, np.int64)} for _ in range(3)]
    moved = [{"a": np.full(2, 1.0 + i, np.float32), "n": np.zeros(2, np.int64)} for i in range(3)]
    found = compare(runs, moved)
    assert set(found) == {"a"}
    assert found["a"].max_abs == 2.0
    assert found["a"].rmse == pytest.approx(math.sqrt((0 + 1 + 4) / 3))
    assert compare([], []) == {}


def test_half_precision_is_compared_in_double() -> None:
    original = [np.full(4, 60000.0, np.float16)]
    rewritten = [np.full(4, -60000.0, np.float16)]
    assert compare_output("y", original, rewritten).max_abs == 120000.0
