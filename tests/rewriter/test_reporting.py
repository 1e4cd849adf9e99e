"""The numbers of a report belong together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest

import odp
from odp.rewriter.report import Report

TEXT = """(float[2,8] x, float[2,8] m) => (float[2,8] y) {
    s = Add(x, m) [soft] p = Softmax<axis=-1>(s) [gate] g = Sigmoid(x) q = Mul(g, p)
    [late] e = Exp(q) [wave] w = Sin(e) t = Tanh(w) y = Mul(t, p) }"""


@pytest.fixture(scope="module")
def model(onnx_text: Callable[..., onnx.ModelProto]) -> onnx.ModelProto:
    return onnx_text(TEXT)


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    random = np.random.default_rng(0)
    mask = np.zeros((5, 2, 8), np.float32)
    mask[..., 6:] = -1e4
    return {"x": random.normal(size=(5, 2, 8)).astype(np.float32), "m": mask}


@pytest.fixture(scope="module")
def report(model: onnx.ModelProto, data: dict[str, Any]) -> Report:
    return odp.rewrite(
        model, "softmax,sigmoid{error=1e-4},exp,tanh,sin,rope", calibration=data
    ).report


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def test_json_is_the_whole_report(report: Report) -> None:
    loaded = json.loads(report.to_json())
    assert loaded == json.loads(json.dumps(report.to_dict()))
    assert all(math.isfinite(number) for number in numbers(loaded))
    assert set(loaded) == set(report.to_dict())


def test_json_has_no_number_that_json_lacks(report: Report) -> None:
    broken = Report(report.version, report.model, {"margin": math.inf}, warnings=["a\nb\u2028"])
    assert json.loads(broken.to_json())["calibration"] == {"margin": None}


def test_the_model_before_and_after(report: Report, model: onnx.ModelProto) -> None:
    record = report.model
    assert (record.opset_before, record.opset_after) == (17, 12)
    assert record.nodes_before == len(model.graph.node) == sum(record.ops_before.values())
    assert record.nodes_after == sum(record.ops_after.values())
    assert record.transcendental_before == dict.fromkeys(
        ("Exp", "Sigmoid", "Sin", "Softmax", "Tanh"), 1
    )
    assert record.transcendental_after == {}
    assert record.inputs == {"x": [2, 8], "m": [2, 8]}
    assert report.calibration == {"source": "calibration", "samples": 5, "margin": 0.25}
    assert report.version == odp.__version__


def test_passes_stand_in_the_order_typed_with_their_options(report: Report) -> None:
    names = [record.name for record in report.passes]
    assert names == ["softmax", "sigmoid", "exp", "tanh", "sin", "rope"]
    options = {record.name: record.options for record in report.passes}
    assert options["sigmoid"] == {"error": 1e-4} and options["exp"] == {}


def test_sites_and_passes_count_the_same(report: Report) -> None:
    for record in report.passes:
        mine = [site for site in report.sites if site.pass_name == record.name]
        assert len(mine) == record.sites
        assert sum(record.patterns.values()) >= len({site.pattern for site in mine})
    assert len({site.id for site in report.sites}) == len(report.sites) == 5


def test_every_site_names_an_approximant_that_is_there_and_is_its_own(report: Report) -> None:
    known = {record.key: record for record in report.approximants}
    assert len(known) == len(report.approximants)
    assert {site.approximant for site in report.sites} == set(known)
    for site in report.sites:
        approximant = known[site.approximant]
        assert site.function == approximant.function
        assert tuple(site.domain) == tuple(approximant.domain)
        low, high = approximant.safe_interval
        assert (low is None or low <= site.domain[0]) and (high is None or high >= site.domain[1])
        assert site.observed is not None and site.elements == 16
        if site.guard == "none" or site.pattern != "softmax":
            assert site.domain[0] <= site.observed[0] and site.observed[1] <= site.domain[1]


def test_observed_errors_are_within_what_is_declared(report: Report) -> None:
    known = {record.key: record for record in report.approximants}
    for site in report.sites:
        declared = known[site.approximant]
        assert site.observed_absolute_error is not None
        # In float32, where rounding comes on top: that much was measured on the grid, too.
        assert site.observed_absolute_error <= declared.absolute_error + declared.float32_error


def test_the_error_that_was_asked_for_is_kept(report: Report) -> None:
    by_pass = {site.pass_name: site.approximant for site in report.sites}
    known = {record.key: record for record in report.approximants}
    for name, key in by_pass.items():
        error = 1e-4 if name == "sigmoid" else 1e-5
        assert known[key].absolute_error <= error or (known[key].relative_error or 1.0) <= error


def test_masks_are_not_in_the_histogram(report: Report) -> None:
    (softmax,) = (site for site in report.sites if site.pass_name == "softmax")
    assert softmax.observed is not None and softmax.observed[0] > -100.0
    assert softmax.histogram is not None
    edges = softmax.histogram.edges
    assert edges[0] >= softmax.observed[0] - 1e-9 and edges == sorted(edges)
    assert len(edges) == len(softmax.histogram.counts) + 1
    # Six of the eight columns are data.
    assert sum(softmax.histogram.counts) == 5 * 2 * 6


def test_curves_show_the_function_and_the_approximation(report: Report) -> None:
    from odp.approximations import get_function

    for record in report.approximants:
        x, exact = np.array(record.curve_x), np.array(record.curve_exact)
        assert (x[0], x[-1]) == pytest.approx(tuple(record.domain), rel=1e-12)
        assert np.allclose(exact, get_function(record.function).numpy(x), rtol=1e-12)
        error = np.abs(np.array(record.curve_approximate) - exact).max()
        assert error <= record.absolute_error * (1 + 1e-3) + 1e-12


def test_metrics_of_the_last_pass_are_those_of_the_result(report: Report) -> None:
    active = [record for record in report.passes if record.sites]
    assert active[-1].cumulative == report.total
    assert active[0].isolated == active[0].cumulative
    assert set(report.total) == {"y"}
    assert 0.0 < report.total["y"].relative_l2 < 1e-4
    idle = next(record for record in report.passes if record.name == "rope")
    assert not idle.isolated and not idle.cumulative


def test_the_total_is_the_distance_of_the_two_models(
    model: onnx.ModelProto, data: dict[str, Any], report: Report
) -> None:
    import onnx_ir as ir
    import onnxruntime

    result = odp.rewrite(model, "softmax,sigmoid{error=1e-4},exp,tanh,sin,rope", calibration=data)
    sessions = [
        onnxruntime.InferenceSession(proto.SerializeToString())
        for proto in (model, ir.to_proto(result.model))
    ]
    a, b = (
        np.concatenate(
            [s.run(None, {k: v[i] for k, v in data.items()})[0].ravel() for i in range(5)]
        ).astype(np.float64)
        for s in sessions
    )
    metrics = report.total["y"]
    assert metrics.max_abs == pytest.approx(np.abs(a - b).max(), rel=1e-6)
    assert metrics.relative_l2 == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-3)


def test_without_measurement_there_are_no_metrics(
    model: onnx.ModelProto, data: dict[str, Any]
) -> None:
    report = odp.rewrite(model, "all", calibration=data, measure=False).report
    assert report.total == {} and len(report.sites) == 5
    assert all(not record.isolated and not record.cumulative for record in report.passes)


def test_all_lists_only_passes_that_found_something(
    model: onnx.ModelProto, data: dict[str, Any]
) -> None:
    report = odp.rewrite(model, "all,erf", calibration=data, measure=False).report
    assert {record.name for record in report.passes} == {
        *("erf", "exp", "sigmoid", "sin", "softmax", "tanh")
    }


def test_a_site_that_could_not_be_met_is_listed_with_the_reason(
    onnx_text: Callable[..., onnx.ModelProto],
) -> None:
    model = onnx_text("(float[4] x) => (float[4] y) { [steep] y = Tan(x) }")
    data = {"x": np.array([[-1.5, 0.0, 1.0, 1.5]], np.float32)}
    report = odp.rewrite(model, "tan{error=1e-9,margin=0}", calibration=data).report
    assert report.sites == [] and report.model.transcendental_after == {"Tan": 1}
    (record,) = report.passes
    assert record.sites == 0
    (skipped,) = record.skipped
    assert skipped.node == "steep" and "no expression reaches" in skipped.reason


def test_folded_nodes_are_counted_and_noted(onnx_text: Callable[..., onnx.ModelProto]) -> None:
    model = onnx_text(
        "(float[3] x) => (float[3] y) { a = Mul(positions, frequency) c = Cos(a) y = Mul(x, c) }",
        initializers={
            "positions": np.arange(3, dtype=np.float32),
            "frequency": np.float32(0.5),
        },
    )
    report = odp.rewrite(model, "rope", calibration={"x": np.ones((1, 3), np.float32)}).report
    (record,) = report.passes
    assert (record.sites, record.folded) == (0, 1)
    assert "exact constant tables" in record.notes[0]
    assert report.total["y"].max_abs <= 2.0**-24


def test_generated_inputs_are_a_loud_warning(model: onnx.ModelProto) -> None:
    report = odp.rewrite(model, "tanh", samples=2).report
    assert report.calibration["source"] == "generated" and report.calibration["samples"] == 2
    assert "RANDOM" in report.warnings[0]
