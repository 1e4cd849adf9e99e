"""Metrics of outputs against their definitions, written down the long way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from odp.rewriter.measurement import compare, compare_output

_GENERATOR = np.random.default_rng(0)
# More rows than fit into one block, and more than one run.
_ORIGINAL = [_GENERATOR.standard_normal((3, 700, 50)).astype(np.float32) for _ in range(2)]
_REWRITTEN = [
    array + 1e-2 * _GENERATOR.standard_normal(array.shape).astype(np.float32) for array in _ORIGINAL
]


def test_distances() -> None:
    found = compare_output("hidden", _ORIGINAL, _REWRITTEN)
    a = np.concatenate([array.ravel() for array in _ORIGINAL]).astype(np.float64)
    b = np.concatenate([array.ravel() for array in _REWRITTEN]).astype(np.float64)
    assert found.max_abs == np.abs(b - a).max()
    assert found.rmse == pytest.approx(np.sqrt(np.mean((b - a) ** 2)), rel=1e-12)
    assert found.relative_l2 == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-12)
    assert found.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
    assert found.kl is None and found.top1 is None


def test_divergence_of_logits() -> None:
    found = compare_output("logits", _ORIGINAL, _REWRITTEN)
    p = log_softmax(np.stack(_ORIGINAL).astype(np.float64), axis=-1)
    q = log_softmax(np.stack(_REWRITTEN).astype(np.float64), axis=-1)
    assert found.kl == pytest.approx((np.exp(p) * (p - q)).sum(-1).mean(), rel=1e-9)
    assert found.top1 == (p.argmax(-1) == q.argmax(-1)).mean()
    assert found.top1 < 1.0


def test_divergence_of_distributions() -> None:
    p, q = (np.exp(log_softmax(arrays[0], axis=-1)) for arrays in (_ORIGINAL, _REWRITTEN))
    found = compare_output("attention", [p], [q])
    wide_p, wide_q = p.astype(np.float64), q.astype(np.float64)
    expected = (wide_p * np.log(wide_p / wide_q)).sum(-1).mean()
    assert found.kl == pytest.approx(expected, rel=1e-9)


def test_classes_excluded_by_minus_infinity_do_not_count() -> None:
    row = np.array([[1.0, 2.0, -np.inf]])
    same = compare_output("logits", [row], [row])
    assert (same.kl, same.max_abs) == (0.0, 0.0)
    assert same.cosine == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_an_element_that_is_lost_makes_every_error_infinite(broken: float) -> None:
    found = compare_output("logits", [np.ones((2, 3))], [np.array([[1, 1, 1], [1, broken, 1]])])
    assert (found.max_abs, found.rmse, found.relative_l2) == (np.inf,) * 3


def test_empty_scalar_and_zero_outputs() -> None:
    outputs = {"empty": np.ones((0, 4)), "scalar": np.float32(3.0), "zero": np.zeros(5)}
    found = compare([outputs], [outputs])
    assert all(
        (m.max_abs, m.relative_l2, m.cosine) == (0.0, 0.0, pytest.approx(1.0))
        for m in found.values()
    )
