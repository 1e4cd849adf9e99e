"""Domains on which every function of the registry is tested."""

from __future__ import annotations

from odp.approximations import FUNCTIONS, Function, get_function

POWERS = ["pow(0.75)", "pow(0.25)", "pow(-0.25)", "pow(1.5)", "pow(3)", "pow(-2)", "pow(0.1)"]


def functions() -> list[Function]:
    """All functions of the registry and some powers."""
    return [*FUNCTIONS.values(), *(get_function(name) for name in POWERS)]


NARROW: dict[str, tuple[float, float]] = {
    "softplus_tail": (0.0, 1.0),
    "tan": (-0.5, 0.5),
    "asin": (-0.5, 0.5),
    "acos": (-0.5, 0.5),
    "atanh": (-0.5, 0.5),
    "acosh": (1.5, 2.5),
    "log1p": (-0.5, 1.0),
    "reciprocal": (0.8, 1.25),
}
"""Where every scheme that applies must reach 1e-3; others use [-1, 1] or [0.7, 1.5]."""


def narrow(function: Function) -> tuple[float, float]:
    """A domain on which every scheme works."""
    return NARROW.get(function.name, (0.7, 1.5) if function.positive_scale else (-1.0, 1.0))


# (function, domain, error): what the passes ask for, up to the widest promised domains.
WIDE: list[tuple[str, tuple[float, float], float]] = [
    ("exp", (-10, 0), 1e-5),
    ("exp", (-32, 0), 1e-5),
    ("exp", (-80, 0), 1e-5),
    ("exp", (-10, 10), 1e-5),
    ("exp", (-3, 0.5), 1e-5),
    ("rsqrt", (0.01, 100), 1e-5),
    ("rsqrt", (1e-6, 1e2), 1e-5),
    ("rsqrt", (1e-12, 1e3), 1e-5),
    ("sqrt", (0, 4), 1e-5),
    ("sqrt", (1e-6, 1e2), 1e-5),
    ("sqrt", (1e-12, 1e3), 1e-5),
    ("reciprocal", (1, 1e6), 1e-5),
    ("reciprocal", (-4, -0.1), 1e-5),
    ("sigmoid", (-8, 8), 1e-5),
    ("sigmoid", (-30, 30), 1e-5),
    ("sigmoid", (-200, 200), 1e-5),
    ("sigmoid", (-3, 20), 1e-5),
    ("tanh", (-8, 8), 1e-5),
    ("tanh", (-30, 30), 1e-5),
    ("tanh", (-200, 200), 1e-5),
    ("erf", (-8, 8), 1e-5),
    ("erf", (-30, 30), 1e-5),
    ("erf", (-200, 200), 1e-5),
    ("normal_cdf", (-8, 8), 1e-5),
    ("normal_cdf", (-30, 30), 1e-5),
    ("normal_cdf", (-200, 200), 1e-5),
    ("mish_gate", (-8, 8), 1e-5),
    ("mish_gate", (-30, 30), 1e-5),
    ("softplus_tail", (0, 8), 1e-5),
    ("softplus_tail", (0, 100), 1e-5),
    ("log", (0.01, 100), 1e-5),
    ("log", (1e-6, 1e6), 1e-5),
    ("log", (1e-12, 1e3), 1e-5),
    ("sin", (-3.2, 3.2), 1e-5),
    ("cos", (-3.2, 3.2), 1e-5),
    ("sin", (-512, 512), 1e-4),
    ("cos", (-512, 512), 1e-4),
    ("sin", (0, 2100), 1e-3),
    ("cos", (-2100, 2100), 1e-3),
    ("tan", (-1.5, 1.5), 1e-5),
    ("sinh", (-10, 10), 1e-5),
    ("cosh", (-10, 10), 1e-5),
    ("asin", (-0.9, 0.9), 1e-5),
    ("acos", (-0.9, 0.9), 1e-5),
    ("asin", (-1, 1), 1e-2),
    ("atan", (-5, 5), 1e-5),
    ("atan", (-100, 100), 1e-5),
    ("asinh", (-10, 10), 1e-5),
    ("acosh", (1.1, 10), 1e-5),
    ("acosh", (1, 10), 1e-2),
    ("atanh", (-0.9, 0.9), 1e-5),
    ("atanh", (-0.999, 0.999), 1e-5),
    ("pow(0.75)", (0.01, 100), 1e-5),
    ("pow(-0.25)", (0.01, 100), 1e-5),
    ("pow(1.5)", (0, 4), 1e-5),
    ("pow(3)", (0.1, 10), 1e-5),
    ("pow(0.1)", (1e-6, 1e6), 1e-5),
    ("pow(2.2)", (1e-4, 10), 1e-5),
    ("gelu", (-8, 8), 1e-5),
    ("gelu_tanh", (-8, 8), 1e-5),
    ("silu", (-8, 8), 1e-5),
    ("softplus", (-8, 8), 1e-5),
    ("log_sigmoid", (-8, 8), 1e-5),
    ("mish", (-8, 8), 1e-4),
    ("exp2", (-10, 0), 1e-5),
    ("expm1", (-5, 1), 1e-5),
    ("log2", (0.01, 100), 1e-5),
    ("log10", (0.01, 100), 1e-5),
    ("log1p", (0, 100), 1e-5),
    ("cbrt", (0.01, 100), 1e-5),
    ("erfc", (-4, 4), 1e-5),
    ("sinc", (-10, 10), 1e-5),
]
