"""Sites inside the bodies of If, Loop and Scan, and inside functions of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

import odp

from .cases import Array, build_model, run
from .error_bounds import site_error

HEADER = '<ir_version: 8, opset_import: ["": 16, "com.microsoft": 1]>'

IF = f"""{HEADER} branches (float[4, 8] x, bool c) => (float[4, 8] y) {{
    y = If(c) <
        then_branch = yes () => (float[4, 8] t) {{ s = Sigmoid(x) t = Mul(x, s) }},
        else_branch = no () => (float[4, 8] e) {{ e = Exp(x) }}
    >
}}"""

LOOP = f"""{HEADER} loop (float[4, 8] x) => (float[4, 8] y)
<int64 trips = {{3}}, bool yes = {{1}}> {{
    y = Loop(trips, yes, x) <
        body = step (int64 i, bool c, float[4, 8] h) => (bool k, float[4, 8] n) {{
            k = Identity(c)
            t = Tanh(h)
            n = Add(t, x)
        }}
    >
}}"""

SCAN = f"""{HEADER} scan (float[5, 8] x) => (float[8] y, float[5, 8] z)
<float[8] start = {{0, 0, 0, 0, 0, 0, 0, 0}}> {{
    y, z = Scan <num_scan_inputs = 1, body = step (float[8] h, float[8] r)
        => (float[8] n, float[8] o) {{
            a = Add(h, r)
            n = Tanh(a)
            o = Sigmoid(n)
        }}> (start, x)
}}"""

NESTED = f"""{HEADER} nested (float[4, 8] x, bool c) => (float[4, 8] y)
<int64 trips = {{2}}, bool yes = {{1}}> {{
    y = Loop(trips, yes, x) <
        body = step (int64 i, bool k, float[4, 8] h) => (bool o, float[4, 8] n) {{
            o = Identity(k)
            n = If(c) <
                then_branch = inner () => (float[4, 8] t) {{ t = Softmax(h) }},
                else_branch = other () => (float[4, 8] e) {{ e = Sigmoid(h) }}
            >
        }}
    >
}}"""

# The branch itself hands on what the outer graph computes: its result is no node of its own.
CAPTURE = f"""{HEADER} capture (float[4, 8] x, bool c) => (float[4, 8] y) {{
    s = Sigmoid(x)
    y = If(c) <
        then_branch = yes () => (float[4, 8] t) {{ t = Mul(x, s) }},
        else_branch = no () => (float[4, 8] e) {{ e = Identity(s) }}
    >
}}"""


def parsed(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    return onnx.shape_inference.infer_shapes(model)


def feeds_of(model: onnx.ModelProto, samples: int = 4) -> dict[str, Array]:
    random = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for value in model.graph.input:
        shape = [extent.dim_value for extent in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.elem_type == onnx.TensorProto.BOOL:
            arrays[value.name] = np.arange(samples) % 2 == 0
        else:
            arrays[value.name] = random.uniform(-2, 2, (samples, *shape)).astype(np.float32)
    return arrays


def operators(graph: onnx.GraphProto) -> set[str]:
    found = set()
    for node in graph.node:
        found.add(node.op_type)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= operators(attribute.g)
    return found


def largest_error(result: odp.RewriteResult) -> float:
    known = {record.key: record for record in result.report.approximants}
    return max(
        error.absolute or error.relative * 8.0  # exp(2) < 8
        for site in result.report.sites
        if (error := site_error(site, known[site.approximant]))
    )


@pytest.mark.parametrize(
    ("text", "functions", "paths", "gain"),
    [
        # Results have at most eight times the error of a site: x*gate, three steps of tanh.
        (IF, ["exp", "sigmoid"], ["If_0/else_branch", "If_0/then_branch"], 8),
        (LOOP, ["tanh"], ["Loop_0/body"], 8),
        (SCAN, ["sigmoid", "tanh"], ["Scan_0/body"] * 2, 8),
        (NESTED, ["exp", "sigmoid"], ["Loop_0/body/", "Loop_0/body/"], 24),
        (CAPTURE, ["sigmoid", "sigmoid"], ["", "If_1/then_branch"], 8),
    ],
    ids=["if", "loop", "scan", "nested", "capture"],
)
def test_sites_in_bodies(text: str, functions: list[str], paths: list[str], gain: float) -> None:
    model = parsed(text)
    arrays = feeds_of(model)
    result = odp.rewrite(model, "all", calibration=arrays)
    assert result.report.model.transcendental_after == {}
    sites = sorted(result.report.sites, key=lambda site: (site.function, site.graph))
    assert [site.function for site in sites] == functions
    assert all(site.graph.startswith(path) for site, path in zip(sites, paths, strict=True))
    assert all(site.observed is not None for site in sites)
    rewritten = ir.to_proto(result.model)
    onnx.checker.check_model(rewritten, full_check=True)
    assert not operators(rewritten.graph) & {"Sigmoid", "Exp", "Tanh", "Softmax"}
    for index in range(4):
        feed = {name: array[index, ...] for name, array in arrays.items()}
        for before, after in zip(run(model, feed), run(rewritten, feed), strict=True):
            bound = gain * largest_error(result)
            np.testing.assert_allclose(after, before, rtol=1e-6, atol=bound)


def test_calibration_inside_bodies_sees_what_the_body_computes() -> None:
    """The second step of the loop sees tanh(x) + x, not x."""
    model = parsed(LOOP)
    arrays = {"x": np.full((1, 4, 8), 2.0, np.float32)}
    result = odp.rewrite(model, "tanh", calibration=arrays)
    (site,) = result.report.sites
    assert site.observed is not None
    assert site.observed[0] == 2.0
    assert site.observed[1] == pytest.approx(2.0 + np.tanh(2.0 + np.tanh(2.0)), rel=1e-6)


def test_branch_that_calibration_never_takes_is_left_and_reported() -> None:
    model = parsed(IF)
    arrays = feeds_of(model)
    arrays["c"][:] = True
    result = odp.rewrite(model, "all", calibration=arrays)
    assert result.report.model.transcendental_after == {"Exp": 1}
    (skipped,) = [s for record in result.report.passes for s in record.skipped]
    assert "never reached" in skipped.reason and "exp{domain=" in skipped.reason
    given = odp.rewrite(model, "silu,exp{domain=-2:2}", calibration=arrays)
    assert given.report.model.transcendental_after == {}


def test_bodies_beside_contrib_operators() -> None:
    """The evaluator that looks inside does not know contrib operators: the rest is rewritten."""
    text = IF.replace("y = If(c)", "g = com.microsoft.FusedMatMul(x, w) y = If(c)").replace(
        "=> (float[4, 8] y) {",
        "=> (float[4, 8] y, float[4, 4] g) <float[8, 4] w = {" + ", ".join(["0.1"] * 32) + "}> {",
        1,
    )
    model = parsed(text.replace("y = If(c)", "k = Sigmoid(g) y = If(c)").replace("4] g)", "4] k)"))
    result = odp.rewrite(model, "all", calibration=feeds_of(model), opset=None)
    assert [site.node for site in result.report.sites] == ["Sigmoid_1"]
    assert result.report.model.transcendental_after == {"Exp": 1, "Sigmoid": 1}
    reasons = [s.reason for record in result.report.passes for s in record.skipped]
    assert len(reasons) == 2
    assert all("FusedMatMul" in reason and "domain=lo:hi" in reason for reason in reasons)


FUNCTIONS = """
<domain: "local", opset_import: ["": 17]>
gate (a) => (b) { s = Sigmoid(a) b = Mul(a, s) }
<domain: "local", opset_import: ["": 17, "local": 1]>
twice (a) => (b) { h = local.gate(a) b = local.gate(h) }
"""


@pytest.mark.parametrize(
    ("body", "sites"),
    [
        ("y = local.gate(x)", 1),
        ("h = local.gate(x) y = local.gate(h)", 2),
        ("y = local.twice(x)", 2),
        ("h = local.twice(x) k = local.gate(x) y = Add(h, k)", 3),
    ],
    ids=["once", "called_twice", "function_in_function", "mixed"],
)
def test_functions_of_the_model(body: str, sites: int) -> None:
    model = build_model(body, inputs={"x": (4, 8)}, functions=FUNCTIONS)
    arrays = feeds_of(model)
    result = odp.rewrite(model, "all", calibration=arrays)
    assert result.report.model.transcendental_after == {}
    assert not result.model.functions
    assert [site.pattern for site in result.report.sites] == ["silu"] * sites
    assert len({site.id for site in result.report.sites}) == sites
    feed: dict[str, Any] = {"x": arrays["x"][0]}
    bound = 8 * largest_error(result)
    np.testing.assert_allclose(
        run(ir.to_proto(result.model), feed)[0], run(model, feed)[0], rtol=1e-6, atol=bound
    )
