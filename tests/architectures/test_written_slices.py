"""RWKV and Qwen3-Next write their results into slices of a tensor: such a graph trains, too."""

from __future__ import annotations

import pytest
import torch

import odp

from ..torch.rewriting import cheap

INPUTS = torch.linspace(-1.0, 1.0, 24).reshape(4, 6)


class Writing(torch.nn.Module):
    """Writes exponentials column by column, into another type, and one value over a whole row."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = torch.zeros_like(x, dtype=self.dtype)
        for column in range(3):
            result[:, column] = torch.exp(x[:, column])
        result[:, 3:] = 2.0 * x[:, 3:]
        result[0] = result[1, 2]
        return result.view(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_pass_through_what_was_written(dtype: torch.dtype) -> None:
    module = Writing(dtype)
    result = odp.rewrite(module, cheap("exp"), calibration=(INPUTS,), structure="graph")
    declared = max(chosen.absolute_error for chosen in result.report.approximants)
    outputs, gradients = [], []
    for model in (module, result.model):
        x = INPUTS.clone().requires_grad_()
        outputs.append(model(x))
        gradients.append(torch.autograd.grad(outputs[-1].sum(), x)[0])
    assert outputs[1].dtype == dtype
    # Each element is one exponential, or none.
    assert (outputs[1] - outputs[0]).abs().max() <= declared + 1e-6
    # A gradient that got lost on the way would be off by all of itself.
    assert (gradients[1] - gradients[0]).abs().max() < 1e-2 * gradients[0].abs().max()
    assert torch.equal(gradients[1] == 0.0, gradients[0] == 0.0)
