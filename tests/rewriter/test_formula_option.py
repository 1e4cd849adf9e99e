"""The option `formula`: an expression of the user's own at the sites of one function."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import odp
from odp.approximations import ApproximationError, Interval, approximate
from odp.passes import registry
from odp.rewriter.pass_options import parse_passes
from odp.rewriter.report_html import render_html
from odp.rewriter.selection import check_options

Text = Callable[..., onnx.ModelProto]

POWER = "(1+x/8)**8"
NEWTON = (
    "y=2/(1+x); y=y*(1.5-0.5*x*y*y); y=y*(1.5-0.5*x*y*y); y=y*(1.5-0.5*x*y*y);"
    " y=y*(1.5-0.5*x*y*y); y"
)
TANH = "x*(27+x*x)/(27+9*x*x)"
LINE = "0.5+x*0.2"

SOFTMAX = "(float[2,8] x) => (float[2,8] y) { y = Softmax<axis=-1>(x) }"
LOG_SOFTMAX = "(float[2,8] x) => (float[2,8] y) { [last] y = LogSoftmax<axis=-1>(x) }"
EXP = "(float[2,8] x) => (float[2,8] y) { [only] y = Exp(x) }"
SILU = "(float[2,8] x) => (float[2,8] y) { s = Sigmoid(x) y = Mul(s, x) }"
GELU = '(float[2,8] x) => (float[2,8] y) { t = Tanh(x) [gelu] y = Gelu<approximate="tanh">(t) }'
ERF_GELU = "(float[2,8] x) => (float[2,8] y) { y = com.microsoft.Gelu(x) }"
NORM = """(float[2,8] x) => (float[2,8] y) {
    s = Mul(x, x) one = Constant<value_float=1.0>() a = Add(s, one) q = Sqrt(a) y = Div(x, q) }"""
POWERS = """(float[2,8] x) => (float[2,8] y) {
    a = Abs(x) p = Constant<value_float=0.75>() q = Constant<value_float=0.25>()
    b = Pow(a, p) [second] c = Pow(a, q) y = Add(b, c) }"""
LSTM = """(float[3,1,2] x) => (float[3,1,1,4] y) { [cell] y = LSTM<hidden_size=4>(x, w, r) }"""
RNN = LSTM.replace("LSTM", "RNN")
INPUTS = {"x": np.random.default_rng(2).normal(size=(4, 2, 8)).astype(np.float32)}


def weights(gates: int) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(3)
    shapes = {"w": (1, 4 * gates, 2), "r": (1, 4 * gates, 4)}
    return {name: random.normal(size=s).astype(np.float32) for name, s in shapes.items()}


@pytest.mark.parametrize(
    ("model", "passes", "function", "formula"),
    [
        (SOFTMAX, f"softmax{{formula={POWER},domain=-8:0}}", "exp", POWER),
        (SOFTMAX, f"exp{{domain=-8:0,formula={POWER}}}", "exp", POWER),
        (LOG_SOFTMAX, f"exp{{formula={POWER},domain=-8:0}}", "exp", POWER),
        (EXP, f"exp{{formula={POWER}}}", "exp", POWER),
        (SILU, f"silu{{formula={LINE}}}", "sigmoid", LINE),
        (SILU, f"sigmoid{{formula={LINE}}}", "sigmoid", LINE),
        (ERF_GELU, f"gelu{{formula={LINE}}}", "normal_cdf", LINE),
        (NORM, f"rsqrt{{formula={NEWTON}}}", "rsqrt", NEWTON),
    ],
)
def test_the_sites_have_the_formula(
    model: str, passes: str, function: str, formula: str, onnx_text: Text
) -> None:
    domains = {"com.microsoft": 1} if model == ERF_GELU else None
    proto = onnx_text(model, domains=domains)
    report = odp.rewrite(proto, passes, calibration=INPUTS).report
    (record,) = report.approximants
    assert (record.function, record.scheme) == (function, "formula")
    expected = approximate(
        function, Interval(*record.domain), formula=formula, relative=record.relative
    )
    assert record.absolute_error == expected.absolute_error
    assert record.multiplications == expected.counts.multiplications
    assert record.error_kind == "certified"
    # What was seen at the site is within what is declared; between the points that were looked at
    # for float32 the error may be a little larger.
    (site,) = report.sites
    assert site.observed_absolute_error is not None
    declared = max(record.absolute_error, record.float32_error)
    assert site.observed_absolute_error <= 1.001 * declared
    assert list(report.model.transcendental_after) == (["Log"] if model == LOG_SOFTMAX else [])


def test_the_report_shows_the_formula(onnx_text: Text) -> None:
    report = odp.rewrite(onnx_text(NORM), f"rsqrt{{formula={NEWTON}}}", calibration=INPUTS).report
    (record,) = json.loads(report.to_json())["passes"]
    assert record["options"] == {"formula": NEWTON}
    page = render_html(report)
    assert f"formula={NEWTON}" in page
    assert "rsqrt by the formula y=2/(1+x)" in page


def test_a_formula_is_taken_whatever_its_error(onnx_text: Text) -> None:
    result = odp.rewrite(onnx_text(EXP), "exp{formula=1+x}", calibration=INPUTS, error=1e-6)
    assert result.report.approximants[0].absolute_error > 1.0
    assert not result.report.warnings


@pytest.mark.parametrize(
    ("passes", "reason"),
    [
        ("exp{formula=1+x,error=1e-3}", "more than relative error 0.001"),
        ("exp{formula=1/(1+x)}", "divides by zero near x = -1;"),
        ("exp{formula=(1+x)**80}", "not finite in float32"),
    ],
)
def test_a_formula_that_cannot_be_used_leaves_the_site_native(
    passes: str, reason: str, onnx_text: Text
) -> None:
    report = odp.rewrite(onnx_text(EXP), passes, calibration=INPUTS).report
    assert report.sites == [] and report.model.transcendental_after == {"Exp": 1}
    ((skipped,),) = [record.skipped for record in report.passes]
    assert reason in skipped.reason and skipped.node == "only"


def test_a_pole_in_the_margin_alone_is_no_pole(onnx_text: Text) -> None:
    # The inputs end at 1, the margin reaches beyond the pole at 1.25.
    inputs = {"x": np.linspace(-1.0, 1.0, 16, dtype=np.float32).reshape(1, 2, 8)}
    passes = "exp{formula=1/(1-0.8*x)}"
    report = odp.rewrite(onnx_text(EXP), passes, calibration=inputs).report
    assert report.approximants[0].domain == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("passes", "words"),
    [
        ("exp{formula=exp(x)}", "pass 'exp': formula 'exp(x)': exp is a function"),
        ("exp{formula=(1+x}", "pass 'exp': formula '(1+x': '(' was never closed"),
        ("exp{formula=1+t}", "unknown name 't'"),
        ("exp{formula=x,scheme=pade}", "goes without scheme;"),
        ("exp{formula=x,degree=3}", "goes without degree;"),
        ("exp{formula=x,scheme=newton,steps=3}", "goes without scheme, steps;"),
        ("exp{formula=x,weighted=true}", "give an error, too"),
    ],
)
def test_options_that_cannot_be_used(passes: str, words: str, onnx_text: Text) -> None:
    with pytest.raises(ApproximationError) as caught:
        check_options(parse_passes(passes, registry())[0])
    assert words in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ApproximationError) as caught:
        odp.rewrite(onnx_text(EXP), passes)
    assert words in str(caught.value)


def test_a_weighted_formula_has_an_error(onnx_text: Text) -> None:
    passes = "exp{formula=1+x,weighted=true,error=0.9}"
    check_options(parse_passes(passes, registry())[0])
    inputs = {"x": np.append(np.zeros(15, np.float32), np.float32(-1)).reshape(1, 2, 8)}
    report = odp.rewrite(onnx_text(EXP), passes, calibration=inputs).report
    assert report.approximants[0].scheme == "formula"


@pytest.mark.parametrize(
    ("model", "passes", "words"),
    [
        (GELU, f"tanh{{formula={TANH}}}", "gelu at 'gelu' needs sigmoid; name the pass gelu"),
        (LSTM, f"recurrent{{formula={LINE}}}", "cannot stand for both sigmoid and tanh"),
        (POWERS, "pow{formula=x}", "'second' needs; leave it out"),
        (LOG_SOFTMAX, f"log_softmax{{formula={POWER}}}", "both exp and log, which 'last' needs"),
        (LOG_SOFTMAX, f"exp{{formula={POWER}}},log", "rewritten for exp and log at once"),
        (LOG_SOFTMAX, f"log,exp{{formula={POWER}}}", "rewritten for exp and log at once"),
    ],
)
def test_one_formula_for_two_functions_is_refused(
    model: str, passes: str, words: str, onnx_text: Text
) -> None:
    opset = 20 if model == GELU else 17
    initializers = weights(4) if model == LSTM else None
    inputs = None if model == LSTM else INPUTS
    proto = onnx_text(model, opset=opset, initializers=initializers)
    with pytest.raises(ApproximationError) as caught:
        odp.rewrite(proto, passes, calibration=inputs)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "passes", "schemes"),
    [
        (GELU, f"tanh{{formula={TANH}}},gelu", {"tanh": "formula", "sigmoid": "minimax"}),
        (
            GELU,
            f"gelu{{formula={LINE}}},tanh{{formula={TANH}}}",
            dict.fromkeys(("tanh", "sigmoid"), "formula"),
        ),
        (RNN, f"recurrent{{formula={TANH}}}", {"tanh": "formula"}),
        (LSTM, f"sigmoid{{formula={LINE}}}", {"sigmoid": "formula"}),
        (POWERS.replace("0.25", "0.75"), "pow{formula=x}", {"pow(0.75)": "formula"}),
    ],
)
def test_what_the_refusals_advise_works(
    model: str, passes: str, schemes: dict[str, str], onnx_text: Text
) -> None:
    gates = {LSTM: 4, RNN: 1}.get(model)
    initializers = None if gates is None else weights(gates)
    proto = onnx_text(model, opset=20 if model == GELU else 17, initializers=initializers)
    report = odp.rewrite(proto, passes, calibration=None if gates else INPUTS).report
    assert {record.function: record.scheme for record in report.approximants} == schemes
