"""Functions of kernels: their stated errors on all of float32, their text, what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.approximations import approximate
from odp.approximations.errors import OdpError
from odp.approximations.expression import variable
from odp.backends.triton import functional
from odp.kernels.functions import (
    FUNCTIONS,
    KernelFunction,
    from_approximant,
    fused_instructions,
    kernel_function,
)
from odp.kernels.term import input_elements, nodes
from odp.kernels.torch_evaluation import evaluate

Tensor = torch.Tensor
ERRORS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
LARGEST = torch.finfo(torch.float32).max
SMALLEST = 2.0**-126

TRUE = {
    "exp": torch.exp,
    "exp2": torch.exp2,
    "sigmoid": torch.sigmoid,
    "rsqrt": torch.rsqrt,
    "log": torch.log,
    "normal_cdf": torch.special.ndtr,
}
# Where the function of a float32 is a normal float32.
DOMAINS = {
    "exp": (-126 * math.log(2), 127 * math.log(2)),
    "exp2": (-126.0, 127.0),
    "rsqrt": (SMALLEST, LARGEST),
    "log": (SMALLEST, LARGEST),
}
DOUBLE = 2.0**-48
"""Roundings in float64, here and in the functions of torch."""


def evaluated(function: KernelFunction, x: Tensor, **options: Any) -> Tensor:
    """The function in float64."""
    (found,) = evaluate(
        [function(input_elements("x"), **options)], {"x": x}, x.shape, torch.float64
    )
    return found


def check(function: KernelFunction, x: Tensor) -> None:
    """The stated bounds, wherever they are stated for."""
    low, high = DOMAINS.get(function.function, (-LARGEST, LARGEST))
    x = x.double()
    x = x[(x >= low) & (x <= high)]
    found, true = evaluated(function, x), TRUE[function.function](x)
    error = (found - true).abs()
    assert found.isfinite().all()
    if function.absolute_error is not None:
        slack = DOUBLE * (1 + x.abs().clamp_max(1e3))
        assert (error <= function.absolute_error + slack).all(), error.max()
    if function.relative_error is not None and function.function != "sigmoid":
        # Of exp, the operand is rounded once more before it is reduced.
        slack = DOUBLE * (1 + x.abs() if function.function in ("exp", "exp2") else 1)
        assert (error <= (function.relative_error + slack) * true.abs()).all()
    elif function.relative_error is not None:
        # The exp of a sigmoid stops at 2^125.
        inside = x > -125 * math.log(2)
        slack = DOUBLE * (1 + x.abs())
        assert (error <= (function.relative_error + slack) * true)[inside].all()


def floats(exponent_step: int = 1) -> Tensor:
    """Every exponent of float32 with both ends and random significands, both signs."""
    significands = torch.randint(0, 2**23, (256, 30), dtype=torch.int32)
    significands[:, 0], significands[:, 1], significands[:, 2] = 0, 2**23 - 1, 1
    exponents = torch.arange(0, 255, exponent_step, dtype=torch.int32)
    x = (significands[: len(exponents)] + (exponents[:, None] << 23)).view(torch.float32).flatten()
    return torch.cat([x, -x])


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_stated_error_holds_for_floats_of_every_exponent(name: str, error: float) -> None:
    function = kernel_function(name, error)
    assert function.certified
    stated = function.absolute_error if name in ("log", "normal_cdf") else function.relative_error
    assert stated is not None
    assert stated <= error * (1 + 1e-6) + (2e-8 if name == "normal_cdf" else 0)
    check(function, floats())


@pytest.mark.parametrize("error", [1e-4, 1e-7])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_stated_error_holds_on_a_dense_grid(name: str, error: float) -> None:
    function = kernel_function(name, error)
    for low, high in ((-1.0, 1.0), (-10.0, 10.0), (-90.0, 90.0)):
        check(function, torch.linspace(low, high, 100_001))


@pytest.mark.parametrize("error", [1e-4, 1e-7])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_stated_error_holds_where_reductions_change_over(name: str, error: float) -> None:
    """Halves for exp, powers of 4 for rsqrt, sqrt(2) times powers of 2 for log; and neighbours."""
    halves = torch.arange(-125, 126) + 0.5
    powers = 2.0 ** torch.arange(-126, 128).double()
    ends = torch.tensor([5.5, -5.5, 87.3365447505531, 88.02969193111305, 86.6433975699])
    points = [halves, halves * math.log(2), powers, powers * math.sqrt(0.5), ends, -ends]
    x = torch.cat([p.double() for p in points]).float()
    x = x[x.isfinite()]
    around = [x]
    for end in (-torch.inf, torch.inf):
        near = x
        for _ in range(3):
            near = torch.nextafter(near, near.new_tensor(end))
            around.append(near)
    check(kernel_function(name, error), torch.cat(around))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-LARGEST, LARGEST, width=32), min_size=1))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_stated_error_holds_for_floats_that_hypothesis_thinks_of(
    name: str, numbers: list[float]
) -> None:
    check(kernel_function(name, 1e-4), torch.tensor(numbers, dtype=torch.float64))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_truth_is_that_of_mpmath(name: str) -> None:
    """torch in float64 is the reference here; it has to be one."""
    formulas = {
        "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
        "rsqrt": lambda x: 1 / mpmath.sqrt(x),
        "exp2": lambda x: mpmath.power(2, x),
        "normal_cdf": mpmath.ncdf,
    }
    formula = formulas.get(name, getattr(mpmath, name, None))
    with mpmath.workdps(40):
        for x in (0.001, 0.7071, 1.5, 4.0, 30.0, 1e-30 if name in ("log", "rsqrt") else -3.0):
            exact = formula(mpmath.mpf(x))
            found = TRUE[name](torch.tensor(x, dtype=torch.float64)).item()
            assert abs((found - exact) / exact) < 1e-14


def test_exp_underflows_to_the_smallest_power_and_saturates_at_the_largest() -> None:
    x = torch.tensor([-1e38, -200.0, -88.0, 89.0, 200.0, 1e38], dtype=torch.float64)
    found = evaluated(kernel_function("exp", 1e-6), x)
    expected = torch.tensor([2.0**-126] * 3 + [2.0**127] * 3, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    at_most = evaluated(kernel_function("exp", 1e-6), x[:3], at_most_zero=True)
    assert torch.equal(at_most, found[:3])


def test_gates_go_to_zero_where_they_should() -> None:
    cdf = kernel_function("normal_cdf", 1e-4)
    assert not evaluated(cdf, torch.tensor([-5.6, -100.0, -1e38], dtype=torch.float64)).any()
    rational = from_approximant(approximate("sigmoid", (-16, 16), error=1e-4))
    assert rational.below == 0
    assert not evaluated(rational, torch.tensor([-16.1, -1e38], dtype=torch.float64)).any()
    short = from_approximant(approximate("sigmoid", (-2, 2), error=1e-4))
    assert short.below is None
    assert from_approximant(approximate("tanh", (-2, 2), error=1e-3)).below is None


def test_nan_in_float32_and_in_float64() -> None:
    for name in FUNCTIONS:
        term = kernel_function(name, 1e-4)(input_elements("x"))
        for dtype in (torch.float32, torch.float64):
            x = torch.tensor([1.0, torch.nan, 2.0], dtype=dtype)
            (found,) = evaluate([term], {"x": x}, x.shape, dtype)
            assert found.isnan().tolist() == [False, True, False], (name, dtype)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_text_round_trip(name: str, error: float) -> None:
    function = kernel_function(name, error)
    read = KernelFunction.parse(function.text)
    assert read == function
    assert read.text == function.text
    x = input_elements("x")
    assert read(x) is function(x)


def test_text_of_an_approximant_with_every_operation() -> None:
    function = from_approximant(approximate("sigmoid", (-8, 8), error=1e-3, scheme="minimax"))
    assert function.expression.counts.divisions
    assert KernelFunction.parse(function.text) == function
    x = variable("x")
    every = KernelFunction("f", "clip", (x - 1) / (x * x + 1) + 2, -1.0, 1.0, below=0.5)
    assert KernelFunction.parse(every.text) == every


def test_text_does_not_depend_on_the_run() -> None:
    first = kernel_function("exp", 1e-4).text
    kernel_function.cache_clear()
    assert kernel_function("exp", 1e-4).text == first


GOOD = json.loads(KernelFunction("exp", "clip", variable("x") + 1, -1.0, 1.0).text)
WRONG = {
    "no JSON": "exp",
    "another type": "[1, 2]",
    "nothing": "{}",
    "no expression": json.dumps({k: v for k, v in GOOD.items() if k != "expression"}),
    "one end": json.dumps(GOOD | {"domain": [1]}),
    "ends that are no numbers": json.dumps(GOOD | {"domain": ["a", "b"]}),
    "ends the wrong way round": json.dumps(GOOD | {"domain": [1, -1]}),
    "an unknown reduction": json.dumps(GOOD | {"reduction": "magic"}),
    "an unknown operation": json.dumps(GOOD | {"expression": [["exp", 0]]}),
    "an operand that is not there": json.dumps(GOOD | {"expression": [["add", 0, 1]]}),
    "too few operands": json.dumps(GOOD | {"expression": [["variable", "x"], ["add", 0]]}),
    "a constant that is no number": json.dumps(GOOD | {"expression": [["constant", "a"]]}),
    "a constant of zeroes": json.dumps(GOOD | {"expression": [["constant", "1/0"]]}),
    "an empty expression": json.dumps(GOOD | {"expression": []}),
    "two variables": json.dumps(
        GOOD | {"expression": [["variable", "x"], ["variable", "y"], ["add", 0, 1]]}
    ),
    "a reduction of another function": json.dumps(
        GOOD | {"function": "tanh", "reduction": "exponent"}
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_text_is_refused_in_one_line(case: str) -> None:
    with pytest.raises(OdpError) as raised:
        KernelFunction.parse(WRONG[case])
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_division_that_can_vanish_is_refused() -> None:
    x = variable("x")
    vanishing = KernelFunction("sigmoid", "clip", 1 / (x - 1), -2.0, 2.0)
    with pytest.raises(OdpError, match="divides by 0 next to 1"):
        KernelFunction.parse(vanishing.text)
    outside = replace(vanishing, low=-2.0, high=0.5)
    assert KernelFunction.parse(outside.text) == outside
    approximant = replace(approximate("sigmoid", (-2, 2), error=1e-2), expression=1 / (x - 1))
    with pytest.raises(OdpError, match="sigmoid divides by 0 next to 1"):
        from_approximant(approximant)


def test_a_function_that_kernels_do_not_reduce_is_refused() -> None:
    with pytest.raises(OdpError, match=r"no reduction that makes tanh hold .* exp, exp2, sigmoid"):
        kernel_function("tanh")


def test_a_function_in_the_wrong_place_is_refused() -> None:
    x = torch.randn(3, 4)
    with pytest.raises(OdpError, match="for sigmoid is wanted, and this is one for exp"):
        functional.silu(x, sigmoid=kernel_function("exp", 1e-4))
    with pytest.raises(OdpError, match="for exp is wanted, and this is one for sigmoid"):
        functional.softmax(x, exp=approximate("sigmoid", (-4, 4), error=1e-2))
    with pytest.raises(OdpError, match="sigmoid is to be a KernelFunction or an Approximant, not"):
        functional.silu(x, sigmoid=torch.sigmoid)  # type: ignore[arg-type]


def test_the_cheaper_of_two_evaluation_forms_is_taken() -> None:
    """With fused multiply-add a polynomial of degree n costs n, whatever its products."""
    for error in ERRORS:
        expression = kernel_function("exp2", error).expression
        assert fused_instructions(expression) <= expression.counts.multiplications + 2
    assert fused_instructions(kernel_function("exp2", 1e-4).expression) == 3


def test_no_function_of_the_library_is_reduced_by_a_division_but_the_logistic() -> None:
    for name in FUNCTIONS:
        terms = nodes([kernel_function(name, 1e-4)(input_elements("x"))])
        assert any(term.op == "div" for term in terms) == (name in ("sigmoid", "normal_cdf")), name
