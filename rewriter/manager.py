"""The pass manager: which passes run, in which order, on which nodes, and what they leave alone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from odp.rewriter.graph import Graph, Node, Value
from odp.rewriter.pattern import Attempt, Match, match
from odp.rewriter.report import Skipped
from odp.rewriter.rewrite_pass import ELEMENTARY, Pass, Refusal, Replacement
from odp.rewriter.site import Implementation, Outcome, Request, SiteBuilder, root_nodes

__all__ = ["Result", "rewrite_graph", "schedule"]

_SHARED_OPTIONS = tuple(option.name for option in fields(Pass))


@dataclass
class Result:
    """What a run of the passes did.

    Attributes:
        outcomes: typed pass name to what it did.
        skipped: typed pass name to the nodes that it matched but left alone, with reasons.
        near_misses: typed pass name to the nodes that nearly matched; only for explained passes.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    skipped: dict[str, list[Skipped]] = field(default_factory=dict)
    near_misses: dict[str, list[Skipped]] = field(default_factory=dict)

    def include(self, other: Result) -> None:
        """Add what the same passes did to another graph of the same model."""
        for typed, outcome in other.outcomes.items():
            own = self.outcomes.setdefault(typed, Outcome())
            for pattern, count in outcome.patterns.items():
                own.patterns[pattern] = own.patterns.get(pattern, 0) + count
            own.sites.extend(outcome.sites)
            own.folded += outcome.folded
            own.seconds += outcome.seconds
            own.notes.extend(note for note in outcome.notes if note not in own.notes)
        for mine, theirs in (
            (self.skipped, other.skipped),
            (self.near_misses, other.near_misses),
        ):
            for typed, found in theirs.items():
                mine.setdefault(typed, []).extend(found)


def schedule(typed: Sequence[Pass], available: Mapping[str, type[Pass]]) -> list[Request]:
    """Order the passes that the user typed, and add the composites that contain what they replace.

    `exp` asks for every exp, also for the one inside a softmax; so the softmax pass is scheduled on
    its behalf, with the options of `exp`, to replace nothing but the exp.  Expansions come before
    composites and these before elementary functions, because a composite knows the domain of its
    parts; within a stage the order is the one typed.

    Args:
        typed: the passes with the options that the user gave them.
        available: every pass of the registry by name.
    """
    names = {rewrite.name for rewrite in typed}
    requests = [Request(rewrite, rewrite.name, None, tuple(rewrite.patterns)) for rewrite in typed]
    for rewrite in typed:
        if rewrite.stage != ELEMENTARY:
            continue
        for name, kind in available.items():
            if name in names or kind.stage == ELEMENTARY:
                continue
            containing = tuple(p for p, parts in kind.parts.items() if rewrite.name in parts)
            if containing:
                options = {key: getattr(rewrite, key) for key in _SHARED_OPTIONS}
                wanted = frozenset({rewrite.name})
                requests.append(Request(kind(**options), rewrite.name, wanted, containing))
    return _merged(sorted(requests, key=lambda request: request.rewrite.stage))


def _merged(requests: Iterable[Request]) -> list[Request]:
    """One request for a composite that several typed passes ask for (log_softmax: exp and log)."""
    merged: dict[tuple[str, tuple[str, ...]], Request] = {}
    for request in requests:
        key = (request.rewrite.name, request.patterns)
        first = merged.get(key)
        if first is None:
            merged[key] = request
        elif first.functions is not None and request.functions is not None:
            functions = first.functions | request.functions
            # The options are those of the first, but the formula of another must not be dropped
            # silently: `check_formula_sites` refuses it.
            formula = first.rewrite.formula or request.rewrite.formula
            rewrite = replace(first.rewrite, formula=formula)
            merged[key] = Request(rewrite, first.typed, functions, first.patterns)
    return list(merged.values())


def rewrite_graph(
    graph: Graph,
    requests: Sequence[Request],
    implementation: Implementation,
    explain: frozenset[str] = frozenset(),
) -> Result:
    """Run all passes on `graph`, in place.

    Args:
        graph: the graph to change.
        requests: from `schedule`.
        implementation: decides what a replaced function becomes.
        explain: names of passes whose near misses are wanted.
    """
    result = Result()
    # Nodes that a builder emits are never matched, so the index made at the start stays complete.
    roots = root_nodes(graph)
    refused: list[tuple[str, Node, Skipped]] = []
    for request in requests:
        started = time.perf_counter()
        outcome = result.outcomes.setdefault(request.typed, Outcome())
        # What softmax misses on behalf of exp, exp itself replaces: no near miss of exp.
        explaining = request.typed in explain and request.rewrite.name == request.typed
        run = _Run(graph, request, implementation, outcome, explaining)
        run.over(roots)
        refused.extend((request.typed, node, skipped) for node, skipped in run.refused)
        if run.changed:
            graph.remove_dead_nodes()
        if run.explaining:
            known = result.near_misses.setdefault(request.typed, [])
            known.extend(run.near_misses(roots))
        outcome.seconds += time.perf_counter() - started
        result.skipped.setdefault(request.typed, [])
    for typed, node, skipped in refused:
        # What rope refuses, sin and cos may take later; only what is left is worth a line.
        if node.is_alive:
            result.skipped[typed].append(skipped)
    return result


