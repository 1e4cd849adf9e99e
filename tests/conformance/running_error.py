"""Running error analysis: how far the outputs of a rewritten model may be from exact arithmetic.

Wilkinson's method (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.3):
every tensor is carried as its value in float64 and a bound on its error, element by element.

- A sum of products with non-negative coefficients, f (Mul, MatMul, Conv, ReduceSum, Reshape, ...),
  of operands that are off by e changes by at most f(|x| + e) - f(|x|).
- Abs, Relu, Max, Clip and their kind change by at most as much as their operands.
- A site changes by at most what its function changes over [x - e, x + e], plus the error declared
  for its approximant, plus what a guard clips off.
- Every operation rounds its result to float32; a sum of n terms at most n times.

No constant in here is fitted to a result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from odp.approximations.error_analysis import rounding_error
from odp.approximations.expression import Expression
from odp.approximations.functions.registry import get_function
from odp.approximations.interval import Interval
from odp.rewriter.graph import Builder, Value
from odp.rewriter.native import emit_native
from odp.rewriter.onnx_graph import OnnxValue
from odp.rewriter.selection import SOFTMAX_CUTOFF, Choice
from odp.rewriter.site import Site

__all__ = ["Marks", "Tensor", "outputs_with_bounds", "site_with_error"]

ROUNDOFF = 2.0**-24
"""Largest relative error of one float32 rounding."""

_NATIVE_ROUNDINGS = 8
"""What ONNX Runtime's elementary functions are off by, in roundings: asin, its worst in version
1.32, is off by 7.9 over 200,000 arguments."""

_SATURATING = frozenset({"sigmoid", "tanh", "erf", "normal_cdf", "mish_gate", "softplus_tail"})
"""Functions between 0 or -1 and 1 that are computed to a part of 1, not of their value."""

_POLYNOMIALS = frozenset(
    {
        *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile"),
        *("Slice", "Gather", "GatherElements", "GatherND", "Concat", "Split", "Pad", "Dropout"),
        *("ScatterND", "ScatterElements", "TensorScatter", "Add", "Sum", "Mul", "MatMul", "Conv"),
        *("Gemm", "Einsum", "ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "CumSum"),
        *("AveragePool", "GlobalAveragePool", "Mean", "Pow", "CastLike", "Trilu", "Where"),
    }
)
_SINGLE_ROUNDING = frozenset({"Add", "Sub", "Mul", "Div", "Cast", "Range"})
_NONEXPANSIVE = frozenset({"Neg", "Abs", "Relu", "Clip", "LeakyRelu", "HardSigmoid"})
_LARGEST = {"Max": "Max", "Min": "Max", "ReduceMax": "ReduceMax", "ReduceMin": "ReduceMax"}
_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
# Of the polynomials, those that only move numbers and round nothing.
_EXACT = frozenset(
    {
        *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile"),
        *("Slice", "Gather", "GatherElements", "GatherND", "Concat", "Split", "Pad", "Dropout"),
        *("ScatterND", "ScatterElements", "TensorScatter", "CastLike", "Trilu", "Where"),
    }
)


@dataclass(frozen=True)
class Tensor:
    """A value in float64 (or of a type that is no number), and a bound on its absolute error."""

    value: NDArray[Any]
    error: NDArray[np.float64]

    @property
    def is_floating(self) -> bool:
        return self.value.dtype.kind == "f"

    @property
    def largest(self) -> NDArray[Any]:
        """Largest magnitude that an element can have; zero where the value is not a number."""
        magnitude: NDArray[Any] = np.where(
            np.isfinite(self.value), np.abs(self.value) + self.error, 0.0
        )
        return magnitude


class Marks:
    """The implementation of sites that keeps them apart from the operations around them."""

    mask_value: float | None = None

    def __init__(self) -> None:
        self.sites: dict[ir.Value, tuple[Site, ir.Value]] = {}

    def function(self, site: Site, x: Value, builder: Builder) -> Value:
        """Emit the native function, and remember where it begins and ends."""
        copy = builder.op("identity", x)
        result = emit_native(builder, site.function, copy)
        assert isinstance(copy, OnnxValue) and isinstance(result, OnnxValue)
        self.sites[result.native] = (site, copy.native)
        return result


def outputs_with_bounds(
    model: ir.Model,
    marks: Marks,
    choices: Mapping[str, Choice],
    feed: Mapping[str, NDArray[Any]],
) -> list[Tensor]:
    """The outputs of a model in float64, with bounds on their errors in float32.

    Args:
        model: rewritten with `marks`.
        marks: where the sites are.
        choices: what stands at each site; a site without choice is exact up to two roundings.
        feed: inputs by name.
    """
    known: dict[ir.Value, Tensor] = {}
    for value in model.graph.inputs:
        if value.name in feed:
            known[value] = exact(np.asarray(feed[value.name]))
    with np.errstate(all="ignore"):
        return _Analysis(model, marks, choices).run(model.graph, known)


def exact(array: NDArray[Any]) -> Tensor:
    """A tensor without error."""
    value = array.astype(np.float64) if _is_floating(array) else array
    return Tensor(value, np.zeros(array.shape))


def _is_floating(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


class _Analysis:
    def __init__(self, model: ir.Model, marks: Marks, choices: Mapping[str, Choice]) -> None:
        self._versions = [
            onnx.helper.make_opsetid(domain, version)
            for domain, version in model.graph.opset_imports.items()
        ]
        self._marks = marks
        self._choices = choices

    def run(self, graph: ir.Graph, known: dict[ir.Value, Tensor]) -> list[Tensor]:
        """Walk one graph; `known` has its inputs and everything that its bodies may capture."""
        for value in graph.initializers.values():
            if value.const_value is not None and value not in known:
                known[value] = exact(value.const_value.numpy())
        for node in graph:
            operands = [None if value is None else known[value] for value in node.inputs]
            for output, tensor in zip(
                node.outputs, self._node(node, operands, known), strict=False
            ):
                known[output] = tensor
                if output in self._marks.sites:
                    site, x = self._marks.sites[output]
                    known[output] = site_with_error(site, self._choices.get(site.id), known[x])
        return [known[output] for output in graph.outputs]

    def _node(
        self, node: ir.Node, operands: list[Tensor | None], known: dict[ir.Value, Tensor]
    ) -> list[Tensor]:
        kind = node.op_type
        if kind == "If":
            assert operands[0] is not None
            branch = "then_branch" if bool(operands[0].value) else "else_branch"
            return self.run(node.attributes[branch].as_graph(), known)
        if kind == "Scan":
            return self._scan(node, operands, known)
        given = [None if tensor is None else tensor.value for tensor in operands]
        values = self._evaluate(node, given)
        if kind == "Cast" and _is_floating_type(node.attributes["to"].as_int()):
            assert operands[0] is not None
            values = [operands[0].value.astype(np.float64)]
        values = [v.astype(np.float64) if _is_floating(v) else v for v in values]
        errors = self._errors(node, operands, values)
        return [Tensor(v, np.asarray(e, np.float64)) for v, e in zip(values, errors, strict=True)]

    def _errors(
        self, node: ir.Node, operands: list[Tensor | None], values: list[NDArray[Any]]
    ) -> Sequence[Any]:
        kind = node.op_type
        present = [tensor for tensor in operands if tensor is not None]
        if kind in _COMPARISONS:
            _require_decided(node, present)
        if not any(value.dtype.kind == "f" for value in values):
            return [np.zeros(value.shape) for value in values]
        rounding = [_rounding(kind, present, value) for value in values]
        clean = not any(tensor.is_floating and tensor.error.any() for tensor in present)
        if clean and kind in _SINGLE_ROUNDING:
            # The float64 value is exact here, and so is what rounding makes of it.
            return [np.nan_to_num(np.abs(v - v.astype(np.float32))) for v in values]
        if kind in _POLYNOMIALS or kind == "Sub":
            kinds = "Add" if kind == "Sub" else kind
            largest = self._evaluate(node, [_magnitude(t, True) for t in operands], kinds)
            if kind not in _EXACT:
                terms = _terms(kind, present, values[0])
                rounding = [terms * ROUNDOFF * magnitude for magnitude in largest]
            if clean:
                return rounding
            smallest = self._evaluate(node, [_magnitude(t, False) for t in operands], kinds)
            pairs = zip(largest, smallest, rounding, strict=True)
            return [np.nan_to_num(a - b, posinf=np.inf) + c for a, b, c in pairs]
        if clean:
            return rounding
        if kind in _NONEXPANSIVE or kind == "Cast":
            return [present[0].error + rounding[0]]
        if kind in _LARGEST:
            wanted = [
                None if t is None else (t.error if t.is_floating else t.value) for t in operands
            ]
            return self._evaluate(node, wanted, _LARGEST[kind])
        if kind == "Div":
            a, b = present
            room = np.abs(b.value) - b.error
            quotient = (a.error + np.abs(values[0]) * b.error) / np.where(room > 0, room, np.nan)
            return [np.nan_to_num(quotient, nan=np.inf) + rounding[0]]
        if kind == "NegativeLogLikelihoodLoss":
            # Linear in its first operand: a weighted mean of minus the chosen elements.
            given = [-present[0].error, *(tensor.value for tensor in present[1:])]
            (largest_change,) = self._evaluate(node, given)
            return [largest_change + present[0].value.size * rounding[0]]
        # Anything else is not understood; the native functions inside a site end up here, too.
        return [np.full(value.shape, np.inf) for value in values]

    def _scan(
        self, node: ir.Node, operands: list[Tensor | None], known: dict[ir.Value, Tensor]
    ) -> list[Tensor]:
        body = node.attributes["body"].as_graph()
        scanned = node.attributes["num_scan_inputs"].as_int()
        tensors = [tensor for tensor in operands if tensor is not None]
        state, sequences = tensors[: len(tensors) - scanned], tensors[len(tensors) - scanned :]
        collected: list[list[Tensor]] = []
        for time in range(len(sequences[0].value)):
            slices = [Tensor(s.value[time], s.error[time]) for s in sequences]
            inputs = dict(zip(body.inputs, [*state, *slices], strict=True))
            results = self.run(body, known | inputs)
            state, rest = results[: len(state)], results[len(state) :]
            collected.append(rest)
        stacked = [
            Tensor(np.stack([t.value for t in column]), np.stack([t.error for t in column]))
            for column in zip(*collected, strict=True)
        ]
        return [*state, *stacked]

    def _evaluate(
        self, node: ir.Node, operands: Sequence[NDArray[Any] | None], kind: str | None = None
    ) -> list[NDArray[Any]]:
        """Run one node, or the same node with another operator, on arrays."""
        proto = ir.serde.serialize_node(node)
        proto.op_type = kind or node.op_type
        names = [f"x{i}" if array is not None else "" for i, array in enumerate(operands)]
        outputs = [f"y{i}" if value.name else "" for i, value in enumerate(node.outputs)]
        del proto.input[:], proto.output[:]
        proto.input.extend(names)
        proto.output.extend(outputs)
        wanted = [name for name in outputs if name]
        graph = onnx.GraphProto(
            name="node",
            node=[proto],
            input=[onnx.ValueInfoProto(name=name) for name in names if name],
            output=[onnx.ValueInfoProto(name=name) for name in wanted],
        )
        model = onnx.helper.make_model(graph, opset_imports=self._versions)
        feed = {n: a for n, a in zip(names, operands, strict=True) if a is not None}
        found = dict(zip(wanted, ReferenceEvaluator(model).run(None, feed), strict=True))
        return [np.asarray(found.get(name, 0)) for name in outputs]


def _is_floating_type(code: int) -> bool:
    return ir.DataType(code).is_floating_point()


def _magnitude(tensor: Tensor | None, largest: bool) -> NDArray[Any] | None:
    if tensor is None or not tensor.is_floating:
        return None if tensor is None else tensor.value
    if largest:
        return tensor.largest
    return np.where(np.isfinite(tensor.value), np.abs(tensor.value), 0.0)


def _rounding(kind: str, operands: list[Tensor], value: NDArray[Any]) -> NDArray[np.float64]:
    if kind in _EXACT or kind in _NONEXPANSIVE or kind in _LARGEST or value.dtype.kind != "f":
        return np.zeros(value.shape)
    return ROUNDOFF * np.nan_to_num(np.abs(value), posinf=0.0)


def _terms(kind: str, operands: list[Tensor], value: NDArray[Any]) -> int:
    """Roundings on the way to one element: each operand element meets it at most once."""
    if kind in ("Add", "Sub", "Mul"):
        return 1
    largest = max(tensor.value.size for tensor in operands)
    if kind in ("Sum", "Mean", "Pow"):
        return 8
    if kind == "MatMul":
        return int(operands[0].value.shape[-1]) + 1
    if kind == "Conv":
        return int(operands[1].value[0].size) + 2
    return max(largest // max(value.size, 1), 1) + 2


def _require_decided(node: ir.Node, operands: list[Tensor]) -> None:
    a, b = operands
    if not a.is_floating:
        return
    error = a.error + b.error
    difference = np.abs(a.value - b.value)
    if ((difference <= error) & (error > 0)).any():
        raise AssertionError(f"{node.op_type} '{node.name}' may go either way within the error")


def site_with_error(site: Site, choice: Choice | None, x: Tensor) -> Tensor:
    """What a site computes: exactly, and how far off it may be."""
    function = get_function(site.function)
    value = function.numpy(x.value)
    low = np.maximum(x.value - x.error, max(site.hint.lo, function.domain.lo))
    high = np.minimum(x.value + x.error, min(site.hint.hi, function.domain.hi))
    if choice is None:
        scale = np.nan_to_num(np.abs(value), posinf=0.0)
        scale = np.maximum(scale, 1.0) if site.function in _SATURATING else scale
        native = _NATIVE_ROUNDINGS * ROUNDOFF * scale
        return Tensor(value, _change(site.function, function.numpy, value, low, high) + native)
    approximant, domain = choice.approximant, choice.approximant.domain
    if choice.low is not None:
        low, high = np.maximum(low, choice.low), np.maximum(high, choice.low)
    if choice.high is not None:
        low, high = np.minimum(low, choice.high), np.minimum(high, choice.high)
    change = _change(site.function, function.numpy, value, low, high)
    reach = np.maximum(np.abs(function.numpy(low)), np.abs(function.numpy(high)))
    reach = np.maximum(reach, np.nan_to_num(np.abs(value), posinf=0.0))
    declared = np.full(reach.shape, approximant.absolute_error)
    if approximant.relative_error is not None:
        declared = np.minimum(declared, approximant.relative_error * reach)
    declared = declared + _evaluation(approximant.expression, domain, low, x.value, high)
    slack = 4 * ROUNDOFF * max(abs(domain.lo), abs(domain.hi))
    outside = (low < domain.lo - slack) | (high > domain.hi + slack)
    masked = math.exp(SOFTMAX_CUTOFF) if site.maskable else 0.0
    return Tensor(value, np.where(outside, np.inf, change + declared + masked))


def _evaluation(
    expression: Expression, domain: Interval, *points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The running bound of evaluating an expression in float32 at the worst of some points."""
    bounds = []
    for x in points:
        inside = np.clip(np.nan_to_num(x), domain.lo, domain.hi)
        bounds.append(rounding_error(expression, inside))
    return np.asarray(np.max(bounds, axis=0), dtype=np.float64)


def _change(
    name: str, function: Any, value: NDArray[Any], low: NDArray[Any], high: NDArray[Any]
) -> NDArray[np.float64]:
    """Largest change of a function over an interval: every one is monotone or convex there."""
    ends = np.maximum(np.abs(function(low) - value), np.abs(function(high) - value))
    if name in ("sin", "cos"):
        ends = np.maximum(ends, high - low)
    changes: NDArray[np.float64] = np.nan_to_num(ends, nan=np.inf, posinf=np.inf)
    return changes
