"""A module that keeps its class: the transcendental functions in its submodules are rewritten."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional

from odp.approximations.errors import OdpError
from odp.backends.torch.bucket_table import bucket_outcome, tabulating_buckets
from odp.backends.torch.discovery import Discovery, Operations
from odp.backends.torch.eager import eagerly
from odp.backends.torch.function_call import AttentionCall, FunctionCall
from odp.backends.torch.inputs import Batches, Inputs, run
from odp.backends.torch.rational_calls import Calls, intercept
from odp.backends.torch.rational_class import original_class
from odp.backends.torch.rotary_table import tabulate
from odp.rewriter.calibration import Observation, Recorder
from odp.rewriter.fx_calibration import insert_observers
from odp.rewriter.fx_graph import FxGraph
from odp.rewriter.manager import Result, rewrite_graph
from odp.rewriter.selection import Approximating, Selection
from odp.rewriter.site import Implementation, Outcome, Request, Site

__all__ = ["ModulesTarget"]

_ATTENTION = torch.nn.functional.scaled_dot_product_attention
_ROTATIONS = frozenset({"sin", "cos"})


class _Rewriting:
    """Rewrites the graphs of calls, now and when a call meets new types later."""

    def __init__(
        self,
        requests: Sequence[Request],
        implementation: Implementation,
        explain: frozenset[str],
    ) -> None:
        self.requests = requests
        self.implementation = implementation
        self.explain = explain
        self.result = Result()
        self._seen: set[str] = set()

    def __call__(self, graph: FxGraph) -> None:
        result = rewrite_graph(graph, self.requests, self.implementation, self.explain)
        # A call with several graphs, one for each type of its tensors, counts once.
        if graph.scope not in self._seen:
            self._seen.add(graph.scope)
            self.result.include(result)

    def __getstate__(self) -> dict[str, Any]:
        # What was found is in the report, and its nodes need not be copied with every module.
        return self.__dict__ | {"result": Result()}


class ModulesTarget:
    """A module whose submodules call rational expressions in the place of some torch functions.

    Attributes:
        module: the module; it is changed from the start.
    """

    def __init__(
        self, module: torch.nn.Module, requests: Sequence[Request], example: Inputs
    ) -> None:
        """Run `module` once on `example` to see which functions it calls.

        Raises:
            OdpError: it does not run, or hides its softmax in a kernel.
        """
        self.module = module
        self.requests = requests
        self.example = example
        self._tables: dict[str, Outcome] = {}
        with tabulating_buckets(module, requests) as tabulated:
            self._operations = self._counted()
        if tabulated:
            self._tables["log"] = bucket_outcome(tabulated)
        self._paths = {m: path for path, m in module.named_modules(remove_duplicate=False)}
        discovery = Discovery(module)
        with discovery.watching():
            run(module, example)
            self._generate(example)
        self._calls: list[FunctionCall] = []
        for owner, functions in discovery.found.items():
            self._take(owner, functions)

    def operations(self) -> tuple[dict[str, int], dict[str, int]]:
        """Operators that one run on the example executed: all of them, and the transcendental."""
        return self._operations

    def calibrate(
        self, batches: Batches, advance: Callable[[], None]
    ) -> tuple[dict[str, Site], dict[str, Observation]]:
        """Find all sites and watch them while the module runs on data.

        Args:
            batches: inputs of any shape.
            advance: called after each batch.

        Raises:
            OdpError: the module does not run on an input.
        """
        recorder = Recorder()
        observations: dict[str, Observation] = {}

        def record(graph: FxGraph) -> None:
            rewrite_graph(graph, self.requests, recorder)
            for site_id in recorder.sites:
                observations.setdefault(site_id, Observation())
            insert_observers(graph, recorder, observations)
            recorder.values.clear()

        self._use(record)
        for inputs in batches:
            run(self.module, inputs)
            advance()
        self._generate(self.example)
        self._use(None)
        return recorder.sites, observations

    @contextlib.contextmanager
    def variant(
        self, selection: Selection, enabled: Collection[str] | None
    ) -> Iterator[Callable[[Inputs], Any]]:
        """The module with the expressions of some passes only, as a function of its inputs."""
        self._rewrite(Approximating(selection, enabled))
        yield lambda inputs: run(self.module, inputs)
        self._use(None)

    @contextlib.contextmanager
    def sites_alone(self, selection: Selection) -> Iterator[Callable[[Inputs], Any]]:
        """The module with the expressions of `selection`, and native at every other site.

        Only the calls of these sites are rewritten, which for one site of a language model takes
        milliseconds where a whole variant takes seconds.
        """
        scopes = {site_id.split("/", 2)[1] for site_id in selection.choices}
        calls = [call for call in self._calls if call.scope in scopes]
        rewriting = _Rewriting(self.requests, Approximating(selection), frozenset())
        for call in calls:
            call.use(rewriting)
        yield lambda inputs: run(self.module, inputs)
        for call in calls:
            call.use(None)

    def finish(
        self, selection: Selection, explain: frozenset[str] = frozenset()
    ) -> tuple[torch.nn.Module, Result]:
        """Rewrite for good."""
        result = self._rewrite(Approximating(selection), explain)
        for call in self._calls:
            for reason in call.untraceable.values():
                selection.warnings.append(f"{call.scope} has no graph and stays: {reason}")
        result.include(Result(outcomes=self._tables))
        if "rope" in self._tables:
            # What the passes could not see was done here.
            result.skipped["rope"] = []
        return self.module, result

    def _rewrite(
        self, implementation: Implementation, explain: frozenset[str] = frozenset()
    ) -> Result:
        rewriting = _Rewriting(self.requests, implementation, explain)
        self._use(rewriting)
        return rewriting.result

    def _use(self, finish: Callable[[FxGraph], None] | None) -> None:
        for call in self._calls:
            call.use(finish)

    def _counted(self) -> tuple[dict[str, int], dict[str, int]]:
        with Operations() as operations:
            run(self.module, self.example)
        for name in ("cond", "while_loop", "scan", "map_impl", "flex_attention"):
            if f"higher_order::{name}" in operations.all:
                raise OdpError(
                    f"{original_class(self.module).__name__} runs {name}, in which the functions "
                    "of modules cannot be replaced; use structure='graph'"
                )
        return (
            dict(sorted(operations.all.items())),
            dict(sorted(operations.transcendental.items())),
        )

    def _take(self, owner: torch.nn.Module, functions: Collection[Callable[..., Any]]) -> None:
        path, kind = self._paths[owner], original_class(owner).__name__
        rope = next((r for r in self.requests if r.rewrite.name == "rope"), None)
        if rope is not None and {f.__name__ for f in functions} >= _ROTATIONS:
            count = tabulate(owner, rope.rewrite)
            if count is not None:
                rotary = self._tables.setdefault("rope", Outcome())
                for pattern in ("rope_sin", "rope_cos"):
                    rotary.patterns[pattern] = rotary.patterns.get(pattern, 0) + 1
                rotary.folded += 2
                exact = rope.rewrite.scheme is None and rope.rewrite.formula is None
                kind = "exact tables" if exact else f"tables by {rope.rewrite.scheme or 'formula'}"
                rotary.notes = [f"sine and cosine became {kind} of {count:,} positions"]
                return
        calls: Calls = {}
        for function in functions:
            if function is _ATTENTION:
                attention = AttentionCall(path, kind)
                calls[function] = attention
                self._calls.append(attention.softmax)
            else:
                calls[function] = call = FunctionCall(function, path, kind)
                self._calls.append(call)
        intercept(owner, calls)

    def _generate(self, example: Inputs) -> None:
        """Let a language model decode two tokens: with a cache other functions may run."""
        ids = (example.kwargs or {}).get("input_ids", example.args[0] if example.args else None)
        if not callable(getattr(self.module, "generate", None)) or not isinstance(
            ids, torch.Tensor
        ):
            return
        can = getattr(self.module, "can_generate", None)
        if callable(can) and not can():
            return
        from odp.backends.torch.export import silenced

        # Whether and how a model generates is its own affair; it was run on its inputs before.
        with eagerly(), silenced(), contextlib.suppress(Exception):
            self.module.generate(ids[:1, :8], max_new_tokens=3, do_sample=False, pad_token_id=0)  # type: ignore[operator]
