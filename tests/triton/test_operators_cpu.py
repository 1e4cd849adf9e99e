"""Operators on a CPU: the same terms in torch, their derivatives, and what torch makes of them."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch

from odp.backends.torch.discovery import Operations
from odp.backends.triton import functional
from odp.backends.triton.operators import defined
from odp.backends.triton.precision import default_error
from odp.kernels.functions import kernel_function
from odp.kernels.registry import OPERATORS

from .checks import DTYPES, assert_within, check_case, incoming_of
from .references import DOUBLE, REFERENCES, Case, case_of, rotated

Tensor = torch.Tensor
DIFFERENTIABLE = [name for name, o in OPERATORS.items() if o.backward is not None]


def required(case: Case) -> list[Tensor]:
    """The operands that have a gradient, with requires_grad."""
    return [x.requires_grad_() for n in case.differentiable if (x := case.tensors[n]) is not None]


def test_every_operator_has_a_reference() -> None:
    assert set(REFERENCES) == set(OPERATORS)


@pytest.mark.parametrize("exact", [False, True], ids=["identity", "exact"])
@pytest.mark.parametrize("optional", [False, True], ids=["all", "few"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_results_and_gradients_are_within_the_bound(
    name: str, dtype: torch.dtype, optional: bool, exact: bool
) -> None:
    error = default_error(dtype)
    check_case(case_of(name, (2, 3, 70), dtype, error=error, optional=optional, exact=exact))


@pytest.mark.parametrize("error", [1e-2, 1e-4, 3e-7])
@pytest.mark.parametrize("name", OPERATORS)
def test_float64_is_off_by_what_is_certified_and_nothing_else(name: str, error: float) -> None:
    case = case_of(name, (3, 5, 33), torch.float64, error=error)
    leaves = required(case)
    outputs = case.outputs()
    names = list(outputs)[: OPERATORS[name].results]
    for output, true, bound in zip(names, case.true(), case.function_errors(), strict=True):
        assert_within(outputs[output], true, bound + DOUBLE * true.abs().amax(), output)
    if not leaves:
        return
    incoming = incoming_of(case, outputs)
    found = torch.autograd.grad([outputs[n] for n in incoming], leaves, list(incoming.values()))
    true_gradients, bounds = case.true_gradients(incoming), case.gradient_function_errors(incoming)
    for operand, gradient in zip(case.differentiable, found, strict=True):
        true = true_gradients[operand]
        slack = DOUBLE * (true.abs().amax() + case.shape[0] * case.shape[1])
        assert_within(gradient, true, bounds[operand] + slack, f"gradient of {operand}")


# A softmax does not differentiate its largest score: exact is a matter of the error of exp there.
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_exact_gradients_are_those_of_the_approximation(name: str) -> None:
    error = 1e-7 if "exp" in OPERATORS[name].functions else 1e-2
    case = case_of(name, (2, 4, 5), torch.float64, error=error, exact=True)
    required(case)
    results = OPERATORS[name].results
    forward = defined[name].forward

    def run(*tensors: Tensor) -> Any:
        found = forward(*tensors, *case.parameters)
        return found[:results] if isinstance(found, tuple) else found

    assert torch.autograd.gradcheck(run, tuple(case.tensors.values()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["silu", "gelu_tanh", "rms_norm", "layer_norm"])
def test_a_coarse_function_has_other_exact_gradients_than_by_identity(name: str) -> None:
    """What the test above could not fail without."""
    case = case_of(name, (2, 4, 5), torch.float64, error=1e-2)
    leaves = required(case)
    found = [
        torch.autograd.grad(replace(case, exact=exact).run()[0].square().sum(), leaves)[0]
        for exact in (False, True)
    ]
    assert (found[0] - found[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", OPERATORS)
def test_torch_approves(name: str) -> None:
    for optional in (True, False):
        case = case_of(name, (2, 3, 9), optional=optional)
        required(case)
        torch.library.opcheck(defined[name].forward, case.arguments)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_torch_approves_of_backward(name: str) -> None:
    case = case_of(name, (2, 3, 9))
    outputs = case.outputs()
    backward = defined[name].backward
    assert backward is not None
    saved = [outputs[n] for n in OPERATORS[name].saved]
    incoming = incoming_of(case, outputs).values()
    flags = [True] * len(defined[name].differentiable)
    for wanted in (flags, [False, *flags[1:]], [True, *(False for _ in flags[1:])]):
        torch.library.opcheck(backward, (*incoming, *saved, *case.arguments, wanted))


@pytest.mark.parametrize("name", OPERATORS)
def test_strides_are_as_torch_was_told(name: str) -> None:
    case = case_of(name, (4, 3, 9))
    tensors = dict(case.tensors)
    for operand in OPERATORS[name].operands:
        x = tensors[operand.name]
        if operand.kind == "elements" and x is not None:
            tensors[operand.name] = x.transpose(0, 1).contiguous().transpose(0, 1)
    case = replace(case, tensors=tensors)
    required(case)
    torch.library.opcheck(defined[name].forward, case.arguments)


@pytest.mark.parametrize("name", OPERATORS)
def test_compiled_in_one_graph(name: str) -> None:
    case = case_of(name, (2, 3, 9))
    leaves = required(case)
    results = OPERATORS[name].results

    def run(*tensors: Tensor) -> Any:
        found = defined[name].forward(*tensors, *case.parameters)
        return found[:results] if isinstance(found, tuple) else (found,)

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    expected, found = run(*case.tensors.values()), compiled(*case.tensors.values())
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)
    if leaves:
        incoming = [torch.randn_like(x) for x in expected]
        for a, b in zip(
            torch.autograd.grad(expected, leaves, incoming),
            torch.autograd.grad(found, leaves, incoming),
            strict=True,
        ):
            assert torch.equal(a, b)


def test_compiled_by_inductor_for_any_number_of_rows() -> None:
    def block(x: Tensor, weight: Tensor, up: Tensor) -> Tensor:
        return functional.swiglu(functional.rms_norm(x, weight) * 2, up).relu()

    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, dynamic=True)
    weight = torch.randn(9)
    for rows in (3, 5, 6):
        x, up = torch.randn(rows, 9, requires_grad=True), torch.randn(rows, 9)
        expected, found = block(x, weight, up), compiled(x, weight, up)
        torch.testing.assert_close(found, expected)
        d = torch.randn(rows, 9)
        (a,), (b,) = (torch.autograd.grad(y, x, d) for y in (expected, found))
        torch.testing.assert_close(b, a)


class Calls(torch.nn.Module):
    """One operator, called as users call it."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        others = [x[:1] + 1] if self.call in ("swiglu", "geglu", "add_rms_norm") else []
        found = getattr(functional, self.call)(x, *others)
        return found if isinstance(found, Tensor) else found[0]


