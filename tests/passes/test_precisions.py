"""Models in float16, float64 and with casts between precisions."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import odp
from odp.rewriter.onnx_graph import numpy_name

from .cases import Array, build_model, run
from .error_bounds import site_error

SHAPE = (2, 6, 16)
HALF = {"w": np.linspace(0.5, 1.5, 16).astype(np.float16)}
HALF_ROUNDING = 2.0**-10

# Everything but the operator under test keeps the type that the model has.
BODIES = {
    "softmax": "y = Softmax(x)",
    "log_softmax": "y = LogSoftmax(x)",
    "layer_norm": "y = LayerNormalization(x, w)",
    "gelu": "a = Div(x, root_two) f = Erf(a) g = Add(f, one) h = Mul(x, half) y = Mul(h, g)",
    "silu": "s = Sigmoid(x) y = Mul(x, s)",
    "sigmoid": "y = Sigmoid(x)",
    "tanh": "y = Tanh(x)",
    "exp": "y = Exp(x)",
    "softplus": "y = Softplus(x)",
    "elu": "y = Elu(x)",
    "sqrt": "s = Mul(x, x) t = Add(s, one) y = Sqrt(t)",
    "pow": "s = Mul(x, x) t = Add(s, one) p = Constant<value_float = 0.75>() y = Pow(t, p)",
}
# Half precision throughout, statistics in single precision: what torch writes for .half() models.
MIXED = {
    "layer_norm": "q = Cast<to = 1>(x) m = ReduceMean<axes = [-1]>(q) c = Sub(q, m) s = Mul(c, c)"
    " v = ReduceMean<axes = [-1]>(s) r = Add(v, tiny) d = Sqrt(r) n = Div(c, d)"
    " h = Cast<to = 10>(n) y = Mul(h, w)",
    "rms_norm": "q = Cast<to = 1>(x) s = Mul(q, q) v = ReduceMean<axes = [-1]>(s)"
    " r = Add(v, tiny) d = Sqrt(r) i = Reciprocal(d) n = Mul(q, i) h = Cast<to = 10>(n)"
    " y = Mul(w, h)",
    # T5 multiplies in half precision by a root that it computed in single precision.
    "rms_norm_of_t5": "q = Cast<to = 1>(x) s = Mul(q, q) v = ReduceMean<axes = [-1]>(s)"
    " r = Add(v, tiny) d = Sqrt(r) i = Reciprocal(d) k = Cast<to = 10>(i) n = Mul(x, k)"
    " y = Mul(w, n)",
    "silu_in_single": "q = Cast<to = 1>(x) s = Sigmoid(q) h = Cast<to = 10>(s) y = Mul(x, h)",
    "softmax_in_single": "q = Cast<to = 1>(x) s = Softmax(q) y = Cast<to = 10>(s)",
}


def samples(dtype: type, scale: float = 1.0) -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {"x": (scale * random.uniform(-3, 3, (4, *SHAPE))).astype(dtype)}


def half_model(body: str, dtype: str = "float16") -> onnx.ModelProto:
    constants: dict[str, Array] = {}
    if "w)" in body or "(w" in body:
        constants["w"] = HALF["w"].astype(np.float64) if dtype == "double" else HALF["w"]
    if "tiny" in body:
        constants["tiny"] = np.array(1e-6, np.float32)
    return build_model(body, inputs={"x": SHAPE}, constants=constants, dtype=dtype)


def declared(result: odp.RewriteResult) -> float:
    known = {record.key: record for record in result.report.approximants}
    errors = [site_error(site, known[site.approximant]) for site in result.report.sites]
    return max(max(error.absolute, error.relative) for error in errors)


def types_inside(result: odp.RewriteResult) -> set[str]:
    """Element types of what the expressions compute, their casts apart."""
    return {
        numpy_name(node.outputs[0].dtype)
        for node in result.model.graph
        if "odp.function" in node.metadata_props and node.op_type not in ("Cast", "Clip")
        if node.outputs[0].dtype is not None
    }


def assert_half(model: onnx.ModelProto, data: dict[str, Array], passes: str = "all") -> None:
    result = odp.rewrite(model, passes, calibration=data)
    assert result.report.model.transcendental_after == {}
    assert types_inside(result) == {"float32"}
    rewritten = ir.to_proto(result.model)
    onnx.checker.check_model(rewritten, full_check=True)
    feed = {"x": data["x"][0]}
    before, after = run(model, feed)[0], run(rewritten, feed)[0]
    assert before.dtype == after.dtype == np.float16
    wide = before.astype(np.float64)
    # Inputs are below 4 and sums have 16 terms, so no error grows by more than 16.
    bound = 16 * declared(result) * np.maximum(1.0, np.abs(wide)) + 4 * HALF_ROUNDING * np.abs(wide)
    np.testing.assert_array_less(np.abs(after - wide), bound + 2 * HALF_ROUNDING)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_half_precision(body: str) -> None:
    assert_half(half_model(body), samples(np.float16))


@pytest.mark.parametrize("body", MIXED.values(), ids=MIXED.keys())
def test_casts_between_half_and_single(body: str) -> None:
    assert_half(half_model(body), samples(np.float16))


@pytest.mark.parametrize("body", MIXED.values(), ids=MIXED.keys())
def test_casts_do_not_hide_the_composite(body: str) -> None:
    result = odp.rewrite(half_model(body), "all", calibration=samples(np.float16))
    (site,) = result.report.sites
    assert site.pattern.partition("_spelled_out")[0] in (
        "layer_norm",
        "rms_norm",
        "silu",
        "softmax",
    )


def test_half_precision_norm_of_large_inputs() -> None:
    """300 squared is beyond float16; ONNX computes the statistics in float32."""
    model, data = half_model(BODIES["layer_norm"]), samples(np.float16, scale=100.0)
    assert_half(model, data, "layer_norm")


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_double_precision(body: str) -> None:
    if "Constant" in body:
        body = body.replace("p = Constant<value_float = 0.75>()", "h = Sqrt(half) p = Mul(h, h)")
    model = half_model(body, "double")
    data = samples(np.float64)
    try:
        run(model, {"x": data["x"][0]})
    except Exception as error:
        assert "NOT_IMPLEMENTED" in str(error)
        with pytest.raises(odp.OdpError, match=r"[Cc]ould not"):
            odp.rewrite(model, "all", calibration=data)
        return
    result = odp.rewrite(model, "all", calibration=data)
    assert result.report.model.transcendental_after == {}
    assert types_inside(result) <= {"float64"}
    feed = {"x": data["x"][0]}
    before, after = run(model, feed)[0], run(ir.to_proto(result.model), feed)[0]
    assert before.dtype == after.dtype == np.float64
    bound = 16 * declared(result) * np.maximum(1.0, np.abs(before))
    np.testing.assert_array_less(np.abs(after - before), bound)


def test_bfloat16_is_one_line() -> None:
    """ONNX Runtime has no sigmoid in bfloat16 on the CPU, so there is nothing to calibrate with."""
    body = "q = Cast<to = 16>(x) s = Sigmoid(q) y = Cast<to = 1>(s)"
    model = build_model(body, inputs={"x": SHAPE})
    with pytest.raises(odp.OdpError) as error:
        odp.rewrite(model, "sigmoid", calibration=samples(np.float32))
    assert "Sigmoid" in str(error.value) and "\n" not in str(error.value)
