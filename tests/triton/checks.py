"""What every path of every operator has to satisfy; the tests say which path."""

from __future__ import annotations

import torch

from odp.backends.triton.operators import defined
from odp.kernels.registry import OPERATORS

from .references import Case
from .running_error import UNIT, Bound, stored

__all__ = [
    "DTYPES",
    "assert_within",
    "check_case",
    "check_gradients",
    "check_results",
    "incoming_of",
]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def assert_within(
    found: torch.Tensor, expected: torch.Tensor, error: torch.Tensor, what: str = ""
) -> None:
    """Compare element by element; a bound that is no number is no bound."""
    assert error.isfinite().all(), f"{what}: no bound"
    assert found.shape == expected.shape, f"{what}: {found.shape} instead of {expected.shape}"
    difference = (found.detach().double() - expected).abs()
    excess = torch.where(difference <= error, 0.0, difference - error)
    assert not excess.any(), (
        f"{what}: off by {difference.flatten()[excess.argmax()]:.3g} where "
        f"{error.expand_as(excess).flatten()[excess.argmax()]:.3g} is allowed, "
        f"at {int((excess != 0).sum())} of {excess.numel()} elements"
    )


def check_results(case: Case, outputs: dict[str, torch.Tensor] | None = None) -> None:
    """All outputs against the same terms in exact arithmetic, results against the true function."""
    outputs, bounds = case.outputs() if outputs is None else outputs, case.forward_bounds()
    for name, found in outputs.items():
        assert_within(found, bounds[name].value, bounds[name].error, f"{case.name}: {name}")
    names = list(outputs)[: OPERATORS[case.name].results]
    for name, true, error in zip(names, case.true(), case.function_errors(), strict=True):
        allowed = bounds[name].error + error
        assert_within(outputs[name], true, allowed, f"{case.name}: true {name}")


def check_case(case: Case) -> None:
    """Results, and gradients if there are any."""
    if case.differentiable:
        check_gradients(case)
    else:
        check_results(case)


def incoming_of(case: Case, outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Derivatives that come in for the results that a user gets."""
    names = list(outputs)[: OPERATORS[case.name].results]
    return {name: torch.randn_like(outputs[name]) for name in names}


def check_gradients(case: Case) -> None:
    """Results, and gradients through autograd, against exact arithmetic and the true function."""
    assert defined[case.name].backward is not None
    leaves = {}
    for name in case.differentiable:
        tensor = case.tensors[name]
        assert tensor is not None
        leaves[name] = tensor.requires_grad_()
    outputs = case.outputs()
    check_results(case, outputs)
    incoming = incoming_of(case, outputs)
    found = torch.autograd.grad(
        [outputs[name] for name in incoming], list(leaves.values()), list(incoming.values())
    )
    bounds, true = case.backward_bounds(incoming), case.true_gradients(incoming)
    functions = case.gradient_function_errors(incoming)
    for gradient, (name, leaf) in zip(found, leaves.items(), strict=True):
        assert gradient.dtype == leaf.dtype
        assert gradient.shape == leaf.shape
        bound = _over_broadcast(bounds[name], leaf)
        assert_within(gradient, bound.value, bound.error, f"{case.name}: gradient of {name}")
        if not case.exact:
            exact = true[name].sum_to_size(leaf.shape)
            allowed = bound.error + functions[name].sum_to_size(leaf.shape)
            assert_within(gradient, exact, allowed, f"{case.name}: true gradient of {name}")


def _over_broadcast(bound: Bound, leaf: torch.Tensor) -> Bound:
    """What was broadcast gets a sum of stored gradients, rounded once more."""
    if bound.value.shape == leaf.shape:
        return bound
    value, error, size = (
        x.sum_to_size(leaf.shape) for x in (bound.value, bound.error, bound.value.abs())
    )
    chain = bound.value.numel() // leaf.numel()
    return stored(Bound(value, error + chain * UNIT * (size + error)), leaf.dtype)
