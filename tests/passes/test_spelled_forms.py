"""Every pass takes the fused operator and every spelling that exporters write."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import odp
from odp.passes import registry
from odp.rewriter.calibration import Recorder
from odp.rewriter.manager import rewrite_graph, schedule
from odp.rewriter.pass_options import parse_passes

from . import cases_activations, cases_elementary, cases_norms, cases_softmax
from .cases import Array, Case, prepared, run
from .error_bounds import ROUNDING, output_bound, softmax_bound

CASES = [
    *cases_norms.CASES,
    *cases_activations.CASES,
    *cases_softmax.CASES,
    *cases_elementary.CASES,
]
# Tested in files of their own.
ELSEWHERE = {"recurrent", "attention"}

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def samples_of(arrays: Mapping[str, Array]) -> list[dict[str, Array]]:
    count = len(next(iter(arrays.values())))
    return [{name: array[index] for name, array in arrays.items()} for index in range(count)]


@functools.cache
def rewritten(index: int, guard: str = "clip") -> odp.RewriteResult:
    case = CASES[index]
    return odp.rewrite(
        case.model(), case.passes or case.rewrite, calibration=case.data(), guard=guard
    )


def result_of(case: Case) -> odp.RewriteResult:
    return rewritten(CASES.index(case))


def test_every_pass_has_a_case() -> None:
    assert set(registry()) - ELSEWHERE == {case.rewrite for case in CASES}


def test_names_of_cases_are_unique() -> None:
    assert [name for name, count in Counter(case.id for case in CASES).items() if count > 1] == []


@every_case
def test_rewriting_with_native_functions_changes_nothing(case: Case) -> None:
    model = case.model()
    graph = prepared(model)
    typed = parse_passes(case.passes or case.rewrite, registry())
    result = rewrite_graph(graph, schedule(typed, registry()), Recorder())
    assert result.outcomes[case.rewrite].patterns == case.patterns
    for feed in samples_of(case.data()):
        (before, *_), (after, *_) = run(model, feed), run(ir.to_proto(graph.model), feed)
        assert before.dtype == after.dtype and before.shape == after.shape
        # Sums are formed in another order: a few roundings of the largest entry.
        largest = float(np.abs(before).max())
        np.testing.assert_allclose(after, before, rtol=16 * ROUNDING, atol=8 * ROUNDING * largest)


@every_case
def test_nothing_transcendental_is_left_at_opset_12(case: Case) -> None:
    result = result_of(case)
    (record,) = [r for r in result.report.passes if r.name == case.rewrite]
    assert record.patterns == case.patterns
    assert not record.skipped
    assert result.report.model.transcendental_after == {}
    assert result.report.model.transcendental_before or case.rewrite == "reciprocal"
    assert result.report.model.opset_after == 12
    assert result.model.graph.opset_imports == {"": 12}
    assert not result.report.warnings
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)


@every_case
def test_error_is_within_what_the_report_declares(case: Case) -> None:
    report, model = result_of(case).report, case.model()
    rewritten_model = ir.to_proto(result_of(case).model)
    for feed in samples_of(case.data())[:2]:
        (before, *_), (after, *_) = run(model, feed), run(rewritten_model, feed)
        bound: Array
        if case.rewrite in ("softmax", "log_softmax"):
            count = int(np.prod(feed["x"].shape))
            bound = np.full(before.shape, softmax_bound(report, count))
        else:
            bound = output_bound(model, case.passes or case.rewrite, report, feed)
        rounding = 16 * ROUNDING * np.abs(before) + 8 * ROUNDING * np.abs(before).max()
        excess = np.abs(after.astype(np.float64) - before) - bound - rounding
        assert excess.max() <= 0.0, f"{excess.max():.2g} over the bound of {bound.max():.2g}"


@every_case
def test_inputs_beyond_the_domain_stay_sane(case: Case) -> None:
    """Guarded by clips, a tenfold input gives finite numbers of the size that the domain allows."""
    (inside, *_) = run(ir.to_proto(result_of(case).model), samples_of(case.data())[0])
    curves = [record.curve_exact for record in result_of(case).report.approximants]
    largest = max([1.0, *(float(np.abs(curve).max()) for curve in curves)])
    for feed in samples_of(case.data(scale=10.0)):
        (beyond, *_) = run(ir.to_proto(result_of(case).model), feed)
        assert np.isfinite(beyond).all()
        # Gates and units grow with their input; nothing grows faster than its square.
        assert np.abs(beyond).max() <= 100.0 * max(np.abs(inside).max(), largest)
