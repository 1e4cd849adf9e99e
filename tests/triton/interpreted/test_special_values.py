"""NaN, infinity, the largest and the smallest floats; and the path of a CPU beside the kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odp.backends.triton import functional, launch
from odp.kernels.functions import FUNCTIONS, kernel_function
from odp.kernels.kernel import Kernel, Output
from odp.kernels.registry import OPERATORS
from odp.kernels.term import input_elements, round_half_even

from ..checks import assert_within
from ..references import Case, case_of
from ..running_error import exact, kernel_bounds

Tensor = torch.Tensor
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow|underflow) encountered")


# A NaN that a GPU makes has all of its bits set, one of NumPy or torch the uppermost.
NANS = {
    "of a GPU": torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32),
    "of torch": torch.tensor([torch.nan]),
    "negative": torch.tensor([-1], dtype=torch.int32).view(torch.float32),
}
LARGEST = torch.finfo(torch.float32).max
EDGES = (
    *(0.0, -0.0, 1.0, -1.0, 1e38, -1e38, LARGEST, -LARGEST, torch.inf, -torch.inf),
    *(2.0**-126, -(2.0**-126), 2.0**-149, -(2.0**-149), 1e-40),
    *(87.3, 87.4, 88.7, 88.8, -87.3, -87.4, -88.7, -103.9, -104.0, 5.5, -5.5, 5.6, -5.6),
)
POINTWISE = [name for name, o in OPERATORS.items() if all(x.kind == "elements" for x in o.operands)]
POINTWISE = [name for name in POINTWISE if "softmax" not in name]


def by_torch(case: Case, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    with monkeypatch.context() as patch:
        patch.setattr(launch, "runs_kernels", lambda device: False)
        return case.outputs()


def with_first(case: Case, x: Tensor) -> Case:
    return replace(case, tensors={**case.tensors, next(iter(case.tensors)): x})


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(123.0), b.nan_to_num(123.0)) and torch.equal(
        a.isnan(), b.isnan()
    )


@pytest.mark.parametrize("name", POINTWISE)
def test_a_kernel_without_sums_computes_what_a_cpu_does_to_the_bit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = torch.tensor([*EDGES, torch.nan])
    case = case_of(name, (len(edges),), error=3e-7)
    for first in (edges, torch.randn(500) * 30, torch.randn(500) * 2.0 ** torch.randn(500)):
        tensors = {n: torch.randn(first.shape) for n in case.tensors}
        tried = with_first(replace(case, tensors=tensors), first)
        assert same(tried.outputs()["y"], by_torch(tried, monkeypatch)["y"])
        for is_exact in (False, True):
            tried = replace(tried, exact=is_exact)
            results = [gradient_of(tried), *_by_torch_gradient(tried, monkeypatch)]
            assert same(*results)


def gradient_of(case: Case) -> Tensor:
    leaf = next(x for x in case.tensors.values() if x is not None).detach().requires_grad_()
    y = with_first(case, leaf).run()[0]
    (found,) = torch.autograd.grad(y, leaf, torch.full_like(y, 1.5))
    return found


def _by_torch_gradient(case: Case, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    with monkeypatch.context() as patch:
        patch.setattr(launch, "runs_kernels", lambda device: False)
        return [gradient_of(case)]


@pytest.mark.parametrize("kind", NANS)
@pytest.mark.parametrize("name", OPERATORS)
def test_nan_shows_in_every_result_that_depends_on_it(name: str, kind: str) -> None:
    case = case_of(name, (2, 9))
    x = next(iter(case.tensors.values()))
    assert x is not None
    clean = case.outputs()
    x[0, 4] = NANS[kind]
    found = case.outputs()
    for (output, result_kind), value in zip(OPERATORS[name].outputs, found.values(), strict=True):
        before = clean[output]
        assert torch.equal(value[1], before[1]), "the other row"
        if not value.dtype.is_floating_point or output == "largest":
            # Integers have no NaN, and a maximum of Triton sees none; their row has one elsewhere.
            continue
        if (output == "total" and result_kind == "elements") or name in POINTWISE:
            assert value[0, 4].isnan()
            assert not value[0, :4].isnan().any()
        elif name == "causal_softmax":
            # The first row sees two columns of nine.
            assert torch.equal(value, before)
        else:
            assert value[0].isnan().all(), output


@pytest.mark.parametrize("kind", NANS)
@pytest.mark.parametrize("name", [n for n, o in OPERATORS.items() if o.backward is not None])
def test_nan_shows_in_gradients(name: str, kind: str) -> None:
    case = case_of(name, (2, 9))
    x = next(iter(case.tensors.values()))
    assert x is not None
    x[1, 1] = NANS[kind]
    found = gradient_of(case)
    assert found[1, 1].isnan() or name == "relu_squared"
    assert not found[0].isnan().any()


def test_nan_of_a_derivative_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 9, requires_grad=True)
    d = torch.randn(2, 9)
    d[0, 3] = NANS["of a GPU"]
    for function in (functional.silu, functional.softmax, functional.rms_norm):
        (found,) = torch.autograd.grad(function(x), x, d)
        assert found[0, 3].isnan()
        assert not found[1].isnan().any()


@pytest.mark.parametrize("name", ["rms_norm", "add_rms_norm", "layer_norm", "rms_norm_quantised"])
def test_a_mean_square_that_overflows_shows(name: str) -> None:
    for value in (torch.inf, -torch.inf, 1e38):
        case = case_of(name, (2, 9))
        x = next(iter(case.tensors.values()))
        assert x is not None
        x[0, 2] = value
        outputs = case.outputs()
        shown = outputs["scale"] if name == "rms_norm_quantised" else outputs["y"]
        assert shown[0].isnan().all()
        assert not shown[1].isnan().any()


@pytest.mark.parametrize("name", ["rms_norm", "layer_norm", "softmax", "cross_entropy"])
def test_rows_of_zeros_and_of_subnormal_numbers(name: str) -> None:
    for value in (0.0, 1e-40, -(2.0**-149)):
        case = with_first(case_of(name, (2, 9), optional=False), torch.full((2, 9), value))
        outputs, bounds = case.outputs(), case.forward_bounds()
        for output, found in outputs.items():
            assert_within(found, bounds[output].value, bounds[output].error)


@pytest.mark.parametrize("hidden", [-torch.inf, -1e38, -LARGEST, -65504.0, -1e4])
def test_what_a_mask_hides_has_no_weight(hidden: float) -> None:
    x = torch.randn(3, 9)
    mask = torch.zeros(3, 9)
    mask[:, 5:] = hidden
    found = functional.softmax(x, mask=mask)
    assert (found[:, 5:] <= 2.0**-125).all()
    torch.testing.assert_close(found[:, :5], x[:, :5].softmax(-1), rtol=2e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_row_that_is_masked_altogether_is_no_nan(dtype: torch.dtype) -> None:
    x = torch.randn(3, 4, 9).to(dtype).requires_grad_()
    seen = torch.rand(3, 4, 9) > 0.5
    seen[..., 0] = True
    seen[1, 2] = False
    y = functional.softmax(x, mask=seen)
    assert not y.isnan().any()
    assert (y[seen.logical_not() & seen.any(-1, keepdim=True)] == 0).all() or dtype != torch.float16
    (found,) = torch.autograd.grad(y, x, torch.randn_like(y))
    assert not found.isnan().any()
    z = functional.softmax(x[..., :2], causal=True)
    assert not z.isnan().any()
    (found,) = torch.autograd.grad(z, x, torch.randn_like(z))
    assert not found.isnan().any()


def test_logits_far_apart_and_an_infinite_one() -> None:
    x = torch.tensor([[1e38, -1e38, 0.0], [88.0, -88.0, 0.0], [0.0, -torch.inf, 1.0]])
    target = torch.tensor([0, 0, 2])
    expected = torch.nn.functional.cross_entropy(x.double(), target, reduction="none")
    found = functional.cross_entropy(x, target, reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_ignored_targets_have_no_loss_and_no_gradient() -> None:
    x = torch.randn(4, 9, requires_grad=True)
    x.data[2] = torch.nan
    target = torch.tensor([3, -100, -100, 8])
    assert torch.equal(functional.cross_entropy(x, target, reduction="none")[1:3], torch.zeros(2))
    loss = functional.cross_entropy(x, target)
    expected = torch.nn.functional.cross_entropy(x[::3].detach().double(), target[::3])
    torch.testing.assert_close(loss.double(), expected, rtol=0, atol=1e-6)
    loss.backward()
    assert x.grad is not None
    assert not x.grad[1].any()
    other = functional.cross_entropy(x[:2], torch.tensor([3, 7]), ignore_index=7)
    assert torch.equal(other, functional.cross_entropy(x[:1], target[:1]))


def _kernel_of(name: str, error: float) -> Kernel:
    return Kernel("one_function", (Output("y", kernel_function(name, error)(input_elements("x"))),))


POSITIVE = ("log", "rsqrt")


@pytest.mark.parametrize("error", [1e-4, 3e-7])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_over_all_floats(name: str, error: float) -> None:
    """Every exponent with random significands, and every boundary with its neighbours."""
    random = torch.randint(0, 2**23, (255 * 8,), dtype=torch.int32)
    exponents = torch.arange(255, dtype=torch.int32).repeat_interleave(8) << 23
    x = (random + exponents).view(torch.float32)
    edges = torch.tensor([e for e in EDGES if abs(e) != torch.inf])
    around = [torch.nextafter(edges, edges.new_tensor(end)) for end in (-torch.inf, torch.inf)]
    x = torch.cat([x, -x, edges, *around])
    x = x[x.isfinite()]
    if name in POSITIVE:
        x = x[x >= 2.0**-126]
    _check_function(name, error, x)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_floats_that_hypothesis_thinks_of(name: str, data: Any) -> None:
    least = 2.0**-126 if name in POSITIVE else -LARGEST
    floats = st.floats(least, LARGEST, width=32, allow_nan=False)
    _check_function(name, 1e-4, torch.tensor(data.draw(st.lists(floats, min_size=1))))


def _check_function(name: str, error: float, x: Tensor) -> None:
    kernel = _kernel_of(name, error)
    (found,) = launch.run_kernel(kernel, {"x": x}, x.shape, [torch.float32])
    bound = kernel_bounds(kernel, {"x": exact(x)}, x.shape)["y"]
    assert_within(found, bound.value, bound.error, name)


def test_halves_are_rounded_to_even_as_torch_does() -> None:
    kernel = Kernel("halves", (Output("y", round_half_even(input_elements("x"))),))
    x = torch.arange(-300, 300) / 4
    x = torch.cat([x, torch.tensor([2.0**21 + 0.5, 2.0**21 + 1.5, -(2.0**21) - 0.5])])
    (found,) = launch.run_kernel(kernel, {"x": x}, x.shape, [torch.float32])
    assert torch.equal(found, x.round())


def test_quotients_by_newtons_steps_are_within_three_ulps() -> None:
    """The bound of the running error analysis, on every exponent and densely around 1 and 2."""
    kernel = Kernel("quotient", (Output("y", input_elements("a") / input_elements("b")),))
    dense = torch.linspace(0.5, 4, 40_001)
    b = torch.cat([dense, dense * 2.0**100, dense * 2.0**-100, 2.0 ** torch.arange(-125.0, 126)])
    b = torch.cat([b, -b])
    a = torch.randn(b.shape)
    (found,) = launch.run_kernel(kernel, {"a": a, "b": b}, b.shape, [torch.float32], "newton")
    operands = {"a": exact(a), "b": exact(b)}
    bound = kernel_bounds(kernel, operands, b.shape, "newton")["y"]
    assert_within(found, bound.value, bound.error)
    ulp = 2.0**-23 * bound.value.abs()
    normal = ulp > 2.0**-149
    assert (bound.error[normal] <= 3 * ulp[normal] + 2.0**-149).all()
