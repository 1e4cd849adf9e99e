"""What every path of every operator has to satisfy; the tests say which path."""

from __future__ import annotations

import torch

from odp.backends.triton.operators import defined
from odp.kernels.registry import OPERATORS

from .references import Case

__all__ = ["DTYPES", "assert_within", "check_gradients", "check_results", "incoming_of"]

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


def check_results(case: Case) -> dict[str, torch.Tensor]:
    """All outputs against the same terms in exact arithmetic, results against the true function."""
    outputs, bounds = case.outputs(), case.forward_bounds()
    for name, found in outputs.items():
        assert_within(found, bounds[name].value, bounds[name].error, f"{case.name}: {name}")
    names = list(outputs)[: OPERATORS[case.name].results]
    for name, true, error in zip(names, case.true(), case.function_errors(), strict=True):
        allowed = bounds[name].error + error
        assert_within(outputs[name], true, allowed, f"{case.name}: true {name}")
    return outputs


def incoming_of(case: Case, outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Derivatives that come in for the results that a user gets."""
    names = list(outputs)[: OPERATORS[case.name].results]
    return {name: torch.randn_like(outputs[name]) for name in names}


def check_gradients(case: Case) -> None:
    """Gradients through autograd, against exact arithmetic and the true function."""
    assert defined[case.name].backward is not None
    leaves = {}
    for name in case.differentiable:
        tensor = case.tensors[name]
        assert tensor is not None
        leaves[name] = tensor.requires_grad_()
    outputs = case.outputs()
    incoming = incoming_of(case, outputs)
    found = torch.autograd.grad(
        [outputs[name] for name in incoming], list(leaves.values()), list(incoming.values())
    )
    bounds, true = case.backward_bounds(incoming), case.true_gradients(incoming)
    functions = case.gradient_function_errors(incoming)
    for gradient, (name, leaf) in zip(found, leaves.items(), strict=True):
        assert gradient.dtype == leaf.dtype
        assert gradient.shape == leaf.shape
        # What was broadcast gets a sum, rounded once more.
        value, error, exact = (
            x.sum_to_size(leaf.shape) for x in (bounds[name].value, bounds[name].error, true[name])
        )
        if value.shape != bounds[name].value.shape:
            error = error + (torch.finfo(leaf.dtype).eps + 2.0**-17) * bounds[
                name
            ].value.abs().sum_to_size(leaf.shape)
        assert_within(gradient, value, error, f"{case.name}: gradient of {name}")
        if not case.exact:
            allowed = error + functions[name].sum_to_size(leaf.shape)
            assert_within(gradient, exact, allowed, f"{case.name}: true gradient of {name}")
