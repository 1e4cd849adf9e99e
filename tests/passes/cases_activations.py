"""Spellings of GELU, SiLU, softplus, mish, the exponential units and their parts."""

from __future__ import annotations

import numpy as np

from .cases import Case

__all__ = ["CASES"]

_ERF = "a = Div(x, root_two) f = Erf(a) g = Add(f, one)"
_TANH = (
    "p = Pow(x, three) q = Mul(p, cubic) s = Add(x, q) u = Mul(s, root_two_over_pi)"
    " f = Tanh(u) g = Add(one, f)"
)
_ASSOCIATIONS = {
    "halved_input": "h = Mul(x, half) y = Mul(h, {0})",
    "halved_input_last": "h = Mul(half, x) y = Mul({0}, h)",
    "halved_result": "h = Mul(x, {0}) y = Mul(h, half)",
    "half_first": "h = Mul({0}, x) y = Mul(half, h)",
    "halved_gate": "h = Mul({0}, half) y = Mul(x, h)",
    "gate_over_two": "h = Div({0}, two) y = Mul(h, x)",
    "result_over_two": "h = Mul(x, {0}) y = Div(h, two)",
}
_BIAS = {"bias": np.linspace(-0.5, 0.5, 16, dtype=np.float32)}


def _gelu(name: str, body: str, pattern: str = "gelu", opset: int = 17) -> Case:
    constants = _BIAS if "bias" in body else {}
    return Case("gelu", name, body, {pattern: 1}, constants=constants, opset=opset)


def _case(rewrite: str, name: str, body: str, opset: int = 17, **options: object) -> Case:
    return Case(rewrite, name, body, {rewrite: 1}, opset=opset, **options)  # type: ignore[arg-type]


_SOFTPLUS = "e = Exp(x) o = Add(e, one) l = Log(o)"
_DENOMINATOR = "n = Neg(x) e = Exp(n) o = Add(e, one)"

