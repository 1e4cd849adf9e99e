"""Rewriting in tests: cheap expressions, and the bounds that follow from what they declare."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odp.backends.torch.call_signature import bind, named
from odp.backends.torch.export import export_module
from odp.backends.torch.function_call import AttentionCall, FunctionCall
from odp.backends.torch.graph_target import GraphTarget
from odp.backends.torch.inputs import Inputs
from odp.backends.torch.program import Program
from odp.backends.torch.rational_calls import RationalCalls
from odp.backends.torch.rewritten_module import RewrittenGraph, attribute
from odp.passes import registry
from odp.rewriter.calibration import Recorder
from odp.rewriter.fx_graph import FxGraph
from odp.rewriter.manager import rewrite_graph, schedule
from odp.rewriter.pass_options import parse_passes
from odp.rewriter.selection import Choice
from odp.rewriter.site import Request

from .running_error import Bound, bounds_of

__all__ = ["STRUCTURES", "Analysed", "assert_within", "cheap", "choices_of"]

STRUCTURES = ("graph", "modules")


def cheap(*names: str) -> str:
    """Passes with one expression for each function, good to about 1e-4, instead of a search."""
    known = names or [name for name, kind in registry().items() if kind.in_all]
    return ",".join(f"{name}{{scheme=minimax,numerator=4,denominator=4}}" for name in known)


def choices_of(model: torch.nn.Module) -> Mapping[str, Choice]:
    """What stands at each site of a rewritten module."""
    found: dict[str, Choice] = {}
    for module in model.modules():
        if isinstance(module, RewrittenGraph):
            recipe: Any = module.odp_call.retrace
            found |= recipe.selection.choices
    for call in _calls(model):
        finish: Any = call.finish
        found |= finish.implementation._choices
    return found


class Analysed:
    """A module with native functions at its sites, whose outputs can be bounded.

    Attributes:
        module: a copy of the original, or of the rewritten module that keeps its class.
        choices: what stands at the sites of the rewritten module.
        sites: every site by id.
    """

    def __init__(
        self, original: torch.nn.Module, rewritten: torch.nn.Module, inputs: Inputs, passes: str
    ) -> None:
        """Analyse how `rewritten`, made of `original` with `passes`, runs on such inputs."""
        requests = schedule(parse_passes(passes, registry()), registry())
        recorder = Recorder()
        self.choices = choices_of(rewritten)
        if isinstance(rewritten, RewrittenGraph):
            self.module = copy.deepcopy(original)
            recipe: Any = rewritten.odp_call.retrace
            target = GraphTarget(self.module, requests, inputs, recipe.dynamic_shapes)
            self._program = target.program
            rewrite_graph(self._program.graph, requests, recorder)
        else:
            self.module = copy.deepcopy(rewritten)
            self._program = _exported(self.module, inputs, requests, recorder)
        self._program.graph.recompile()
        self.sites = recorder.sites

    def native(self, inputs: Inputs) -> Any:
        """What the graph with native functions returns."""
        results = self._program.graph.module(*self._placeholders(inputs))
        return self._unflattened(results)

    def bounds(self, inputs: Inputs, *, native: bool = False) -> Any:
        """The outputs with what stands at the sites, floating-point tensors as `Bound`.

        With `native`, what stands there is the function itself.
        """
        choices = {} if native else self.choices
        placeholders = self._placeholders(inputs)
        results = bounds_of(self._program.graph, placeholders, self.sites, choices)
        return self._unflattened(results)

    def _placeholders(self, inputs: Inputs) -> list[Any]:
        signature = self._program.signature
        bound = named(bind(self.module.forward, inputs.args, inputs.kwargs or {}))
        leaves = signature.flatten([bound[name] for name in signature.arguments])
        return [*(attribute(self.module, name) for name in signature.tensors), *leaves]

    def _unflattened(self, results: Any) -> Any:
        signature = self._program.signature
        return pytree.tree_unflatten(list(results[len(signature.written) :]), signature.output_spec)


def _exported(
    module: torch.nn.Module, inputs: Inputs, requests: list[Request], recorder: Recorder
) -> Program:
    """A module whose calls become native functions with tags, as one graph."""

    def record(graph: FxGraph) -> None:
        rewrite_graph(graph, requests, recorder)

    for call in _calls(module):
        call.use(record)
    bound = bind(module.forward, inputs.args, inputs.kwargs or {})
    exported = export_module(module, bound.args, bound.kwargs)
    return Program.of(exported, named(bound))


def _calls(module: torch.nn.Module) -> list[FunctionCall]:
    found = []
    for part in module.modules():
        if isinstance(part, RationalCalls):
            for call in part.odp_calls.values():
                found.append(call.softmax if isinstance(call, AttentionCall) else call)
    return found


def assert_within(actual: Any, bounds: Any, *, scale: float = 1.0) -> None:
    """Every floating-point result is within its bound of the exact value.

    Args:
        actual: results of a rewritten module, any structure.
        bounds: of the same structure, with `Bound` where tensors of floating point are.
        scale: how many bounds away a result may be.
    """
    found, spec = pytree.tree_flatten(actual)
    expected, expected_spec = pytree.tree_flatten(bounds, is_leaf=lambda x: isinstance(x, Bound))
    assert len(found) == len(expected), (spec, expected_spec)
    for one, bound in zip(found, expected, strict=True):
        if not isinstance(bound, Bound):
            assert torch.equal(one, bound) if isinstance(bound, torch.Tensor) else one == bound
            continue
        assert bound.error.isfinite().all(), "no bound is known"
        excess = (one.detach().double() - bound.value).abs() - scale * bound.error
        worst = float(excess.max()) if excess.numel() else 0.0
        assert worst <= 0.0, f"{worst:.2g} over the bound of {float(bound.error.max()):.2g}"