@pytest.mark.parametrize(
    "call",
    ["silu", "gelu", "swiglu", "geglu", "softmax", "rms_norm", "layer_norm", "add_rms_norm"],
)
def test_an_exported_program_has_one_node_and_can_be_saved(call: str) -> None:
    x = torch.randn(3, 9)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Calls(call), (x,), dynamic_shapes={"x": {0: batch}})
    operators = [
        str(node.target)
        for node in program.graph.nodes
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)
    ]
    assert [o for o in operators if not o.startswith(("aten.slice.", "aten.add."))] == [
        f"odp.{call}.default"
    ]
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer)
    y = torch.randn(5, 9)
    assert torch.equal(loaded.module()(y), Calls(call)(y))


@pytest.mark.parametrize("name", OPERATORS)
def test_nothing_transcendental_runs(name: str) -> None:
    for exact in (False, True):
        case = case_of(name, (2, 3, 9), exact=exact)
        leaves = required(case)
        with Operations() as operations:
            results = case.run()[: OPERATORS[name].results]
            if leaves:
                torch.autograd.grad(results, leaves, [torch.ones_like(x) for x in results])
        assert operations.all
        assert not operations.transcendental


def test_nothing_transcendental_runs_in_what_users_call() -> None:
    x, target = torch.randn(2, 3, 8, requires_grad=True), torch.randint(0, 8, (2, 3))
    q, table = torch.randn(1, 2, 3, 8), torch.randn(3, 8)
    with Operations() as operations:
        functional.softmax(x, 1, mask=torch.rand(2, 3, 8) > 0.5).sum().backward()
        functional.softmax(x, causal=True).sum().backward()
        functional.cross_entropy(x, target).backward()
        functional.rope(q, q, table, table)
    assert operations.all
    assert not operations.transcendental


def test_vmap() -> None:
    x = torch.randn(4, 3, 9)
    for function in (functional.silu, functional.rms_norm, functional.softmax):
        assert torch.equal(torch.vmap(function)(x), function(x))


