"""What no kernel takes is refused in one line that names the operator and what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from odp.approximations import approximate
from odp.approximations.errors import OdpError
from odp.approximations.expression import variable
from odp.backends.triton import functional
from odp.backends.triton.operators import defined
from odp.kernels.registry import OPERATORS

from .references import case_of

F = functional
X = torch.randn(3, 4)
T = torch.tensor([1, 2, 0])
Q, TABLE = torch.randn(2, 3, 5, 8), torch.randn(5, 8)


def refused(function: Callable[[], Any]) -> str:
    with pytest.raises(OdpError) as raised:
        function()
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 250
    return message


# What a test calls, and what has to be in the message.
CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "integers": (lambda: F.silu(T), "silu: x is int64; kernels take bfloat16, float16, float32"),
    "complex": (lambda: F.gelu(X.to(torch.complex64)), "gelu: x is complex64; kernels take"),
    "booleans": (lambda: F.rms_norm(X > 0), "rms_norm: x is bool; kernels take"),
    "eight bits": (lambda: F.softmax(X.to(torch.float8_e5m2)), "softmax: x is float8_e5m2"),
    "a weight of integers": (
        lambda: F.rms_norm(X, T.new_ones(4)),
        "rms_norm: weight is int64; kernels take",
    ),
    "no broadcast": (
        lambda: F.swiglu(X, torch.randn(3, 5)),
        "swiglu: shapes do not broadcast: gate [3, 4], up [3, 5]",
    ),
    "a mask of another shape": (
        lambda: F.softmax(X, mask=torch.zeros(2, 4)),
        "softmax: shapes do not broadcast: x [3, 4], mask [2, 4]",
    ),
    "a number": (lambda: F.silu(torch.tensor(1.0)), "silu: a number has no rows"),
    "a weight of another length": (
        lambda: F.rms_norm(X, torch.ones(3)),
        "rms_norm: weight has the shape [3]; with x of [3, 4] it must be [4]",
    ),
    "a weight of two extents": (
        lambda: F.layer_norm(X, torch.ones(4), torch.ones(1, 4)),
        "layer_norm: bias has the shape [1, 4]; with x of [3, 4] it must be [4]",
    ),
    "targets of another shape": (
        lambda: F.cross_entropy(X, T[:2]),
        "cross_entropy: target has the shape [2]; with x of [3, 4] it must be [3]",
    ),
    "targets with columns": (
        lambda: F.cross_entropy(X, T[:, None]),
        "cross_entropy: target has the shape [3, 1]",
    ),
    "targets that are no integers": (
        lambda: F.cross_entropy(X, X[:, 0]),
        "cross_entropy: target is torch.float32; classes are int32 or int64",
    ),
    "targets in eight bits": (
        lambda: F.cross_entropy(X, T.to(torch.int8)),
        "classes are int32 or int64",
    ),
    "another reduction": (
        lambda: F.cross_entropy(X, T, reduction="average"),
        "cross_entropy: reduction is mean, sum or none, not 'average'",
    ),
    "another division": (
        lambda: F.silu(X, division="exact"),
        "silu: division is fast, full or newton, not 'exact'",
    ),
    "another form of gelu": (
        lambda: F.gelu(X, "sigmoid"),
        "gelu: approximate is 'none' or 'tanh', not 'sigmoid'",
    ),
    "another form of geglu": (
        lambda: F.geglu(X, X, "erf"),
        "geglu: approximate is 'none' or 'tanh', not 'erf'",
    ),
    "another device": (
        lambda: F.silu(torch.empty(3, device="meta"), error=1e-4, division="slow"),
        "silu: division is",
    ),
    "two devices": (
        lambda: F.swiglu(X, torch.empty(3, 4, device="meta")),
        "swiglu: up is on meta, gate on cpu; move them together",
    ),
    "a target on another device": (
        lambda: F.cross_entropy(X, T.to("meta")),
        "cross_entropy: target is on meta, x on cpu; move them together",
    ),
    "causal and a mask": (
        lambda: F.softmax(X, mask=X, causal=True),
        "softmax: causal needs the last two extents, and no other mask",
    ),
    "causal along rows": (lambda: F.softmax(X, 0, causal=True), "causal needs the last two"),
    "causal in one extent": (lambda: F.softmax(X[0], causal=True), "causal needs the last two"),
    "an error that is out of reach": (lambda: F.silu(X, error=1e-300), ""),
    "no error": (lambda: F.silu(X, error=0.0), ""),
    "an error below zero": (lambda: F.silu(X, error=-1e-3), ""),
    "rope: a table of another length": (
        lambda: F.rope(Q, Q, TABLE[:4], TABLE[:4]),
        "rope: q [2, 3, 5, 8], k [2, 3, 5, 8], cos [4, 8], sin [4, 8] do not fit",
    ),
    "rope: two tables": (lambda: F.rope(Q, Q, TABLE, TABLE[:, :6]), "do not fit"),
    "rope: an odd table": (lambda: F.rope(Q, Q, TABLE[:, :5], TABLE[:, :5]), "do not fit"),
    "rope: a table wider than heads": (
        lambda: F.rope(Q[..., :6], Q[..., :6], TABLE, TABLE),
        "do not fit",
    ),
    "rope: another number of tokens": (lambda: F.rope(Q, Q[:, :, :4], TABLE, TABLE), "do not fit"),
    "rope: three extents": (lambda: F.rope(Q[0], Q[0], TABLE, TABLE), "do not fit"),
    "rope: another batch": (lambda: F.rope(Q, Q[:1], TABLE, TABLE), "do not fit"),
    "rope: another batch of tables": (
        lambda: F.rope(Q, Q, TABLE.expand(3, 5, 8), TABLE.expand(3, 5, 8)),
        "do not fit",
    ),
    "rope: integers": (lambda: F.rope(Q, Q, TABLE.int(), TABLE), "rope: cos is int32; kernels"),
    "rope: two devices": (lambda: F.rope(Q, Q.to("meta"), TABLE, TABLE), "rope: q is on cpu"),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input_is_refused_in_one_line(case: str) -> None:
    call, expected = CALLS[case]
    assert expected in refused(call)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_refuses_types_and_devices_by_its_name(name: str) -> None:
    case = case_of(name, (2, 9))
    operator = defined[name]
    for operand in OPERATORS[name].operands:
        x = case.tensors[operand.name]
        assert x is not None
        if operand.kind != "row_integer":
            bad = {**case.tensors, operand.name: x.to(torch.complex64)}
            message = refused(lambda bad=bad: operator.check(list(bad.values()), "fast"))
            assert message.startswith(f"{name}: {operand.name} is complex64; kernels take")
        if operand is not OPERATORS[name].operands[0]:
            elsewhere = {**case.tensors, operand.name: x.to("meta")}
            message = refused(lambda bad=elsewhere: operator.check(list(bad.values()), "fast"))
            assert message.startswith(f"{name}: {operand.name} is on meta")
        if operand.kind != "elements":
            long = {**case.tensors, operand.name: torch.cat([x, x])}
            message = refused(lambda bad=long: operator.check(list(bad.values()), "fast"))
            assert message.startswith(f"{name}: {operand.name} has the shape")


def test_an_approximant_whose_division_vanishes() -> None:
    x = variable("x")
    good = approximate("sigmoid", (-2, 2), error=1e-2)
    vanishing = replace(good, expression=1 / (x * x - 1))
    message = refused(lambda: F.silu(X, sigmoid=vanishing))
    assert "the expression for sigmoid divides by 0 next to" in message


def test_text_that_is_no_function_in_an_exported_call() -> None:
    message = refused(lambda: torch.ops.odp.silu(X, "sigmoid", "fast", False))
    assert "this is no function of a kernel" in message


def test_only_a_cpu_takes_float64() -> None:
    assert F.silu(X.double()).dtype == torch.float64
    message = refused(lambda: F.silu(torch.empty(3, dtype=torch.float64, device="meta")))
    assert "silu: x is float64; kernels take bfloat16, float16, float32" in message


def test_shapes_without_numbers_are_computed_on_meta() -> None:
    y = F.swiglu(torch.empty(3, 4, device="meta"), torch.empty(4, device="meta"))
    assert (y.device.type, y.shape) == ("meta", (3, 4))


def test_a_derivative_of_a_mask_of_booleans_is_not_asked_for() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    F.softmax(x, mask=X > 0).sum().backward()
    assert x.grad is not None
