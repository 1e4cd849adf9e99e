"""A classifier before and after, in both structures, for the many tests that only look at it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

import odp
from odp.backends.torch.inputs import Inputs

from .modules import Classifier, numbers
from .rewriting import Analysed, cheap

__all__ = ["Pair", "classifier", "rewrite"]

PASSES = cheap("layer_norm", "gelu", "softmax", "sigmoid", "tanh", "exp", "silu", "log_softmax")


@dataclass(frozen=True)
class Pair:
    """A module and what became of it; tests that change one of them take a copy.

    Attributes:
        original: the module.
        model: the rewritten one.
        inputs: what both were run on.
        report: of the rewrite.
    """

    original: torch.nn.Module
    model: torch.nn.Module
    inputs: Inputs
    report: Any

    @functools.cached_property
    def analysed(self) -> Analysed:
        """The module with native functions at its sites."""
        return Analysed(self.original, self.model, self.inputs, PASSES)

    def bounds(self, *args: Any, **kwargs: Any) -> Any:
        """What the outputs may be for some inputs, from the declared errors."""
        return self.analysed.bounds(Inputs(args, kwargs))


def rewrite(
    module: torch.nn.Module,
    *args: Any,
    structure: str = "graph",
    options: Any = None,
    **kwargs: Any,
) -> Pair:
    """Rewrite a module on the inputs that follow it."""
    inputs = Inputs(args, kwargs)
    result = odp.rewrite(
        module,
        PASSES,
        example_inputs=inputs,
        structure=structure,  # type: ignore[arg-type]
        measure=False,
        **(options or {}),
    )
    return Pair(module, result.model, inputs, result.report)


@functools.cache
def classifier(structure: str) -> Pair:
    """The classifier in inference, on a batch of 3."""
    return rewrite(Classifier().eval(), numbers(3, 8), structure=structure)
