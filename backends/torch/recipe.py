"""How a rewritten module came about, so that it can be traced again for another type or device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odp.approximations.errors import OdpError
from odp.backends.torch.call_signature import bind, named
from odp.backends.torch.export import export_module
from odp.backends.torch.inputs import Inputs
from odp.backends.torch.program import Program
from odp.backends.torch.rational_class import original_class
from odp.rewriter.fx_graph import FxGraph
from odp.rewriter.manager import rewrite_graph
from odp.rewriter.selection import Approximating, Selection
from odp.rewriter.site import Request

__all__ = ["Prepare", "Recipe", "trace"]

Prepare = Callable[[FxGraph, Collection[str] | None], None]
"""Replaces parts of a graph before the passes look: those of some passes, or of all for None."""


def trace(module: torch.nn.Module, example: Inputs, dynamic_shapes: Any) -> Program:
    """Export a module and take the program apart, ready to be rewritten.

    Raises:
        OdpError: the inputs do not fit, or the module cannot be exported.
    """
    bound = bind(module.forward, example.args, example.kwargs or {})
    exported = export_module(module, bound.args, bound.kwargs, dynamic_shapes)
    return Program.of(exported, named(bound))


@dataclass(frozen=True)
class Recipe:
    """Traces and rewrites a module with the expressions that were chosen for its sites.

    Attributes:
        example: the inputs to trace with.
        dynamic_shapes: as for `torch.export.export`.
        requests: the passes.
        selection: what was chosen for each site.
        prepare: see `Prepare`.
    """

    example: Inputs
    dynamic_shapes: Any
    requests: Sequence[Request]
    selection: Selection
    prepare: Prepare | None = None

    def __call__(self, module: torch.nn.Module) -> Program:
        """Rewrite `module`, a rewritten module that was moved, from its original forward.

        Raises:
            OdpError: traced for its new type, the module has other sites than before.
        """
        with _as_original(module):
            program = trace(module, self._example_for(module), self.dynamic_shapes)
        if self.prepare is not None:
            self.prepare(program.graph, None)
        result = rewrite_graph(program.graph, self.requests, Approximating(self.selection))
        found = {site for outcome in result.outcomes.values() for site in outcome.sites}
        known = {*self.selection.choices, *self.selection.skipped}
        if found - known:
            raise OdpError(
                f"moved to another type the module has a site that calibration did not see "
                f"({min(found - known)}); move the original module and rewrite it again"
            )
        return program

    def _example_for(self, module: torch.nn.Module) -> Inputs:
        """The example inputs on the device, and floating-point ones in the type, of `module`."""
        reference = next((p for p in module.parameters() if p.is_floating_point()), None)
        if reference is None:
            return self.example

        def adapted(x: torch.Tensor) -> torch.Tensor:
            dtype = reference.dtype if x.is_floating_point() else x.dtype
            return x.to(device=reference.device, dtype=dtype)

        args, kwargs = pytree.tree_map_only(
            torch.Tensor, adapted, (self.example.args, dict(self.example.kwargs or {}))
        )
        return Inputs(args, kwargs)


@contextlib.contextmanager
def _as_original(module: torch.nn.Module) -> Iterator[None]:
    """Give a rewritten module its old class, without its graph, for as long as it is traced."""
    kind, graph = type(module), module._modules.pop("odp_graph")
    module.__class__ = original_class(module)
    try:
        yield
    finally:
        module.__class__ = kind
        module._modules["odp_graph"] = graph