CASES: list[Case] = [
    *(_gelu(f"erf_{n}", f"{_ERF} {text.format('g')}") for n, text in _ASSOCIATIONS.items()),
    *(
        _gelu(f"tanh_{n}", f"{_TANH} {text.format('g')}", "gelu_tanh")
        for n, text in _ASSOCIATIONS.items()
    ),
    _gelu(
        "erf_multiplied",
        "a = Mul(inverse_root_two, x) f = Erf(a) g = Add(one, f) h = Mul(x, half) y = Mul(h, g)",
    ),
    _gelu(
        "erf_rounded_constant",
        "a = Div(x, rough_root_two) f = Erf(a) g = Add(f, one) h = Mul(x, g) y = Mul(h, half)",
        opset=9,
    ),
    _gelu(
        "tanh_cube_as_products",
        "d = Mul(x, x) p = Mul(d, x) q = Mul(cubic, p) s = Add(q, x) u = Mul(root_two_over_pi, s)"
        " f = Tanh(u) g = Add(f, one) h = Mul(half, x) y = Mul(h, g)",
        "gelu_tanh",
    ),
    # transformers' "gelu_fast" pulls x and the constants out of the bracket.
    _gelu(
        "tanh_factored",
        "d = Mul(x, x) q = Mul(d, cubic) s = Add(q, one) k = Mul(x, root_two_over_pi) u = Mul(k, s)"
        " f = Tanh(u) g = Add(f, one) h = Mul(x, half) y = Mul(h, g)",
        "gelu_tanh",
    ),
    _gelu("fused", "y = Gelu(x)", opset=20),
    _gelu("fused_tanh", 'y = Gelu<approximate = "tanh">(x)', "gelu_tanh", opset=20),
    _gelu("contrib", "y = com.microsoft.Gelu(x)"),
    _gelu("contrib_bias", "y = com.microsoft.BiasGelu(x, bias)"),
    _gelu("contrib_fast", "y = com.microsoft.FastGelu(x)", "gelu_tanh"),
    _gelu("contrib_fast_bias", "y = com.microsoft.FastGelu(x, bias)", "gelu_tanh"),
    _case("silu", "product", "s = Sigmoid(x) y = Mul(x, s)"),
    _case("silu", "product_reversed", "s = Sigmoid(x) y = Mul(s, x)", opset=9),
    _case("silu", "quotient", f"{_DENOMINATOR} y = Div(x, o)"),
    _case("silu", "reciprocal", f"{_DENOMINATOR} s = Reciprocal(o) y = Mul(x, s)"),
    _case("silu", "one_over", f"{_DENOMINATOR} s = Div(one, o) y = Mul(s, x)"),
    _case("silu", "fused", "y = Swish(x)", opset=24),
    _case("silu", "fused_alpha", "y = Swish<alpha = 1.5>(x)", opset=24),
    _case("silu", "contrib_alpha", "y = com.microsoft.QuickGelu<alpha = 1.3>(x)"),
    _case("silu", "contrib_default_alpha", "y = com.microsoft.QuickGelu(x)"),
    Case(
        "silu",
        "quick_gelu",
        "k = Mul(x, quick) s = Sigmoid(k) y = Mul(x, s)",
        {"swish": 1},
    ),
    Case(
        "silu",
        "quick_gelu_reversed",
        "k = Mul(quick, x) s = Sigmoid(k) y = Mul(s, x)",
        {"swish": 1},
    ),
    _case("sigmoid", "fused", "y = Sigmoid(x)"),
    _case("sigmoid", "opset_9", "y = Sigmoid(x)", opset=9),
    _case("sigmoid", "wide", "y = Sigmoid(x)", low=-40.0, high=40.0),
    _case("sigmoid", "reciprocal", f"{_DENOMINATOR} y = Reciprocal(o)"),
    _case("sigmoid", "one_over", f"{_DENOMINATOR} y = Div(one, o)"),
    _case("sigmoid", "one_first", "n = Neg(x) e = Exp(n) o = Add(one, e) y = Div(one, o)"),
    _case(
        "sigmoid",
        "times_minus_one",
        "n = Mul(x, minus_one) e = Exp(n) o = Add(e, one) y = Div(one, o)",
    ),
    _case("sigmoid", "zero_minus", "n = Sub(zero, x) e = Exp(n) o = Add(e, one) y = Div(one, o)"),
    _case("softplus", "fused", "y = Softplus(x)"),
    _case("softplus", "wide", "y = Softplus(x)", low=-60.0, high=60.0),
    _case("softplus", "spelled_out", f"{_SOFTPLUS} y = Identity(l)"),
    _case("softplus", "one_first", "e = Exp(x) o = Add(one, e) y = Log(o)"),
    # torch's TorchScript exporter writes logsigmoid like this.
    Case("softplus", "log_sigmoid", "s = Sigmoid(x) y = Log(s)", {"log_sigmoid": 1}),
    _case("mish", "fused", "y = Mish(x)", opset=18),
    _case("mish", "of_softplus", "l = Softplus(x) t = Tanh(l) y = Mul(x, t)"),
    _case("mish", "spelled_out", f"{_SOFTPLUS} t = Tanh(l) y = Mul(t, x)", opset=12),
    _case("elu", "default", "y = Elu(x)"),
    _case("elu", "alpha", "y = Elu<alpha = 2.5>(x)", opset=9),
    _case("elu", "tiny_alpha", "y = Elu<alpha = 0.01>(x)", opset=22),
    _case("selu", "default", "y = Selu(x)"),
    _case("selu", "odd", "y = Selu<alpha = 3.0, gamma = 0.7>(x)", opset=9),
    _case("celu", "default", "y = Celu(x)", opset=12),
    _case("celu", "alpha", "y = Celu<alpha = 0.3>(x)"),
    _case("celu", "wide_alpha", "y = Celu<alpha = 4.0>(x)"),
    _case("tanh", "fused", "y = Tanh(x)"),
    _case("tanh", "wide", "y = Tanh(x)", low=-30.0, high=30.0),
    _case("erf", "fused", "y = Erf(x)"),
    _case("erf", "opset_9", "y = Erf(x)", opset=9),
]
