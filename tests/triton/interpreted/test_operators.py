"""Every operator of the registry in the interpreter: types, shapes, divisions, functions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from odp.approximations import approximate
from odp.kernels.functions import from_approximant
from odp.kernels.registry import OPERATORS

from ..checks import DTYPES, assert_within, check_case, check_gradients
from ..references import case_of

DIFFERENTIABLE = [name for name, operator in OPERATORS.items() if operator.backward is not None]


@pytest.mark.parametrize("exact", [False, True], ids=["identity", "exact"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_results_and_gradients_are_within_the_bound(
    name: str, dtype: torch.dtype, exact: bool
) -> None:
    error = 3e-7 if dtype == torch.float32 else 1e-4
    check_case(case_of(name, (2, 3, 70), dtype, error=error, exact=exact, truncated=True))


@pytest.mark.parametrize("columns", [1, 3, 127, 129, 1000])
@pytest.mark.parametrize("name", OPERATORS)
def test_rows_of_any_length(name: str, columns: int) -> None:
    case = case_of(name, (3, columns), optional=columns % 2 == 1)
    check_case(case)


@pytest.mark.parametrize("name", [n for n in OPERATORS if n != "causal_softmax"])
def test_operands_of_one_extent(name: str) -> None:
    check_case(case_of(name, (9,)))


# 16,384 columns are the longest row in one block; sums over rows hold up to 65,536.
@pytest.mark.parametrize(
    "name", [n for n, o in OPERATORS.items() if any(x.kind == "column" for x in o.operands)]
)
def test_long_rows_are_gone_through_in_a_loop_or_in_one_block_for_sums_over_rows(name: str) -> None:
    case = case_of(name, (2, 16_385))
    check_case(case)


@pytest.mark.parametrize("exact", [False, True], ids=["identity", "exact"])
@pytest.mark.parametrize(
    "name", [n for n in DIFFERENTIABLE if "rsqrt" in OPERATORS[n].functions or "softmax" in n]
)
def test_backward_loops_over_long_rows_without_weights(name: str, exact: bool) -> None:
    case = case_of(name, (2, 20_000), optional=False, exact=exact)
    check_gradients(case)


def test_cross_entropy_over_a_vocabulary() -> None:
    case = case_of("cross_entropy", (2, 50_257))
    check_gradients(case)


@pytest.mark.parametrize("exact", [False, True], ids=["identity", "exact"])
@pytest.mark.parametrize("name", [n for n in DIFFERENTIABLE if OPERATORS[n].functions])
def test_newtons_division(name: str, exact: bool) -> None:
    case = case_of(name, (3, 70), division="newton", exact=exact)
    check_gradients(case)


@pytest.mark.parametrize("division", ["full", "newton"])
@pytest.mark.parametrize("name", ["silu", "swiglu", "geglu_tanh"])
def test_an_approximant_with_a_division_in_it(name: str, division: str) -> None:
    approximant = approximate("sigmoid", (-12, 12), error=1e-3, scheme="minimax")
    assert approximant.expression.counts.divisions
    case = case_of(name, (3, 70), division=division)
    case = replace(case, functions={"sigmoid": from_approximant(approximant)})
    for x in case.tensors.values():
        # Two times the polynomial of the tanh form is then within the domain.
        x.clamp_(-3, 3)
    check_gradients(case)


def test_an_approximant_of_exp_in_a_softmax() -> None:
    approximant = approximate("exp", (-30, 0), error=1e-5)
    case = case_of("softmax", (3, 70))
    case = replace(case, functions={"exp": from_approximant(approximant)})
    y, bound = case.outputs()["y"], case.forward_bounds()["y"]
    assert_within(y, bound.value, bound.error)
    # An absolute error of every power, and one of a sum that is at least 1.
    e = approximant.absolute_error + math.exp(-30)
    (true,) = case.true()
    assert_within(y, true, bound.error + (e + true * 70 * e) / (1 - 70 * e))


def test_a_gradient_for_each_of_two_results() -> None:
    case = case_of("add_rms_norm", (2, 3, 70))
    x = case.tensors["x"]
    assert x is not None
    x.requires_grad_()
    y, total, _ = case.run()
    (both,) = torch.autograd.grad(y.sum() + 3 * total.sum(), x, retain_graph=True)
    (first,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    torch.testing.assert_close(both, first + 3, rtol=1e-6, atol=1e-6)