class _Run:
    """One request on one graph."""

    def __init__(
        self,
        graph: Graph,
        request: Request,
        implementation: Implementation,
        outcome: Outcome,
        explaining: bool,
    ) -> None:
        self.graph = graph
        self.request = request
        self.implementation = implementation
        self.outcome = outcome
        self.explaining = explaining
        self.changed = False
        self.refused: list[tuple[Node, Skipped]] = []
        self._covered: set[Node] = set()
        self._best: dict[Node, Attempt] = {}

    def over(self, roots: Mapping[str, list[Node]]) -> None:
        """Try every pattern of the request at every node that could be its root."""
        patterns = self.request.rewrite.patterns
        for name in self.request.patterns:
            pattern = patterns[name]
            for op in sorted(pattern.roots()):
                for node in roots.get(op, ()):
                    if node in self._covered or not node.is_alive:
                        continue
                    attempt = Attempt()
                    found = match(pattern, node, attempt)
                    if found is not None:
                        self._apply(name, found)
                    elif self.explaining:
                        self._remember(attempt)

    def _apply(self, pattern: str, found: Match) -> None:
        number = self.outcome.patterns.get(pattern, 0) + 1
        build = SiteBuilder(
            self.graph,
            found,
            self.request,
            pattern,
            number,
            self.implementation,
            self.outcome,
        )
        try:
            replacement = self.request.rewrite.rewrite(found, build)
        except Refusal as refusal:
            reason = Skipped(found.root.name, found.root.native_type, str(refusal))
            self.refused.append((found.root, reason))
            self.changed = True
            return
        self.outcome.patterns[pattern] = number
        for old, new in zip(found.root.outputs, _as_tuple(replacement), strict=False):
            if new is not None:
                if (
                    new.dtype != old.dtype
                    and new.is_floating
                    and None not in (new.dtype, old.dtype)
                ):
                    # The pass worked in the type behind a cast, or in a wider one.
                    new = build.op("cast", new, dtype=old.dtype)
                self.graph.replace(old, new)
        self._cover(found)
        self.changed = True

    def _cover(self, found: Match) -> None:
        """Claim the root, and what lies under it unless something else reads it."""
        pending = [found.root]
        while pending:
            node = pending.pop()
            self._covered.add(node)
            for operand in node.inputs:
                producer = None if operand is None or operand.is_output else operand.producer
                if operand is None or producer is None or producer not in found.covered:
                    continue
                if all(reader in self._covered for reader in operand.consumers):
                    pending.append(producer)

    def _remember(self, attempt: Attempt) -> None:
        # An attempt may end before it reaches the anchor beside it: in c / sqrt(...), at c.
        beside = {
            operand.producer
            for node in attempt.visited
            for operand in node.inputs
            if operand is not None and operand.producer is not None
        }
        for node in attempt.visited | beside:
            if node.op in self.request.rewrite.anchors:
                best = self._best.get(node)
                if best is None or attempt.progress > best.progress:
                    self._best[node] = attempt

    def near_misses(self, roots: Mapping[str, list[Node]]) -> list[Skipped]:
        """Every anchor that is still in the graph, with the reason of the best attempt on it."""
        misses = []
        for op in sorted(self.request.rewrite.anchors):
            for node in roots.get(op, ()):
                if node in self._covered or not node.is_alive:
                    continue
                attempt = self._best.get(node)
                if attempt is None or attempt.reason == "":
                    reason = "no pattern of this pass has a root that leads here"
                else:
                    at = f" at node '{attempt.node.name}'" if attempt.node is not None else ""
                    reason = f"{attempt.reason}{at}"
                misses.append(Skipped(node.name, node.native_type, reason))
        return misses


def _as_tuple(replacement: Replacement) -> Sequence[Value | None]:
    return (replacement,) if isinstance(replacement, Value) else replacement
