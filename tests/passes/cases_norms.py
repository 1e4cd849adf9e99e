"""Spellings of layer, root-mean-square, group and instance norms."""

from __future__ import annotations

import numpy as np

from .cases import Array, Case

__all__ = ["CASES"]

_RANDOM = np.random.default_rng(0)


def _weights(*shape: int) -> Array:
    return _RANDOM.uniform(0.5, 1.5, shape).astype(np.float32)


_AFFINE = {"w": _weights(16), "b": _weights(16)}
_THREE = {"x": (2, 6, 16), "skip": (2, 6, 16)}


def _variance(square: str, axes: int, centred: str = "c") -> str:
    if axes >= 18:
        reduce = "last = Constant<value_ints = [-1]>() v = ReduceMean(s, last)"
    else:
        reduce = "v = ReduceMean<axes = [-1]>(s)"
    squares = {
        "pow": f"s = Pow({centred}, two)",
        "mul": f"s = Mul({centred}, {centred})",
    }
    return f"{squares[square]} {reduce} r = Add(v, eps)"


_ROOTS = {
    "sqrt_div": "d = Sqrt(r) n = Div({0}, d)",
    "sqrt_reciprocal": "d = Sqrt(r) i = Reciprocal(d) n = Mul({0}, i)",
    "reciprocal_first": "d = Sqrt(r) i = Reciprocal(d) n = Mul(i, {0})",
    "one_over_sqrt": "d = Sqrt(r) i = Div(one, d) n = Mul({0}, i)",
    "sqrt_of_reciprocal": "d = Reciprocal(r) i = Sqrt(d) n = Mul({0}, i)",
    "pow_minus_half": "i = Pow(r, minus_half) n = Mul({0}, i)",
    "pow_half_div": "d = Pow(r, half) n = Div({0}, d)",
    "reciprocal_of_pow": "d = Pow(r, half) i = Reciprocal(d) n = Mul({0}, i)",
}

_MEAN = "m = ReduceMean<axes = [-1]>(x) c = Sub(x, m)"
_LAYER = {"layer_norm_spelled_out": 1}
_RMS = {"rms_norm_spelled_out": 1}


def _layer(name: str, body: str, opset: int = 17) -> Case:
    return Case("layer_norm", name, body, _LAYER, constants=_AFFINE, opset=opset)


def _rms(name: str, body: str, opset: int = 17) -> Case:
    return Case("rms_norm", name, body, _RMS, constants={"w": _AFFINE["w"]}, opset=opset)


_SCALE = "z = Mul(n, w) y = Add(z, b)"

