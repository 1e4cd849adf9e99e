"""Sites: the places where a function is replaced, and the builder that passes emit through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from odp.approximations.expression import Expression
from odp.approximations.interval import Interval
from odp.rewriter.graph import Builder, Graph, Node, Value
from odp.rewriter.pattern import Match
from odp.rewriter.rewrite_pass import Pass

__all__ = ["EVERYWHERE", "Implementation", "Request", "Site", "SiteBuilder"]

EVERYWHERE = Interval(float("-inf"), float("inf"))


@dataclass(frozen=True)
class Request:
    """A pass together with the name under which the user asked for it.

    Attributes:
        rewrite: the pass that matches and rewrites.
        typed: what the user typed; `exp` also asks for the softmax pass, for the exp inside.
        functions: elementary functions to replace; None for all that the pass meets.
        patterns: names of the patterns to try.
    """

    rewrite: Pass
    typed: str
    functions: frozenset[str] | None
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """One function at one place of one graph.

    Attributes:
        id: stable: the same model and passes give the same ids, on every clone.
        request: who asked for it.
        pattern: name of the pattern that matched.
        function: name in `odp.approximations.FUNCTIONS`.
        hint: interval in which the mathematics puts every input (softmax: x - max <= 0).
        cover: interval that the approximant must hold on in any case, or None.
        maskable: inputs far below the domain are attention masks, not data.
        masks_finite: the masks in this graph are small numbers now, and need no clip.
        summed: number of results that are added up, errors included; 1 if none are.
        node: name of the root of the match.
        module_path: of the root.
        graph_path: of the root.
        module_type: class of the module of the root.
    """

    id: str
    request: Request
    pattern: str
    function: str
    hint: Interval
    cover: Interval | None
    maskable: bool
    masks_finite: bool
    summed: int
    node: str
    module_path: str
    graph_path: str
    module_type: str = ""


class Implementation(Protocol):
    """Decides what `SiteBuilder.function` emits."""

    def function(self, site: Site, x: Value, builder: Builder) -> Value:
        """Emit `site.function` at `x`."""

    @property
    def mask_value(self) -> float | None:
        """Finite number that stands in for an attention mask, or None to leave masks alone."""


@dataclass
class Outcome:
    """What one pass, as typed, did to one graph."""

    patterns: dict[str, int] = field(default_factory=dict)
    sites: list[str] = field(default_factory=list)
    folded: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class SiteBuilder(Builder):
    """A `Builder` that can also emit functions; one for each match."""

    def __init__(
        self,
        graph: Graph,
        match: Match,
        request: Request,
        pattern: str,
        number: int,
        implementation: Implementation,
        outcome: Outcome,
    ) -> None:
        self.graph = graph
        self._match = match
        self._request = request
        self._pattern = pattern
        self._prefix = f"{request.typed}/{graph.scope}{pattern}/{number}"
        self._implementation = implementation
        self._outcome = outcome
        self._used: dict[str, int] = {}
        self._builder = graph.builder(match.root, self._tags(self._prefix))

    def op(self, name: str, *inputs: Value | None, **attributes: Any) -> Value:
        return self._builder.op(name, *inputs, **attributes)

    def op_with_outputs(
        self, name: str, count: int, *inputs: Value | None, **attributes: Any
    ) -> tuple[Value, ...]:
        return self._builder.op_with_outputs(name, count, *inputs, **attributes)

    def constant(self, array: Any, dtype: str) -> Value:
        return self._builder.constant(array, dtype)

    def expression(self, expression: Expression, x: Value) -> Value:
        return self._builder.expression(expression, x)

    def function(
        self,
        name: str,
        x: Value,
        *,
        domain: Interval = EVERYWHERE,
        cover: Interval | None = None,
        replaces: str | None = None,
        share: str | None = None,
        maskable: bool = False,
        masks_finite: bool = False,
        summed: int = 1,
    ) -> Value:
        """Emit a function of the library at `x`.

        Args:
            name: function in `odp.approximations.FUNCTIONS`.
            x: operand, any shape, floating point.
            domain: interval that contains every possible input, as far as mathematics knows it.
            cover: interval that the approximant must hold on, whatever calibration sees.
            replaces: elementary function the user would name for it, if that is not `name`: the
                gate of a GELU is `normal_cdf`, and replaces `erf`.
            share: sites of one match with the same `share` use one domain and one approximant, as
                the time steps of a recurrent layer do.
            maskable: whether inputs far below the domain are attention masks.
            masks_finite: whether `finite_mask` has replaced the masks that reach `x`; the others
                are clipped even without a guard, because no expression survives them.
            summed: number of results that are added up, as a softmax adds a row.
        """
        folded = self._fold_function(name, x)
        if folded is not None:
            return folded
        wanted = self._request.functions
        node = self._match.root
        site = Site(
            id=self._site_id(name, share),
            request=self._request,
            pattern=self._pattern,
            function=name,
            hint=domain,
            cover=cover,
            maskable=maskable,
            masks_finite=masks_finite,
            summed=summed,
            node=node.name,
            module_path=node.module_path,
            graph_path=node.graph_path,
            module_type=node.module_type,
        )
        if wanted is not None and (replaces or name) not in wanted:
            from odp.rewriter.native import emit_native

            return emit_native(self._builder, name, x)
        if site.id not in self._outcome.sites[-8:]:
            self._outcome.sites.append(site.id)
        builder = self.graph.builder(node, self._tags(site.id) | {"odp.function": name})
        return self._implementation.function(site, x, builder)

    def builder_for(self, site_id: str) -> Builder:
        """A builder whose nodes carry the tags of one site."""
        return self.graph.builder(self._match.root, self._tags(site_id))

    @property
    def mask_value(self) -> float | None:
        """Finite number that stands in for an attention mask, or None to leave masks alone."""
        return self._implementation.mask_value

    def fold(self, value: Value) -> Value | None:
        """The constant that `value` always is, stored in the model; None if it can change."""
        array = self.graph.evaluate(value)
        if array is None:
            return None
        self._outcome.folded += 1
        return self._builder.constant(array, value.dtype or array.dtype.name)

    def _fold_function(self, name: str, x: Value) -> Value | None:
        """The function of something that no input reaches is a constant: nothing to approximate."""
        array = self.graph.evaluate(x)
        if array is None:
            return None
        from odp.approximations.functions.registry import get_function

        self._outcome.folded += 1
        exact = get_function(name).numpy(array.astype("float64"))
        return self._builder.constant(exact, x.dtype or "float32")

    def note(self, text: str) -> None:
        """Add a line to the report of this pass, once."""
        if text not in self._outcome.notes:
            self._outcome.notes.append(text)

    def _site_id(self, function: str, share: str | None) -> str:
        label = f"{function}.{share}" if share else function
        if share is None:
            self._used[function] = self._used.get(function, 0) + 1
            if self._used[function] > 1:
                label = f"{function}.{self._used[function]}"
        return f"{self._prefix}/{label}"

    def _tags(self, site_id: str) -> dict[str, str]:
        return {"odp.pass": self._request.typed, "odp.site": site_id}


def root_nodes(graph: Graph) -> dict[str, list[Node]]:
    """The nodes of a graph by operation, in topological order."""
    found: dict[str, list[Node]] = {}
    for node in graph.nodes():
        found.setdefault(node.op, []).append(node)
    return found
