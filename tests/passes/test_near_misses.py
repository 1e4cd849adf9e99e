"""What looks like a pass's own but is not: it stays, and `--explain` says what did not fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

import odp
from odp.rewriter.report import Skipped

from .cases import Array, Shape, build_model, run

ONE: Mapping[str, Shape] = {"x": (2, 6, 16)}
TWO: Mapping[str, Shape] = {"x": (2, 6, 16), "z": (2, 6, 16)}
_MEAN = "m = ReduceMean<axes = [-1]>(x) c = Sub(x, m)"


def uniform(inputs: Mapping[str, Shape], low: float = 0.1, high: float = 3.0) -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {
        name: random.uniform(low, high, (4, *shape)).astype(np.float32)
        for name, shape in inputs.items()
    }


def rewrite(
    body: str, passes: str, inputs: Mapping[str, Shape], **options: int
) -> tuple[odp.RewriteResult, dict[str, int]]:
    """The result with explanations for all typed passes, and the pattern counts of each."""
    model = build_model(body, inputs=inputs, **options)  # type: ignore[arg-type]
    names = [name for name in passes.split(",") if name != "all"]
    result = odp.rewrite(model, passes, calibration=uniform(inputs), explain=names)
    patterns = {k: v for record in result.report.passes for k, v in record.patterns.items()}
    return result, patterns


def miss_of(result: odp.RewriteResult, name: str, op: str) -> Skipped:
    """The near miss of pass `name` at the operator `op`."""
    (found,) = [miss for miss in result.report.near_misses[name] if miss.op == op]
    return found


@pytest.mark.parametrize(
    ("body", "name", "op", "reason"),
    [
        # GELU with another power inside its erf gate, or another constant.
        (
            "a = Div(x, two) f = Erf(a) g = Add(f, one) h = Mul(x, half) y = Mul(h, g)",
            "gelu",
            "Erf",
            "is not the constant 1.41421",
        ),
        (
            "a = Div(x, root_two) f = Erf(a) g = Add(f, two) h = Mul(x, half) y = Mul(h, g)",
            "gelu",
            "Erf",
            "is not the constant 1",
        ),
        (
            "a = Div(x, root_two) f = Erf(a) g = Add(f, one) h = Mul(z, half) y = Mul(h, g)",
            "gelu",
            "Erf",
            "is not the same value as",
        ),
        ("s = Sigmoid(z) y = Mul(x, s)", "silu", "Sigmoid", "is not the same value as"),
        (
            "l = Softplus(z) t = Tanh(l) y = Mul(x, t)",
            "mish",
            "Tanh",
            "is not the same value as",
        ),
        (
            "e = Exp(x) o = Add(e, two) l = Log(o) y = Mul(l, z)",
            "softplus",
            "Log",
            "is not the constant 1",
        ),
        # x - max(z) is no softmax: nothing says that it is never positive.
        (
            "m = ReduceMax<axes = [-1]>(z) s = Sub(x, m) y = Exp(s)",
            "softmax",
            "Exp",
            "is not the same value as",
        ),
        # The variance of another tensor.
        (
            "m = ReduceMean<axes = [-1]>(x) c = Sub(x, m) n = ReduceMean<axes = [-1]>(z)"
            " k = Sub(z, n) s = Mul(k, k) v = ReduceMean<axes = [-1]>(s) r = Add(v, eps)"
            " d = Sqrt(r) y = Div(c, d)",
            "layer_norm",
            "Sqrt",
            "is not the same value as",
        ),
        # The mean of another tensor.
        (
            "m = ReduceMean<axes = [-1]>(z) c = Sub(x, m) s = Mul(c, c)"
            " v = ReduceMean<axes = [-1]>(s) r = Add(v, eps) d = Sqrt(r) y = Div(c, d)",
            "layer_norm",
            "Sqrt",
            "is not the same value as",
        ),
        # A sum where a mean is expected.
        (
            f"{_MEAN} s = Mul(c, c) v = ReduceSum<axes = [-1]>(s) r = Add(v, eps)"
            " d = Sqrt(r) q = Div(c, d) y = Mul(q, z)",
            "layer_norm",
            "Sqrt",
            "expected reduce_mean, found reduce_sum",
        ),
        # The fourth power in the place of the square.
        (
            "p = Mul(x, x) s = Mul(p, p) v = ReduceMean<axes = [-1]>(s) r = Add(v, eps)"
            " d = Sqrt(r) q = Div(x, d) y = Mul(q, z)",
            "rms_norm",
            "Sqrt",
            "is not the same value as",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 12 else "",
)
def test_near_miss_stays_and_says_why(body: str, name: str, op: str, reason: str) -> None:
    inputs = {k: v for k, v in TWO.items() if f"({k}" in body or f", {k})" in body}
    result, patterns = rewrite(body, name, inputs, opset=12)
    assert patterns == {}
    assert result.report.model.transcendental_after == result.report.model.transcendental_before
    assert reason in miss_of(result, name, op).reason


def test_passes_of_the_parts_take_what_the_composite_leaves() -> None:
    body = "a = Div(x, two) f = Erf(a) g = Add(f, one) h = Mul(x, half) y = Mul(h, g)"
    result, patterns = rewrite(body, "gelu,erf", ONE)
    assert patterns == {"erf": 1}
    assert result.report.model.transcendental_after == {}
    assert result.report.near_misses["erf"] == []


def test_explaining_a_node_that_no_pattern_leads_to() -> None:
    result, _ = rewrite("s = Sqrt(x) y = Add(s, one)", "layer_norm", ONE)
    assert miss_of(result, "layer_norm", "Sqrt").reason == (
        "no pattern of this pass has a root that leads here"
    )


@pytest.mark.parametrize("exponent", ["two", "three", "minus_one"])
def test_integer_powers_are_left(exponent: str) -> None:
    result, patterns = rewrite(f"y = Pow(x, {exponent})", "all", ONE)
    assert patterns == {}
    assert result.report.model.ops_after.get("Pow") == 1
    result, _ = rewrite(f"y = Pow(x, {exponent})", "pow", ONE)
    assert "is not a fractional exponent" in miss_of(result, "pow", "Pow").reason


@pytest.mark.parametrize("op", ["HardSigmoid", "HardSwish", "Relu", "LeakyRelu", "ThresholdedRelu"])
def test_piecewise_linear_activations_are_left(op: str) -> None:
    result, patterns = rewrite(f"y = {op}(x)", "all", ONE)
    assert patterns == {}
    assert result.report.sites == []


BITNET = (
    "a = Abs(x) m = ReduceMax<axes = [-1]>(a) k = Clip(m, eps) i = Reciprocal(k)"
    " s = Mul(i, levels) q = Mul(x, s) r = Round(q) g = Clip(r, lowest, levels) y = Div(g, s)"
)
LEVELS = {"levels": np.array(127, np.float32), "lowest": np.array(-128, np.float32)}


@pytest.mark.parametrize("passes", ["all", "rsqrt", "rms_norm,layer_norm,group_norm", "sqrt,pow"])
def test_activation_quantiser_is_not_a_norm(passes: str) -> None:
    """BitNet scales activations by 127 / max|x|; Round would turn any error into a whole step."""
    model = build_model(BITNET, inputs=ONE, constants=LEVELS)
    data = uniform(ONE, -3.0, 3.0)
    result = odp.rewrite(model, passes, calibration=data)
    assert result.report.sites == []
    assert result.report.model.ops_after["Reciprocal"] == 1
    feed = {"x": data["x"][0]}
    np.testing.assert_array_equal(run(ir.to_proto(result.model), feed)[0], run(model, feed)[0])


def test_activation_quantiser_beside_a_norm() -> None:
    """The norm in front of the quantiser goes, the quantiser stays (Llama with BitLinear)."""
    norm = (
        "n2 = Mul(u, u) n3 = ReduceMean<axes = [-1]>(n2) n4 = Add(n3, eps) n5 = Sqrt(n4)"
        " n6 = Reciprocal(n5) x = Mul(u, n6) "
    )
    model = build_model(norm + BITNET, inputs={"u": (2, 6, 16)}, constants=LEVELS)
    result = odp.rewrite(model, "all", calibration={"u": uniform(ONE)["x"]})
    patterns = {k: v for record in result.report.passes for k, v in record.patterns.items()}
    assert patterns == {"rms_norm_spelled_out": 1}
    assert result.report.model.ops_after["Reciprocal"] == 1
    assert result.report.model.transcendental_after == {}


def test_reciprocal_pass_must_be_asked_for() -> None:
    result, patterns = rewrite("y = Reciprocal(x)", "all", ONE)
    assert patterns == {}
    assert "reciprocal" not in {record.name for record in result.report.passes}


def test_division_by_a_constant_is_left() -> None:
    result, patterns = rewrite("y = Div(x, three)", "reciprocal", ONE)
    assert patterns == {}
    assert "is not a variable" in miss_of(result, "reciprocal", "Div").reason


def test_nothing_to_do_changes_nothing() -> None:
    result, patterns = rewrite("h = Relu(x) y = Mul(h, three)", "all", ONE)
    assert patterns == {} and result.report.sites == []
    feed = {"x": uniform(ONE)["x"][0]}
    model = build_model("h = Relu(x) y = Mul(h, three)", inputs=ONE)
    np.testing.assert_array_equal(run(ir.to_proto(result.model), feed)[0], run(model, feed)[0])
