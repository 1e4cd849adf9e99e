"""RMSNorm, with a residual or with BitNet's quantisation, and LayerNorm, row by row."""

from __future__ import annotations

from odp.kernels.kernel import Output
from odp.kernels.operator import Functions, Operand, Operator
from odp.kernels.term import (
    Term,
    absolute,
    columns,
    input_column,
    input_elements,
    input_row,
    maximum,
    minimum,
    round_half_even,
    row_max,
    row_sum,
    scalar,
)

__all__ = ["NORMALISATIONS"]

_X, _RESIDUAL, _D = input_elements("x"), input_elements("residual"), input_elements("d_y")
_WEIGHT, _BIAS = input_column("weight"), input_column("bias")
_WEIGHT_OPERAND = Operand("weight", "column", optional=True)


def _mean(x: Term) -> Term:
    return row_sum(x) / columns()


def _scaled(x: Term, given: frozenset[str]) -> Term:
    return x * _WEIGHT if "weight" in given else x


def _inverse_root(x: Term, functions: Functions) -> Term:
    return functions["rsqrt"](_mean(x * x) + scalar("eps"))


def _rms_gradient(x: Term, given: frozenset[str], inverse: Term) -> Term:
    """The derivative to x: r w d - x r^3 mean(x w d)."""
    weighted = _scaled(_D, given)
    shared = _mean(x * weighted) * inverse * inverse
    return (weighted - x * shared) * inverse


def _rms_norm(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    inverse = _inverse_root(_X, functions)
    return Output("y", _scaled(_X * inverse, given)), Output("inverse", inverse, "row")


def _rms_norm_backward(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    inverse = input_row("inverse")
    d_x = Output("d_x", _rms_gradient(_X, given, inverse))
    return d_x, Output("d_weight", _D * _X * inverse, "column_sum")


def _add_rms_norm(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    total = _X + _RESIDUAL
    inverse = _inverse_root(total, functions)
    return (
        Output("y", _scaled(total * inverse, given)),
        Output("total", total),
        Output("inverse", inverse, "row"),
    )


def _add_rms_norm_backward(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    total, inverse = input_elements("total"), input_row("inverse")
    d_total = _rms_gradient(total, given, inverse) + input_elements("d_total")
    # The two summands have one gradient; it is computed and stored once for both.
    return (
        Output("d_x", d_total),
        Output("d_residual", d_total),
        Output("d_weight", _D * total * inverse, "column_sum"),
    )


def _layer_norm(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    mean = _mean(_X)
    inverse = _inverse_root(_X - mean, functions)
    y = _scaled((_X - mean) * inverse, given)
    y = y + _BIAS if "bias" in given else y
    return Output("y", y), Output("mean", mean, "row"), Output("inverse", inverse, "row")


def _layer_norm_backward(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    mean, inverse = input_row("mean"), input_row("inverse")
    normal, weighted = (_X - mean) * inverse, _scaled(_D, given)
    shared = _mean(normal * weighted)
    return (
        Output("d_x", (weighted - _mean(weighted) - normal * shared) * inverse),
        Output("d_weight", _D * normal, "column_sum"),
        Output("d_bias", _D, "column_sum"),
    )


def _rms_norm_quantised(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    """BitNet's activations: 8 bits, one scale a row (Ma et al., arXiv 2402.17764, section 2)."""
    inverse, x = _inverse_root(_X, functions), _scaled(_X, given)
    # Not the largest of the products: so it is found in the pass that the mean takes, and is NaN if
    # the mean is, where a maximum knows no NaN.
    scale = 127 / maximum(row_max(absolute(x)) * inverse, 1e-5)
    whole = round_half_even(minimum(maximum(x * inverse * scale, -128), 127))
    return Output("quantised", whole), Output("scale", scale, "row")


NORMALISATIONS = (
    Operator(
        "rms_norm",
        "x / sqrt(mean(x^2) + eps) * weight over the last extent",
        (Operand("x"), _WEIGHT_OPERAND),
        ("rsqrt",),
        _rms_norm,
        _rms_norm_backward,
        saved=("inverse",),
        scalars=("eps",),
    ),
    Operator(
        "add_rms_norm",
        "rms_norm of x + residual, and that sum",
        (Operand("x"), Operand("residual"), _WEIGHT_OPERAND),
        ("rsqrt",),
        _add_rms_norm,
        _add_rms_norm_backward,
        results=2,
        saved=("total", "inverse"),
        scalars=("eps",),
    ),
    Operator(
        "layer_norm",
        "(x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last extent",
        (Operand("x"), _WEIGHT_OPERAND, Operand("bias", "column", optional=True)),
        ("rsqrt",),
        _layer_norm,
        _layer_norm_backward,
        saved=("mean", "inverse"),
        scalars=("eps",),
    ),
    Operator(
        "rms_norm_quantised",
        "rms_norm in 8 bits with one scale a row, as BitNet's linear layers take it",
        (Operand("x", differentiable=False), Operand("weight", "column", False, True)),
        ("rsqrt",),
        _rms_norm_quantised,
        None,
        results=2,
        scalars=("eps",),
        dtypes={"quantised": "int8"},
    ),
)