def test_autocast_leaves_operators_alone() -> None:
    x, weight = torch.randn(3, 9), torch.randn(9)
    expected = functional.rms_norm(x, weight), functional.silu(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = functional.rms_norm(x, weight), functional.silu(x)
    for a, b in zip(expected, found, strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a, b)


def test_operands_of_different_types_are_promoted() -> None:
    x = torch.randn(3, 9).bfloat16().requires_grad_()
    weight = torch.randn(9, requires_grad=True)
    y = functional.rms_norm(x, weight)
    assert y.dtype == torch.float32
    y.sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    assert (x.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)
    expected = torch.nn.functional.rms_norm(x.float(), (9,), weight, 1e-6)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("exact", [False, True], ids=["identity", "exact"])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_gradient_of_only_one_operand(name: str, exact: bool) -> None:
    case = case_of(name, (2, 3, 9), exact=exact)
    together = required(case)
    d = torch.randn(2, 3) if name == "cross_entropy" else torch.randn(2, 3, 9)
    expected = torch.autograd.grad(case.run()[0], together, d)
    for operand, gradient in zip(case.differentiable, expected, strict=True):
        tensors = {n: None if x is None else x.detach() for n, x in case.tensors.items()}
        leaf = tensors[operand]
        assert leaf is not None
        alone = replace(case, tensors={**tensors, operand: leaf.requires_grad_()})
        assert torch.equal(torch.autograd.grad(alone.run()[0], leaf, d)[0], gradient)


def test_the_second_result_of_add_rms_norm_has_a_gradient() -> None:
    x, residual = (torch.randn(2, 9, requires_grad=True) for _ in range(2))
    y, total = functional.add_rms_norm(x, residual)
    d = torch.randn(2, 9)
    for leaf in (x, residual):
        (found,) = torch.autograd.grad(total, leaf, d, retain_graph=True)
        assert torch.equal(found, d)
    (first,) = torch.autograd.grad(y, x, d, retain_graph=True)
    (both,) = torch.autograd.grad([y, total], x, [d, d])
    torch.testing.assert_close(both, first + d)


def test_results_for_the_derivative_alone_and_integers_have_no_gradient() -> None:
    x = torch.randn(2, 9, requires_grad=True)
    for name in ("rms_norm", "layer_norm", "cross_entropy"):
        case = case_of(name, (2, 9))
        required(case)
        first, *others = case.run()
        assert first.requires_grad
        assert not any(other.requires_grad for other in others)
    quantised, scale = functional.rms_norm_quantised(x.detach())
    assert not quantised.requires_grad
    assert not scale.requires_grad


def test_a_quantised_row_is_in_eight_bits_with_its_scale() -> None:
    x = torch.randn(4, 9)
    x[1] = 0
    quantised, scale = functional.rms_norm_quantised(x)
    assert (quantised.dtype, scale.dtype, scale.shape) == (torch.int8, torch.float32, (4, 1))
    assert (quantised.abs().amax(-1) == torch.tensor([127, 0, 127, 127])).all()
    expected = torch.nn.functional.rms_norm(x, (9,), None, 1e-6)
    assert ((quantised / scale - expected).abs() <= 0.5001 / scale + 3e-7 * expected.abs()).all()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_second_derivative_is_refused(name: str) -> None:
    case = case_of(name, (2, 9))
    leaves = required(case)
    y = case.run()[0]
    with pytest.raises(RuntimeError, match=f"odp.{name}_backward"):
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        torch.autograd.grad(first[0].sum(), leaves)


def test_the_default_error_goes_with_the_type() -> None:
    x = torch.linspace(-5, 5, 1001)
    for dtype in (*DTYPES, torch.float64):
        text = kernel_function("sigmoid", default_error(dtype)).text
        expected = defined["silu"].forward(x.to(dtype), text, "fast", False)
        assert torch.equal(functional.silu(x.to(dtype)), expected)
    wide = x.double()
    errors = [
        (functional.silu(wide, error=error) - torch.nn.functional.silu(wide)).abs().max()
        for error in (1e-2, 1e-4, 1e-6)
    ]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_in_float64(interleaved: bool) -> None:
    q, k = (torch.randn(2, h, 3, 10, dtype=torch.float64, requires_grad=True) for h in (3, 2))
    angles = torch.randn(3, 4, dtype=torch.float64)
    angles = angles.repeat_interleave(2, -1) if interleaved else torch.cat([angles, angles], -1)
    cos, sin = angles.cos(), angles.sin()

    def run(q: Tensor, k: Tensor) -> Any:
        return functional.rope(q, k, cos, sin, interleaved=interleaved)

    for found, x in zip(run(q, k), (q, k), strict=True):
        torch.testing.assert_close(found, rotated(x, cos, sin, interleaved))
    assert torch.autograd.gradcheck(run, (q, k))
    torch.library.opcheck(torch.ops.odp.rope.default, (q, k, cos, sin, interleaved))
    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(q, k), run(q, k), strict=True):
        assert torch.equal(found, expected)
