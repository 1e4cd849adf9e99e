"""ONNX's own node tests, as far as they are float32 and contain a transcendental operation."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from odp.rewriter.onnx_vocabulary import is_transcendental, qualified_type

__all__ = ["OUT_OF_SCOPE", "NodeCase", "node_cases"]

_OTHER_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})

_TRAINING = "a step of an optimiser in training, not part of a model that is run"
_EMPTY = "a sum over no elements is 0 and its logarithm -inf, which no rational expression gives"
_INTEGER_BASE = "an integer base with a computed fractional exponent, truncated to an integer"

OUT_OF_SCOPE: dict[str, str] = {
    "test_adagrad": _TRAINING,
    "test_adagrad_multiple": _TRAINING,
    "test_adam": _TRAINING,
    "test_adam_multiple": _TRAINING,
    "test_melweightmatrix": "a table of constants wherever its arguments are stored in the model; "
    "here they are inputs",
    "test_pow_types_int32_float32": _INTEGER_BASE,
    "test_pow_types_int64_float32": _INTEGER_BASE,
    "test_reduce_log_sum_empty_set": _EMPTY,
    "test_reduce_log_sum_empty_set_expanded": _EMPTY,
    "test_reduce_log_sum_exp_empty_set": _EMPTY,
    "test_reduce_log_sum_exp_empty_set_expanded": _EMPTY,
    "test_tan": "the inputs lie on both sides of the poles at -pi/2 and pi/2, and an expression is "
    "valid on one interval",
}
"""Cases that are not rewritten completely, with the reason; everything else is."""


@dataclass(frozen=True)
class NodeCase:
    """One node test: a model with one node, its inputs, and the outputs of the reference.

    Attributes:
        name: as onnx calls it.
        operator: the operator under test; the function body of an operator counts as that operator.
        model: as onnx built it.
        feed: inputs by name.
        expected: outputs in order.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    feed: dict[str, NDArray[Any]]
    expected: list[NDArray[Any]]


@functools.cache
def node_cases() -> tuple[NodeCase, ...]:
    """Every float32 case with a transcendental operation in its graph, bodies and functions."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        # The generators of the cases overflow and divide by zero on purpose.
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    cases = []
    for case in collected:
        assert case.model is not None and case.data_sets is not None
        model = ir.from_proto(case.model)
        kinds = [qualified_type(node) for node in _all_nodes(model) if is_transcendental(node)]
        if not kinds or not _is_float32(model):
            continue
        inputs, outputs = case.data_sets[0]
        names = [value.name for value in case.model.graph.input]
        operator = _operator(case.model) if len(case.model.graph.node) == 1 else kinds[0]
        cases.append(
            NodeCase(
                case.name,
                operator,
                case.model,
                {name: np.asarray(x) for name, x in zip(names, inputs, strict=True)},
                [np.asarray(y) for y in outputs],
            )
        )
    return tuple(cases)


def _operator(model: onnx.ModelProto) -> str:
    node = model.graph.node[0]
    return f"{node.domain}::{node.op_type}" if node.domain else str(node.op_type)


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)


def _is_float32(model: ir.Model) -> bool:
    types = {value.dtype for value in [*model.graph.inputs, *model.graph.outputs]}
    return ir.DataType.FLOAT in types and not types & _OTHER_FLOATS
