"""Which passes run, in which order, on which nodes, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from odp.passes import registry
from odp.rewriter.calibration import Recorder
from odp.rewriter.manager import Result, rewrite_graph, schedule
from odp.rewriter.onnx_graph import OnnxGraph
from odp.rewriter.pass_options import parse_passes
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import (
    COMPOSITE,
    ELEMENTARY,
    EXPANSION,
    Pass,
    Refusal,
    Replacement,
)
from odp.rewriter.site import SiteBuilder

Graphs = Callable[..., OnnxGraph]

NORM = (
    "(float[2,4] x) => (float[2,4] y{more}) {{ m = ReduceMean<axes=[1]>(x) c = Sub(x, m) "
    "q = Mul(c, c) v = ReduceMean<axes=[1]>(q) e = Add(v, eps) [root] s = Sqrt(e) "
    "[norm] y = Div(c, s) {tail} }}"
)
EPSILON = {"eps": np.float32(1e-5)}


def rewritten(
    graph: OnnxGraph, passes: str, explain: tuple[str, ...] = ()
) -> tuple[Result, Recorder]:
    requests = schedule(parse_passes(passes, registry()), registry())
    recorder = Recorder()
    return rewrite_graph(graph, requests, recorder, frozenset(explain)), recorder


def sites(recorder: Recorder) -> list[str]:
    return list(recorder.sites)


def run(graph: OnnxGraph, x: Any) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(ir.to_proto(graph.model).SerializeToString())
    return session.run(None, {"x": x})


def test_expansions_come_before_composites_and_these_before_elementary_passes() -> None:
    requests = schedule(
        parse_passes("exp,sqrt,recurrent,softmax,layer_norm", registry()), registry()
    )
    stages = [request.rewrite.stage for request in requests]
    assert stages == sorted(stages)
    assert {EXPANSION, COMPOSITE, ELEMENTARY} == set(stages)


def test_within_a_stage_the_order_is_the_one_typed() -> None:
    for text in ("gelu,softmax,layer_norm", "layer_norm,gelu,softmax"):
        requests = schedule(parse_passes(text, registry()), registry())
        assert [request.typed for request in requests] == text.split(",")
        assert all(request.functions is None for request in requests)


def test_an_elementary_pass_implies_the_composites_that_contain_it() -> None:
    requests = schedule(parse_passes("exp{error=1e-7}", registry()), registry())
    implied = {r.rewrite.name: r for r in requests if r.rewrite.name != "exp"}
    assert {"softmax", "log_softmax", "elu"} <= set(implied)
    assert "layer_norm" not in implied
    for request in implied.values():
        assert request.typed == "exp"
        assert request.functions == {"exp"}
        assert request.rewrite.error == 1e-7


def test_a_composite_that_is_typed_is_not_implied() -> None:
    requests = schedule(parse_passes("exp,softmax{error=1e-3}", registry()), registry())
    (softmax,) = (request for request in requests if request.rewrite.name == "softmax")
    assert (softmax.typed, softmax.functions, softmax.rewrite.error) == ("softmax", None, 1e-3)


def test_two_passes_that_imply_one_composite_share_it() -> None:
    requests = schedule(parse_passes("exp,log", registry()), registry())
    shared = [r for r in requests if r.rewrite.name == "log_softmax" and r.functions]
    both = [request for request in shared if request.functions == {"exp", "log"}]
    assert len(both) == 1
    assert not [r for r in shared if r is not both[0] and set(r.patterns) & set(both[0].patterns)]


def test_a_composite_matches_before_its_parts(graph_of: Graphs) -> None:
    graph = graph_of(NORM.format(more="", tail=""), initializers=EPSILON)
    result, recorder = rewritten(graph, "sqrt,rsqrt,layer_norm")
    assert sites(recorder) == ["layer_norm/layer_norm_spelled_out/1/rsqrt"]
    assert result.outcomes["layer_norm"].patterns == {"layer_norm_spelled_out": 1}
    assert not result.outcomes["sqrt"].patterns and not result.outcomes["rsqrt"].patterns


def test_a_pass_asked_for_by_its_function_replaces_nothing_else(graph_of: Graphs) -> None:
    graph = graph_of("(float[2,4] x) => (float[2,4] y) { y = LogSoftmax(x) }")
    _, recorder = rewritten(graph, "exp")
    assert [site.function for site in recorder.sites.values()] == ["exp"]
    # The log stays, as an operation of its own.
    assert graph.operations()["Log"] == 1


def test_the_interior_of_a_composite_that_is_read_elsewhere_is_still_replaced(
    graph_of: Graphs,
) -> None:
    graph = graph_of(
        NORM.format(more=", float[2,1] other", tail="other = Neg(s)"), initializers=EPSILON
    )
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    before = run(graph, x)
    _, recorder = rewritten(graph, "sqrt,layer_norm")
    assert sites(recorder) == ["layer_norm/layer_norm_spelled_out/1/rsqrt", "sqrt/sqrt/1/sqrt"]
    for one, two in zip(before, run(graph, x), strict=True):
        assert np.allclose(one, two, rtol=1e-6)


def test_parts_that_only_the_composite_read_are_gone(graph_of: Graphs) -> None:
    graph = graph_of(NORM.format(more="", tail=""), initializers=EPSILON)
    rewritten(graph, "layer_norm")
    assert all(node.emitted for node in graph.nodes() if node.native_type in ("Sqrt", "Reciprocal"))


def test_what_a_pass_emits_is_not_matched_by_a_later_one(graph_of: Graphs) -> None:
    graph = graph_of("(float[2,4] x) => (float[2,4] y) { y = Softmax(x) }")
    _, recorder = rewritten(graph, "softmax,exp")
    assert sites(recorder) == ["softmax/softmax/1/exp"]


def test_site_numbers_are_the_same_on_every_clone(graph_of: Graphs) -> None:
    text = (
        "(float[2,4] x) => (float[2,4] y) { a = Softmax(x) b = Exp(a) c = Softmax(b) y = Exp(c) }"
    )
    graph = graph_of(text)
    first, second = (rewritten(graph.clone(), "softmax,exp")[1] for _ in range(2))
    assert sites(first) == sites(second)
    assert [site.node for site in first.sites.values()] == [s.node for s in second.sites.values()]
    assert len(sites(first)) == 4


def test_a_refusal_leaves_the_node_and_is_reported(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { [wave] y = Sin(x) }")
    result, recorder = rewritten(graph, "rope")
    assert not recorder.sites
    assert graph.operations() == {"Sin": 1}
    (skipped,) = result.skipped["rope"]
    assert (skipped.node, skipped.op) == ("wave", "Sin")
    assert "angle" in skipped.reason


def test_a_refusal_that_another_pass_makes_good_is_not_reported(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { [wave] y = Sin(x) }")
    result, recorder = rewritten(graph, "rope,sin")
    assert sites(recorder) == ["sin/sin/1/sin"]
    assert result.skipped["rope"] == []


@dataclass(frozen=True, kw_only=True)
class Hesitant(Pass):
    """Emits something, and then refuses."""

    name: ClassVar[str] = "hesitant"
    stage: ClassVar[int] = ELEMENTARY
    patterns: ClassVar[Mapping[str, Pattern]] = {"exp": op("exp", variable("x"))}
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {"exp": ("exp",)}
    anchors: ClassVar[frozenset[str]] = frozenset({"exp"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        build.mul(build.add(match["x"], 1.25), 2.5)
        raise Refusal("on second thoughts")


def test_what_was_emitted_before_a_refusal_is_removed(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { y = Exp(x) }")
    result = rewrite_graph(graph, schedule([Hesitant()], registry()), Recorder())
    assert graph.operations() == {"Exp": 1}
    assert not graph.model.graph.initializers
    assert [skipped.reason for skipped in result.skipped["hesitant"]] == ["on second thoughts"]


def test_constant_operands_are_folded_not_approximated(graph_of: Graphs) -> None:
    graph = graph_of(
        "(float[2] x) => (float[2] y) { e = Exp(c) y = Mul(x, e) }",
        initializers={"c": np.array([1.0, 2.0], np.float32)},
    )
    result, recorder = rewritten(graph, "exp")
    assert not recorder.sites and result.outcomes["exp"].folded == 1
    assert np.allclose(run(graph, np.ones(2, np.float32))[0], np.exp([1.0, 2.0]))


def test_nodes_nobody_reads_are_removed(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { e = Exp(x) y = Gelu(e) }", opset=20)
    rewritten(graph, "gelu")
    assert "Gelu" not in graph.operations()


@pytest.mark.parametrize(
    ("text", "stored", "passes", "node", "reason"),
    [
        (
            "(float[2] x) => (float[2] y) { [cube] y = Pow(x, p) }",
            {"p": np.float32(3)},
            "rsqrt",
            "cube",
            "'p' is not the constant",
        ),
        (
            "(float[2] x, float[2] z) => (float[2] y) { [gate] s = Sigmoid(z) y = Mul(x, s) }",
            {},
            "silu",
            "gate",
            "is not the same value as",
        ),
        (
            "(float[2] x) => (float[2] y) { [lone] y = Sigmoid(x) }",
            {},
            "silu",
            "lone",
            "no pattern of this pass has a root that leads here",
        ),
        (
            "(float[2] x) => (float[2] y) { [lone] e = Erf(x) y = Add(e, one) }",
            {"one": np.float32(1)},
            "gelu",
            "lone",
            "no pattern of this pass has a root that leads here",
        ),
    ],
)
def test_near_misses_name_the_node_and_the_reason(
    text: str, stored: dict[str, Any], passes: str, node: str, reason: str, graph_of: Graphs
) -> None:
    graph = graph_of(text, initializers=stored)
    result, _ = rewritten(graph, passes, explain=(passes,))
    (miss,) = result.near_misses[passes]
    assert miss.node == node
    assert reason in miss.reason


def test_matched_nodes_are_no_near_misses(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { s = Sigmoid(x) y = Mul(x, s) }")
    result, recorder = rewritten(graph, "silu", explain=("silu",))
    assert len(recorder.sites) == 1
    assert result.near_misses["silu"] == []


def test_near_misses_are_collected_for_explained_passes_only(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { y = Sigmoid(x) }")
    assert rewritten(graph, "silu")[0].near_misses == {}


def test_what_an_elementary_pass_replaces_is_no_near_miss_of_it(graph_of: Graphs) -> None:
    graph = graph_of("(float[2] x) => (float[2] y) { y = Exp(x) }")
    result, recorder = rewritten(graph, "exp", explain=("exp",))
    assert len(recorder.sites) == 1
    assert result.near_misses["exp"] == []


@dataclass(frozen=True, kw_only=True)
class Nested(Pass):
    """Two patterns, one inside the other."""

    name: ClassVar[str] = "nested"
    stage: ClassVar[int] = ELEMENTARY
    patterns: ClassVar[Mapping[str, Pattern]] = {
        "outer": op("neg", op("exp", variable("x"))),
        "outer_again": op("neg", variable("x")),
        "inner": op("exp", variable("x")),
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(patterns, ("exp",))
    anchors: ClassVar[frozenset[str]] = frozenset({"exp"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        return build.function("sin", match["x"])


@pytest.mark.parametrize(
    ("tail", "matched"),
    [
        ("y = Neg(e)", {"outer": 1}),
        ("y = Neg(e) other = Abs(e)", {"outer": 1, "inner": 1}),
        ("e2 = Exp(e) y = Neg(e2)", {"outer": 1, "inner": 1}),
    ],
)
def test_a_pass_matches_no_part_of_its_own_match_that_nothing_else_reads(
    tail: str, matched: dict[str, int], graph_of: Graphs
) -> None:
    outputs = "float[2] y, float[2] other" if "other" in tail else "float[2] y"
    graph = graph_of(f"(float[2] x) => ({outputs}) {{ e = Exp(x) {tail} }}")
    result = rewrite_graph(graph, schedule([Nested()], registry()), Recorder())
    assert result.outcomes["nested"].patterns == matched


def test_one_over_a_root_is_one_site(graph_of: Graphs) -> None:
    # It fits the inverse root and the division by a root, two patterns of one pass.
    graph = graph_of(
        "(float[2] x) => (float[2] y) { r = Sqrt(x) y = Div(one, r) }",
        initializers={"one": np.float32(1)},
    )
    assert sites(rewritten(graph, "rsqrt")[1]) == ["rsqrt/rsqrt/1/rsqrt"]


def test_bodies_are_rewritten(graph_of: Graphs) -> None:
    graph = graph_of(
        "(bool c, float[2] x) => (float[2] y) { [if] y = If (c) < "
        "then_branch = t () => (float[2] a) { a = Exp(x) }, "
        "else_branch = e () => (float[2] b) { b = Tanh(x) } > }"
    )
    _, recorder = rewritten(graph, "all")
    paths = {site.function: site.graph_path for site in recorder.sites.values()}
    assert paths == {"exp": "if/then_branch", "tanh": "if/else_branch"}


def test_native_rewriting_does_not_change_a_number(graph_of: Graphs) -> None:
    """Every composite taken apart and put together again with the native functions."""
    graph = graph_of(
        "(float[2,4] x) => (float[2,4] y) { a = Softmax(x) b = Gelu(a) c = LogSoftmax(b) "
        "d = Elu(c) f = Softplus(d) y = Mish(f) }",
        opset=20,
    )
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    before = run(graph, x)[0]
    _, recorder = rewritten(graph, "all")
    assert len(recorder.sites) >= 6
    assert np.allclose(before, run(graph, x)[0], rtol=1e-5, atol=1e-6)
