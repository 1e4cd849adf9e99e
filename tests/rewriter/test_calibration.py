"""What sites are seen to receive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from odp.passes import registry
from odp.rewriter.calibration import MASK_THRESHOLD, Observation
from odp.rewriter.manager import schedule
from odp.rewriter.onnx_calibration import calibrate
from odp.rewriter.onnx_graph import OnnxGraph
from odp.rewriter.pass_options import parse_passes

Graphs = Callable[..., OnnxGraph]


def observe(
    graph: OnnxGraph, passes: str, *feeds: dict[str, Any]
) -> tuple[dict[str, Observation], list[dict[str, Any]]]:
    requests = schedule(parse_passes(passes, registry()), registry())
    _, observations, outputs = calibrate(graph, requests, feeds)
    return observations, outputs


def test_the_range_over_all_samples(graph_of: Graphs) -> None:
    graph = graph_of("(float[3] x) => (float[3] y) { t = Mul(x, x) y = Exp(t) }")
    feeds = [{"x": np.array(row, np.float32)} for row in ([1, 2, 0.5], [-3, 0.25, 1])]
    observations, outputs = observe(graph, "exp", *feeds)
    (seen,) = observations.values()
    assert (seen.low, seen.high, seen.elements, seen.masked) == (0.0625, 9.0, 3, False)
    assert sorted(seen.samples) == [0.0625, 0.25, 1.0, 1.0, 4.0, 9.0]
    for feed, output in zip(feeds, outputs, strict=True):
        assert np.allclose(output["y"], np.exp(feed["x"] ** 2), rtol=1e-6)


def test_the_model_is_left_as_it_was(graph_of: Graphs) -> None:
    graph = graph_of("(float[3] x) => (float[3] y) { y = Softmax(x) }")
    before = graph.operations()
    observe(graph, "softmax", {"x": np.zeros(3, np.float32)})
    assert graph.operations() == before
    assert [output.name for output in graph.model.graph.outputs] == ["y"]


def test_progress_is_told_after_each_sample(graph_of: Graphs) -> None:
    graph = graph_of("(float[3] x) => (float[3] y) { y = Exp(x) }")
    told: list[int] = []
    feeds = [{"x": np.zeros(3, np.float32)}] * 4
    requests = schedule(parse_passes("exp", registry()), registry())
    calibrate(graph, requests, feeds, lambda: told.append(1))
    assert len(told) == 4


@pytest.mark.parametrize("mask", [-1e4, -3.4028235e38, -np.inf])
def test_masks_do_not_widen_a_softmax(mask: float, graph_of: Graphs) -> None:
    graph = graph_of(
        "(float[2,4] x, float[1,4] m) => (float[2,4] y) { s = Add(x, m) y = Softmax(s) }"
    )
    x = np.array([[0.0, 1.0, 2.0, 9.0], [3.0, 1.0, 0.0, 9.0]], np.float32)
    m = np.array([[0.0, 0.0, 0.0, mask]], np.float32)
    (seen,) = observe(graph, "softmax", {"x": x, "m": m})[0].values()
    assert seen.masked
    assert (seen.low, seen.high) == (-3.0, 0.0)


def test_masks_are_data_where_nothing_is_masked(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { y = Tanh(x) }")
    (seen,) = observe(graph, "tanh", {"x": np.array([-1e4, 1.0], np.float32)})[0].values()
    assert not seen.masked and seen.low == -1e4


def test_infinities_and_nan_are_left_out(graph_of: Graphs) -> None:
    graph = graph_of("(float[3] x) => (float[3] y) { l = Log(x) y = Tanh(l) }")
    (seen,) = observe(graph, "tanh", {"x": np.array([0.0, -1.0, 1.0], np.float32)})[0].values()
    assert (seen.low, seen.high) == (0.0, 0.0)


def test_a_site_that_sees_nothing_finite_is_empty() -> None:
    seen = Observation()
    assert seen.is_empty and seen.histogram() is None
    seen.add(np.array([np.nan, np.inf]), maskable=False)
    assert seen.is_empty and seen.elements == 2
    seen.add(np.array([MASK_THRESHOLD - 1, -np.inf]), maskable=True)
    assert seen.is_empty and seen.masked


@pytest.mark.parametrize("size", [100, 70_000, 300_000])
def test_samples_keep_the_extremes(size: int) -> None:
    random = np.random.default_rng(size)
    seen = Observation()
    everything = []
    for _ in range(4):
        values = random.normal(size=size)
        everything.append(values)
        seen.add(values.reshape(10, -1), maskable=False)
    joined = np.concatenate(everything)
    assert (seen.low, seen.high) == (joined.min(), joined.max())
    assert {seen.low, seen.high} <= set(seen.samples)
    assert seen.samples.size <= 1 << 17
    assert seen.samples.size >= min(joined.size, 1 << 14)
    assert np.isin(seen.samples, joined).all()
    # An even sample: the mean is that of all values up to its own standard error.
    assert abs(seen.samples.mean() - joined.mean()) < 5 / np.sqrt(seen.samples.size)


def test_late_samples_are_not_crowded_out() -> None:
    seen = Observation()
    for shift in range(8):
        seen.add(np.full(60_000, float(shift)), maskable=False)
    for shift in range(8):
        assert (seen.samples == shift).any()


def test_the_histogram_counts_the_samples() -> None:
    seen = Observation()
    seen.add(np.linspace(-1.0, 1.0, 1000), maskable=False)
    histogram = seen.histogram(bins=10)
    assert histogram is not None
    assert sum(histogram.counts) == 1000 and len(histogram.edges) == 11
    assert (histogram.edges[0], histogram.edges[-1]) == (-1.0, 1.0)


def test_a_single_value_has_a_histogram() -> None:
    seen = Observation()
    seen.add(np.full(5, 2.0), maskable=False)
    histogram = seen.histogram()
    assert histogram is not None and sum(histogram.counts) == 5


IF = """(bool c, float[2] x) => (float[2] y) {
    y = If (c) <
        then_branch = t () => (float[2] a) { a = Exp(x) },
        else_branch = e () => (float[2] b) { d = Add(x, x) b = Tanh(d) } >
}"""


def test_branches_of_if_are_watched_when_they_are_taken(graph_of: Graphs) -> None:
    x = np.array([1.0, 3.0], np.float32)
    observations, outputs = observe(graph_of(IF), "exp,tanh", {"c": np.array(False), "x": x})
    exp, tanh = observations["exp/exp/1/exp"], observations["tanh/tanh/1/tanh"]
    assert exp.is_empty
    assert (tanh.low, tanh.high) == (2.0, 6.0)
    assert np.allclose(outputs[0]["y"], np.tanh(2 * x), rtol=1e-6)


def test_bodies_of_loops_are_watched_at_every_iteration(graph_of: Graphs) -> None:
    graph = graph_of(
        """(int64 n, float[2] x) => (float[2] y) {
        y = Loop (n, , x) < body = b (int64 i, bool go, float[2] v) => (bool on, float[2] w) {
            on = Identity(go) d = Add(v, v) t = Tanh(d) w = Sub(d, t) } >
    }"""
    )
    x = np.array([1.0, -1.0], np.float32)
    observations, outputs = observe(graph, "tanh", {"n": np.array(3), "x": x})
    (seen,) = observations.values()
    state, inputs = x.astype(np.float64), []
    for _ in range(3):
        inputs += [2 * state]
        state = 2 * state - np.tanh(2 * state)
    assert np.allclose([seen.low, seen.high], [np.min(inputs), np.max(inputs)], rtol=1e-5)
    assert seen.samples.size == 6
    assert np.allclose(outputs[0]["y"], state, rtol=1e-5)


def test_results_that_a_loop_collects_are_stacked(graph_of: Graphs) -> None:
    graph = graph_of(
        """(int64 n, float[2,3] x) => (float[k,2,3] y) {
        last, all = Loop (n, , x) < body = b (int64 i, bool go, float[2,3] v)
            => (bool on, float[2,3] w, float[2,3] seen) {
            on = Identity(go) w = Add(v, v) t = Tanh(v) seen = Identity(t) } >
        y = Exp(all)
    }"""
    )
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    observations, outputs = observe(graph, "tanh,exp", {"n": np.array(3), "x": x})
    expected = np.exp(np.stack([np.tanh(x), np.tanh(2 * x), np.tanh(4 * x)]))
    assert outputs[0]["y"].shape == (3, 2, 3)
    assert np.allclose(outputs[0]["y"], expected, rtol=1e-5)
    assert observations["exp/exp/1/exp"].elements == 18
    assert observations["tanh/tanh/1/tanh"].high == 4.0


def test_inputs_of_a_body_are_watched(graph_of: Graphs) -> None:
    graph = graph_of(
        """(float[3,2] x) => (float[3,2] y) {
        y = Scan <num_scan_inputs = 1, body = b (float[2] row) => (float[2] out)
            { out = Sigmoid(row) }> (x)
    }"""
    )
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    observations, outputs = observe(graph, "sigmoid", {"x": x})
    (seen,) = observations.values()
    assert (seen.low, seen.high, seen.samples.size) == (0.0, 5.0, 6)
    assert np.allclose(outputs[0]["y"], 1 / (1 + np.exp(-x)), rtol=1e-6)


def test_functions_of_the_model_are_watched_where_they_are_called(onnx_text: Any) -> None:
    import onnx

    import odp

    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[2] x) => (float[2] y) { a = local.Gate(x) b = Add(a, x) y = local.Gate(b) }
        <opset_import: ["" : 17], domain: "local"> Gate (v) => (w) { w = Sigmoid(v) }"""
    )
    x = np.array([[1.0, -2.0]], np.float32)
    report = odp.rewrite(model, "sigmoid", calibration={"x": x}).report
    assert len(report.sites) == 2
    inner = 1 / (1 + np.exp(-x)) + x
    assert report.sites[0].observed == (-2.0, 1.0)
    assert report.sites[1].observed == pytest.approx((inner.min(), inner.max()), rel=1e-6)
