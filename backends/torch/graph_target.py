"""A module as one graph: what torch.export makes of it is calibrated, varied and rewritten."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from odp.approximations.errors import OdpError
from odp.backends.torch.bucket_table import bucket_outcome, tabulating_buckets
from odp.backends.torch.call_signature import bind, named
from odp.backends.torch.export import taken_apart
from odp.backends.torch.inputs import Batches, Inputs, run
from odp.backends.torch.program import Program
from odp.backends.torch.recipe import Prepare, Recipe, trace
from odp.backends.torch.rewritten_module import attribute, rewritten
from odp.rewriter.calibration import Observation, Recorder
from odp.rewriter.fx_calibration import insert_observers
from odp.rewriter.fx_graph import FxGraph
from odp.rewriter.manager import Result, rewrite_graph
from odp.rewriter.selection import Approximating, Selection
from odp.rewriter.site import Request, Site

__all__ = ["GraphTarget"]


class GraphTarget:
    """A module that becomes one rewritten graph behind its old forward.

    Attributes:
        module: the module; `finish` changes it.
        program: its traced program; `finish` rewrites it.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        requests: Sequence[Request],
        example: Inputs,
        dynamic_shapes: Any = None,
        program: torch.export.ExportedProgram | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        """Trace `module`, unless it was traced already: it is the module of `program` then.

        Whatever the passes shall not see any more, `prepare` replaces before them.

        Raises:
            OdpError: it cannot be exported with these inputs.
        """
        self.module = module
        self.requests = requests
        self.example = example
        self.dynamic_shapes = dynamic_shapes
        self._prepare = prepare
        self._retraceable = program is None and not isinstance(module, fx.GraphModule)
        self._tabulated: list[torch.nn.Module] = []
        if program is None:
            # Some modules prepare themselves in their first call (RWKV rescales its weights), which
            # must not become part of the graph.  Relative positions that are known become
            # constants anyway; those that depend on a size need their table.
            with tabulating_buckets(module, requests if dynamic_shapes else ()) as self._tabulated:
                run(module, example)
            self.program = trace(module, example, dynamic_shapes)
        else:
            bound = bind(module.forward, example.args, example.kwargs or {})
            self.program = Program.of(taken_apart(program), named(bound))

    @property
    def fused(self) -> Sequence[Any]:
        """What `prepare` says it replaced."""
        return getattr(self._prepare, "sites", ())

    @property
    def refused(self) -> Sequence[str]:
        """What `prepare` could not replace, and why."""
        return getattr(self._prepare, "refused", ())

    def operations(self) -> tuple[dict[str, int], dict[str, int]]:
        """Nodes of the graph by native type: all of them, and the transcendental ones."""
        return self.program.graph.operations(), self.program.graph.transcendental()

    def calibrate(
        self, batches: Batches, advance: Callable[[], None]
    ) -> tuple[dict[str, Site], dict[str, Observation]]:
        """Find all sites and watch them while the module runs on data.

        Args:
            batches: inputs of the shapes that the module was exported for.
            advance: called after each batch.

        Raises:
            OdpError: an input does not fit.
        """
        graph = self._prepared(self.program.graph.clone(), None)
        recorder = Recorder()
        rewrite_graph(graph, self.requests, recorder)
        observations = {site_id: Observation() for site_id in recorder.sites}
        insert_observers(graph, recorder, observations)
        for inputs in batches:
            self._run(graph.module, inputs)
            advance()
        return recorder.sites, observations

    @contextlib.contextmanager
    def variant(
        self, selection: Selection, enabled: Collection[str] | None
    ) -> Iterator[Callable[[Inputs], Any]]:
        """The module with the expressions of some passes only, as a function of its inputs."""
        graph = self._prepared(self.program.graph.clone(), enabled)
        rewrite_graph(graph, self.requests, Approximating(selection, enabled))
        graph.recompile()
        yield lambda inputs: self._run(graph.module, inputs)

    def finish(
        self, selection: Selection, explain: frozenset[str] = frozenset()
    ) -> tuple[torch.nn.Module, Result]:
        """Rewrite for good, and let `module` run the result."""
        graph = self._prepared(self.program.graph, None)
        result = rewrite_graph(graph, self.requests, Approximating(selection), explain)
        if self._tabulated:
            result.include(Result(outcomes={"log": bucket_outcome(self._tabulated)}))
        recipe = Recipe(self.example, self.dynamic_shapes, self.requests, selection, self._prepare)
        return rewritten(self.module, self.program, recipe if self._retraceable else None), result

    def _prepared(self, graph: FxGraph, enabled: Collection[str] | None) -> FxGraph:
        if self._prepare is not None:
            self._prepare(graph, enabled)
        return graph

    def _run(self, graph: fx.GraphModule, inputs: Inputs) -> Any:
        signature = self.program.signature
        arguments = named(bind(self.module.forward, inputs.args, inputs.kwargs or {}))
        example = named(bind(self.module.forward, self.example.args, self.example.kwargs or {}))
        extra = [name for name, value in arguments.items() if name not in example]
        if any(isinstance(arguments[name], torch.Tensor) for name in extra):
            raise OdpError(
                f"the calibration inputs have '{extra[0]}', which the example inputs of the graph "
                "do not; give it in example_inputs, or leave it out"
            )
        # Options that are no tensors, such as use_cache=False, are those of the example.
        values = [arguments.get(name, example[name]) for name in signature.arguments]
        leaves = signature.flatten(values)
        tensors = [attribute(self.module, name) for name in signature.tensors]
        with torch.no_grad():
            results = graph(*tensors, *leaves)
        return pytree.tree_unflatten(list(results[len(signature.written) :]), signature.output_spec)
