"""Operators in graphs of ATen operators: what `torch.export` and `torch.compile` capture.

The patterns are those of the passes: a spelling that a pass recognises, a kernel fuses.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from odp.backends.triton.operators import defined
from odp.backends.triton.requested import FusedSite, Requested
from odp.passes.gelu import Gelu
from odp.passes.layer_norm import LayerNorm
from odp.passes.rms_norm import RmsNorm
from odp.passes.silu import Silu
from odp.passes.spellings import square
from odp.rewriter.fx_builder import FxBuilder
from odp.rewriter.fx_graph import FxGraph, FxNode, FxValue
from odp.rewriter.graph import Node, Value
from odp.rewriter.pattern import Match, Pattern, match, op, variable
from odp.rewriter.rewrite_pass import Pass

__all__ = ["GraphFusion"]

_ROOT_TWO = 2**0.5
_WEIGHT = variable("weight")
_UP = variable("up")
_SILU = Silu.patterns["silu"]
_GELU = Gelu.patterns["gelu"]
_GELU_TANH = op("gelu", variable("x"), approximate="tanh")
_RELU_SQUARED = square(op("relu", variable("x")))
_RMS = RmsNorm.patterns["rms_norm_spelled_out"]
_LAYER = LayerNorm.patterns["layer_norm_spelled_out"]

Arguments = tuple[list[Value | None], list[float]]
"""Operands and numbers of an operator."""
Extract = Callable[[Match], Arguments | None]
"""From a match what the operator is called with; None where it does not fit after all."""


def _one(found: Match) -> Arguments | None:
    divisor = found.number("divisor") if "divisor" in found else _ROOT_TWO
    divisor = 1 / found.number("factor") if "factor" in found else divisor
    bias = found.root.op == "gelu" and len(found.root.inputs) > 1
    if (
        bias
        or abs(divisor / _ROOT_TWO - 1) > 1e-6
        or found.root.attributes.get("alpha", 1.0) != 1.0
    ):
        return None
    return [found["x"]], []


def _gated(found: Match) -> Arguments | None:
    own = _one(found)
    return None if own is None else ([*own[0], found["up"]], [])


def _softmax(found: Match) -> Arguments | None:
    x = found["x"]
    if x.rank is None or found.root.attributes["axes"] != (x.rank - 1,):
        return None
    return [x, None], [1.0]


def _last(x: Value, axes: Any) -> bool:
    return x.rank is not None and tuple(axes or ()) == (x.rank - 1,)


def _whole_norm(found: Match) -> Arguments | None:
    x, root = found["x"], found.root
    if not _last(x, root.attributes["axes"]):
        return None
    operands = [*root.inputs[1:], None, None]
    count = 2 if root.op == "layer_norm" else 1
    return [x, *operands[:count]], [root.attributes["epsilon"]]


def _spelled_norm(found: Match) -> Arguments | None:
    """A norm from its parts: over the last axis, scaled by a vector or by nothing."""
    x = _source(found["x"])
    weight = found.values.get("weight")
    means = [node for node in found.covered if node.op == "reduce_mean"]
    if not means or any(not _last(x, node.attributes["axes"]) for node in means):
        return None
    if weight is not None and (weight.rank != 1 or x.shape is None or weight.shape != x.shape[-1:]):
        return None
    operands: list[Value | None] = [x, weight]
    if any(node.op == "sub" for node in found.covered):
        operands.append(None)
    return operands, [found.number("epsilon")]


def _source(value: Value) -> Value:
    """What a value was before it was widened: kernels compute in float32 anyway."""
    node = value.producer
    if node is not None and node.op == "cast" and node.inputs[0] is not None:
        source = node.inputs[0]
        if source.is_floating and source.dtype in ("bfloat16", "float16", "float32"):
            return _source(source)
    return value


@dataclass(frozen=True)
class _Row:
    operator: str
    pattern: Pattern
    extract: Extract


# Larger ones first: a gate is an activation, and a scaled norm is a norm.
_ROWS = (
    _Row("swiglu", op("mul", _SILU, _UP), _gated),
    _Row("geglu", op("mul", _GELU, _UP), _gated),
    _Row("geglu_tanh", op("mul", _GELU_TANH, _UP), _gated),
    _Row("relu_squared_gate", op("mul", _RELU_SQUARED, _UP), _gated),
    _Row("rms_norm", op("mul", _RMS, _WEIGHT), _spelled_norm),
    _Row("layer_norm", op("mul", _LAYER, _WEIGHT), _spelled_norm),
    _Row("rms_norm", _RMS, _spelled_norm),
    _Row("layer_norm", _LAYER, _spelled_norm),
    _Row("rms_norm", op("rms_norm", variable("x")), _whole_norm),
    _Row("layer_norm", op("layer_norm", variable("x")), _whole_norm),
    _Row("softmax", op("softmax", variable("x")), _softmax),
    _Row("silu", _SILU, _one),
    _Row("gelu", _GELU, _one),
    _Row("gelu_tanh", _GELU_TANH, _one),
)


@dataclass
class GraphFusion:
    """Puts operators into graphs.

    Attributes:
        typed: the passes.
        error: of functions whose pass has none of its own.
        sites: where operators stand in the last graph of all passes.
        refused: reasons why something that a pass asked for stays as it is.
    """

    typed: tuple[Pass, ...]
    error: float
    sites: list[FusedSite] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __call__(self, graph: FxGraph, enabled: Collection[str] | None = None) -> None:
        """Put the operators into a graph that the passes named ask for; into all for None."""
        typed = [one for one in self.typed if enabled is None or one.name in enabled]
        requested = Requested(typed, self.error)
        for row in _ROWS:
            functions = requested.functions(row.operator)
            if functions is None:
                continue
            texts = {name: function.text for name, function in functions.items()}
            for node in list(graph.nodes()):
                fits = node.is_alive and not node.emitted and node.op in row.pattern.roots()
                if fits and _replaced(graph, node, row, texts):
                    path, kind = node.module_path, node.module_type
                    requested.add(row.operator, path, kind, functions)
            # What a gate was made of must not be taken for an activation by a later row.
            graph.remove_dead_nodes()
        if enabled is None:
            self.sites, self.refused = requested.sites, list(dict.fromkeys(requested.refused))


def _replaced(graph: FxGraph, node: FxNode, row: _Row, texts: Mapping[str, str]) -> bool:
    found = match(row.pattern, node)
    result = node.outputs[0]
    if found is None or any(_emitted(each) for each in found.covered) or not result.is_floating:
        return False
    arguments = row.extract(found)
    if arguments is None:
        return False
    operands, numbers = arguments
    if any(value is not None and not isinstance(value, FxValue) for value in operands):
        return False
    tags = {"odp.operator": row.operator}
    builder = graph.builder(node, tags)
    natives = [value.native if isinstance(value, FxValue) else None for value in operands]
    new = _called(builder, row.operator, natives, numbers, list(texts.values()))
    if new.shape != result.shape:
        # Something of another rank was broadcast; the operator would do so otherwise.
        return False
    if new.dtype != result.dtype:
        cast = builder.op("cast", new, dtype=result.dtype)
        assert isinstance(cast, FxValue)
        new = cast
    graph.replace(result, new)
    return True


def _called(
    builder: FxBuilder, name: str, operands: list[Any], numbers: list[float], texts: list[str]
) -> FxValue:
    target: Any = getattr(torch.ops.odp, name).default
    called = builder.call(target, *operands, *numbers, *texts, "fast", False)
    if len(defined[name].operator.outputs) == 1:
        return called
    return builder.call(operator.getitem, called.native, 0)


def _emitted(node: Node) -> bool:
    return isinstance(node, FxNode) and (node.emitted or not isinstance(node.native, fx.Node))