CASES: list[Case] = [
    *(
        _layer(f"{square}_{root}", f"{_MEAN} {_variance(square, 17)} {text.format('c')} {_SCALE}")
        for root, text in _ROOTS.items()
        for square in ("pow", "mul")
    ),
    _layer(
        "axes_as_input",
        "last = Constant<value_ints = [-1]>() m = ReduceMean(x, last) c = Sub(x, m) s = Pow(c, two)"
        " v = ReduceMean(s, last) r = Add(eps, v) d = Sqrt(r) n = Div(c, d) z = Mul(w, n)"
        " y = Add(b, z)",
        opset=18,
    ),
    # torch below 1.10 and Paddle compute x - mean once for the square and once for the result.
    _layer(
        "subtracted_twice",
        f"{_MEAN} k = Sub(x, m) {_variance('pow', 17, 'k')} d = Sqrt(r) n = Div(c, d) {_SCALE}",
    ),
    _layer(
        "opset_9",
        f"{_MEAN} {_variance('mul', 9)} d = Sqrt(r) n = Div(c, d) {_SCALE}",
        opset=9,
    ),
    # Half precision models compute the statistics in single precision.
    _layer(
        "casts_around_the_statistics",
        f"{_MEAN} q = Cast<to = 1>(c) {_variance('pow', 17, 'q')} d = Sqrt(r) e = Cast<to = 1>(d)"
        f" n = Div(c, e) {_SCALE}",
    ),
    Case(
        "layer_norm",
        "fused",
        "y = LayerNormalization<axis = -1, epsilon = 1e-5>(x, w, b)",
        {"layer_norm": 1},
        constants=_AFFINE,
    ),
    Case(
        "layer_norm",
        "fused_over_two_axes",
        "y = LayerNormalization<axis = 1, epsilon = 0.001>(x, w)",
        {"layer_norm": 1},
        constants={"w": _weights(6, 16)},
    ),
    Case(
        "layer_norm",
        "fused_with_all_results",
        "n, m, i = LayerNormalization<axis = -1>(x, w, b) z = Mul(n, i) y = Add(z, m)",
        {"layer_norm": 1},
        constants=_AFFINE,
    ),
    Case(
        "layer_norm",
        "skip",
        "y = com.microsoft.SkipLayerNormalization<epsilon = 1e-5>(x, skip, w)",
        {"skip_layer_norm": 1},
        inputs=_THREE,
        constants=_AFFINE,
    ),
    Case(
        "layer_norm",
        "skip_with_everything",
        'n, "", "", sum = com.microsoft.SkipLayerNormalization<epsilon = 1e-5>(x, skip, w, b, bias)'
        " y = Add(n, sum)",
        {"skip_layer_norm": 1},
        inputs=_THREE,
        constants=_AFFINE | {"bias": _weights(16)},
    ),
    *(
        _rms(f"{square}_{root}", f"{_variance(square, 17, 'x')} {text.format('x')} y = Mul(n, w)")
        for root, text in _ROOTS.items()
        for square in ("pow", "mul")
    ),
    _rms("weight_first", f"{_variance('pow', 17, 'x')} d = Sqrt(r) n = Div(x, d) y = Mul(w, n)"),
    _rms(
        "casts_of_llama",
        f"q = Cast<to = 1>(x) {_variance('pow', 17, 'q')} d = Sqrt(r) i = Reciprocal(d)"
        " n = Mul(q, i) h = Cast<to = 1>(n) y = Mul(w, h)",
    ),
    _rms(
        "axes_as_input",
        f"{_variance('mul', 18, 'x')} d = Sqrt(r) i = Reciprocal(d) n = Mul(x, i) y = Mul(n, w)",
        opset=18,
    ),
    Case(
        "rms_norm",
        "simplified",
        "y = SimplifiedLayerNormalization<axis = -1, epsilon = 1e-5>(x, w)",
        {"rms_norm": 1},
        constants=_AFFINE,
    ),
    Case(
        "rms_norm",
        "skip_simplified",
        "y = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 1e-5>(x, skip, w)",
        {"skip_rms_norm": 1},
        inputs=_THREE,
        constants=_AFFINE,
    ),
    Case(
        "rms_norm",
        "skip_simplified_with_everything",
        'n, "", "", sum = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 1e-5>'
        "(x, skip, w, b) y = Add(n, sum)",
        {"skip_rms_norm": 1},
        inputs=_THREE,
        constants=_AFFINE,
    ),
    Case(
        "rms_norm",
        "fused",
        "y = RMSNormalization<axis = -1, epsilon = 1e-5>(x, w)",
        {"rms_norm": 1},
        constants=_AFFINE,
        opset=23,
    ),
    Case(
        "rms_norm",
        "fused_over_two_axes",
        "y = RMSNormalization<axis = -2, epsilon = 1e-5>(x, w)",
        {"rms_norm": 1},
        constants={"w": _weights(6, 16)},
        opset=23,
    ),
    Case(
        "group_norm",
        "scale_per_group",
        "y = GroupNormalization<num_groups = 3, epsilon = 1e-5>(x, w, b)",
        {"group_norm": 1},
        constants={"w": _weights(3), "b": _weights(3)},
        opset=18,
    ),
    Case(
        "group_norm",
        "scale_per_channel",
        "y = GroupNormalization<num_groups = 3, epsilon = 1e-5>(x, w, b)",
        {"group_norm": 1},
        constants={"w": _weights(6), "b": _weights(6)},
        opset=21,
    ),
    Case(
        "group_norm",
        "images",
        "y = GroupNormalization<num_groups = 2, epsilon = 0.01>(x, w, b)",
        {"group_norm": 1},
        inputs={"x": (2, 4, 3, 5)},
        constants={"w": _weights(4), "b": _weights(4)},
        opset=21,
    ),
    *(
        Case(
            "instance_norm",
            f"rank_{len(shape)}",
            "y = InstanceNormalization<epsilon = 0.001>(x, w, b)",
            {"instance_norm": 1},
            inputs={"x": shape},
            constants={"w": _weights(4), "b": _weights(4)},
            opset=opset,
        )
        for shape, opset in [((2, 4, 9), 17), ((2, 4, 5, 3), 9), ((2, 4, 3, 3, 2), 22)]
    ),
]
