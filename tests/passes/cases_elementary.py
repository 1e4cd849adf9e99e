"""Spellings of roots, powers, logarithms, exponentials, trigonometry and rotary positions."""

from __future__ import annotations

import numpy as np

from .cases import Case

__all__ = ["CASES"]

_POSITIVE = {"low": 0.05, "high": 8.0}
_UNIT = {"low": -0.9, "high": 0.9}
_FREQUENCIES = (10000.0 ** (-np.arange(0, 8) / 8)).astype(np.float32).reshape(1, 1, 8)


def _case(
    rewrite: str, name: str, body: str, pattern: str = "", opset: int = 17, **options: object
) -> Case:
    patterns = {pattern or rewrite: 1}
    return Case(rewrite, name, body, patterns, opset=opset, **options)  # type: ignore[arg-type]


def _pow(name: str, exponent: float, opset: int = 17) -> Case:
    constants = {"p": np.array(exponent, np.float32)}
    return _case("pow", name, "y = Pow(x, p)", constants=constants, opset=opset, **_POSITIVE)


_LRN = {"inputs": {"x": (2, 6, 5, 5)}}

CASES: list[Case] = [
    _case("lp_norm", "last_axis", "y = LpNormalization<p = 2>(x)"),
    _case("lp_norm", "middle_axis", "y = LpNormalization<axis = 1>(x)", opset=9),
    _case("local_response_norm", "default", "y = LRN<size = 3>(x)", **_LRN),
    _case(
        "local_response_norm",
        "odd",
        "y = LRN<size = 5, alpha = 0.1, beta = 0.5, bias = 2.0>(x)",
        opset=9,
        **_LRN,
    ),
    _case("lp_pool", "windows", "y = LpPool<kernel_shape = [2, 2], p = 2>(x)", **_LRN),
    _case("lp_pool", "cubes", "y = LpPool<kernel_shape = [3, 2], p = 3>(x)", **_LRN),
    _case("lp_pool", "everywhere", "y = GlobalLpPool(x)", "global_lp_pool", **_LRN),
    *(
        _case(name, "single", f"y = {name.capitalize()}(x)")
        for name in ("exp", "sin", "cos", "sinh", "cosh", "atan", "asinh")
    ),
    *(
        _case(name, "single", f"y = {name.capitalize()}(x)", **_UNIT)
        for name in ("asin", "acos", "atanh", "tan")
    ),
    _case("acosh", "single", "y = Acosh(x)", low=1.1, high=9.0),
    _case("exp", "old", "y = Exp(x)", opset=9),
    _case("exp", "large", "y = Exp(x)", low=-20.0, high=10.0),
    _case("sin", "wide", "y = Sin(x)", low=-60.0, high=60.0),
    _case("log", "single", "y = Log(x)", **_POSITIVE),
    _case(
        "log", "reduce_log_sum", "y = ReduceLogSum<axes = [1]>(x)", "reduce_log_sum", **_POSITIVE
    ),
    _case(
        "log",
        "reduce_log_sum_18",
        "k = Constant<value_ints = [-1]>() y = ReduceLogSum<keepdims = 0>(x, k)",
        "reduce_log_sum",
        opset=18,
        **_POSITIVE,
    ),
    _case("sqrt", "single", "y = Sqrt(x)", **_POSITIVE),
    _case("sqrt", "pow_half", "y = Pow(x, half)", **_POSITIVE),
    _case("sqrt", "octaves", "y = Sqrt(x)", low=1e-4, high=1e4),
    _case("sqrt", "reduce_l2", "y = ReduceL2<axes = [-1]>(x)", "reduce_l2"),
    _case("sqrt", "reduce_l2_everything", "y = ReduceL2<keepdims = 0>(x)", "reduce_l2", opset=11),
    _case(
        "sqrt",
        "reduce_l2_18",
        "k = Constant<value_ints = [-2]>() y = ReduceL2<keepdims = 0>(x, k)",
        "reduce_l2",
        opset=18,
    ),
    _case("sqrt", "deviation", "d = Mul(x, x) v = ReduceMean<axes = [-1]>(d) y = Sqrt(v)"),
    _case("rsqrt", "reciprocal_of_sqrt", "d = Sqrt(x) y = Reciprocal(d)", **_POSITIVE),
    _case("rsqrt", "sqrt_of_reciprocal", "d = Reciprocal(x) y = Sqrt(d)", **_POSITIVE),
    _case("rsqrt", "one_over_sqrt", "d = Sqrt(x) y = Div(one, d)", **_POSITIVE),
    _case("rsqrt", "pow_minus_half", "y = Pow(x, minus_half)", **_POSITIVE),
    _case("rsqrt", "reciprocal_of_pow", "d = Pow(x, half) y = Reciprocal(d)", **_POSITIVE),
    _case(
        "rsqrt",
        "quotient",
        "d = Sqrt(x) t = Add(x, one) y = Div(t, d)",
        "division_by_sqrt",
        **_POSITIVE,
    ),
    _case("reciprocal", "single", "y = Reciprocal(x)", **_POSITIVE),
    _case("reciprocal", "one_over", "y = Div(one, x)", "inverse", **_POSITIVE),
    _case(
        "reciprocal",
        "division",
        "t = Add(x, one) y = Div(x, t)",
        "division",
        **_POSITIVE,
    ),
    _pow("three_quarters", 0.75),
    _pow("three_halves", 1.5),
    _pow("five_halves", 2.5, opset=9),
    _pow("minus_three_quarters", -0.75, opset=12),
    # 1/2.2, the exponent of gamma correction, is no short decimal.
    _pow("gamma", 1 / 2.2),
    _case(
        "pow",
        "exponent_per_channel",
        "y = Pow(x, p)",
        constants={"p": np.linspace(0.25, 2.75, 16, dtype=np.float32)},
        **_POSITIVE,
    ),
    _case(
        "pow",
        "variable_exponent",
        "y = Pow(x, z)",
        inputs={"x": (2, 6, 16), "z": (16,)},
        low=0.2,
        high=2.5,
    ),
    _case(
        "pow",
        "constant_base",
        "y = Pow(base, x)",
        constants={"base": np.array(1.5, np.float32)},
    ),
    Case(
        "rope",
        "dynamic_positions",
        "a = Mul(x, f) c = Concat<axis = -1>(a, a) s = Sin(c) o = Cos(c) y = Add(s, o)",
        {"rope_sin": 1, "rope_cos": 1},
        inputs={"x": (1, 16, 1)},
        constants={"f": _FREQUENCIES},
        low=0.0,
        high=31.0,
    ),
    Case(
        "rope",
        "dynamic_positions_matmul",
        "a = MatMul(x, f) t = Transpose<perm = [0, 2, 1]>(a) s = Sin(t) y = Neg(s)",
        {"rope_sin": 1},
        inputs={"x": (1, 16, 1)},
        constants={"f": _FREQUENCIES},
        low=0.0,
        high=31.0,
    ),
    Case(
        "rope",
        "known_positions",
        "a = Mul(t, f) s = Sin(a) o = Cos(a) p = Mul(x, s) q = Mul(x, o) y = Add(p, q)",
        {"rope_sin": 1, "rope_cos": 1},
        inputs={"x": (1, 16, 8)},
        constants={
            "f": _FREQUENCIES,
            "t": np.arange(16, dtype=np.float32).reshape(1, 16, 1),
        },
    ),
]
