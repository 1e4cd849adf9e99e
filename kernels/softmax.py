"""Softmax, with a mask or causal, and cross-entropy: exp of a row from its largest number."""

from __future__ import annotations

from odp.kernels.kernel import Output
from odp.kernels.operator import Functions, Operand, Operator
from odp.kernels.term import (
    Term,
    column_index,
    constant,
    equal,
    greater,
    input_elements,
    input_row,
    input_row_integer,
    maximum,
    row_in_group,
    row_max,
    row_sum,
    scalar,
    scalar_integer,
    where,
)

__all__ = ["SOFTMAX"]

_X, _D = input_elements("x"), input_elements("d_y")
# Below every score that float16 has; -inf - (-inf) would be NaN in a row that is masked altogether.
_MASKED = constant(-1e30)


def _scores(given: frozenset[str]) -> Term:
    scores = _X * scalar("scale")
    return scores + input_elements("mask") if "mask" in given else scores


def _weights(scores: Term, functions: Functions) -> Term:
    powers = functions["exp"](scores - row_max(scores), at_most_zero=True)
    return powers * (1 / row_sum(powers))


def _softmax(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    return (Output("y", _weights(_scores(given), functions)),)


def _causal_softmax(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    hidden = greater(column_index(), row_in_group() + scalar_integer("offset"))
    scores = where(hidden, _MASKED, _X * scalar("scale"))
    powers = functions["exp"](scores - row_max(scores), at_most_zero=True)
    powers = where(hidden, 0, powers)
    # The largest power is 1; a row that is hidden altogether has a sum of 0, and no weights.
    return (Output("y", powers * (1 / maximum(row_sum(powers), 0.5))),)


def _softmax_backward(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    """`y (d - sum(y d))`, whichever way y came about."""
    weighted = input_elements("y") * _D
    d = weighted - input_elements("y") * row_sum(weighted)
    return Output("d_x", d * scalar("scale")), Output("d_mask", d)


def _cross_entropy(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    target, ignored = input_row_integer("target"), scalar_integer("ignored")
    largest = row_max(_X)
    total = row_sum(functions["exp"](_X - largest, at_most_zero=True))
    chosen = row_sum(where(equal(column_index(), target), _X, 0))
    loss = functions["log"](total) + largest - chosen
    return (
        Output("loss", where(equal(target, ignored), 0, loss), "row"),
        Output("largest", largest, "row"),
        Output("total", total, "row"),
    )


def _cross_entropy_backward(functions: Functions, given: frozenset[str]) -> tuple[Output, ...]:
    target, ignored = input_row_integer("target"), scalar_integer("ignored")
    largest, total = input_row("largest"), input_row("total")
    weights = functions["exp"](_X - largest, at_most_zero=True) * (1 / total)
    weights = weights - where(equal(column_index(), target), 1, 0)
    d = where(equal(target, ignored), 0, input_row("d_loss"))
    return (Output("d_x", weights * d),)


SOFTMAX = (
    Operator(
        "softmax",
        "softmax of scale * x + mask over the last extent",
        (Operand("x"), Operand("mask", optional=True)),
        ("exp",),
        _softmax,
        _softmax_backward,
        saved=("y",),
        scalars=("scale",),
    ),
    Operator(
        "causal_softmax",
        "softmax of scale * x over the columns up to row + offset",
        (Operand("x"),),
        ("exp",),
        _causal_softmax,
        _softmax_backward,
        saved=("y",),
        scalars=("scale",),
        integers=("offset",),
    ),
    Operator(
        "cross_entropy",
        "log(sum(exp(x))) - x[target] for each row, 0 where the target is to be ignored",
        (Operand("x"), Operand("target", "row_integer", differentiable=False)),
        ("exp", "log"),
        _cross_entropy,
        _cross_entropy_backward,
        saved=("largest", "total"),
        integers=("ignored",),
    ),
)
