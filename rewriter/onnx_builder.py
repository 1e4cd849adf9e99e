"""Emission of the neutral vocabulary, and of expressions, as ONNX nodes of any opset from 7 up."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from odp.approximations.expression import Expression
from odp.rewriter.graph import Builder, Value
from odp.rewriter.module_paths import MODULE, module_path_of

if TYPE_CHECKING:
    from odp.rewriter.onnx_graph import OnnxGraph, OnnxValue

__all__ = ["OnnxBuilder"]

_OPERATORS: dict[str, str] = {
    **{name: name.capitalize() for name in ("add", "sub", "mul", "div", "neg", "abs", "relu")},
    **{name: name.capitalize() for name in ("max", "min", "where", "exp", "log", "sqrt", "pow")},
    **{name: name.capitalize() for name in ("reciprocal", "erf", "sin", "cos", "tan", "sinh")},
    **{name: name.capitalize() for name in ("cosh", "asin", "acos", "atan", "asinh", "acosh")},
    **{name: name.capitalize() for name in ("atanh", "tanh", "sigmoid", "softplus", "reshape")},
    **{name: name.capitalize() for name in ("transpose", "expand", "concat", "gather")},
    "matmul": "MatMul",
    "conv": "Conv",
}
_REDUCTIONS: dict[str, str] = {
    "reduce_mean": "ReduceMean",
    "reduce_sum": "ReduceSum",
    "reduce_max": "ReduceMax",
}
_NARROW = frozenset({"float16", "bfloat16"})


class OnnxBuilder(Builder):
    """Inserts ONNX nodes in front of one node, in the graph or body that holds it."""

    def __init__(self, graph: OnnxGraph, before: ir.Node, tags: Mapping[str, str]) -> None:
        self._graph = graph
        self._before = before
        self._tags = _inherited(before) | dict(tags)
        self._prefix = "/".join(tag for tag in ("odp", tags.get("odp.site", "")) if tag)

    def op(self, name: str, *inputs: Value | None, **attributes: Any) -> OnnxValue:
        return self.op_with_outputs(name, 1, *inputs, **attributes)[0]

    def op_with_outputs(
        self, name: str, count: int, *inputs: Value | None, **attributes: Any
    ) -> tuple[OnnxValue, ...]:
        emit = getattr(self, f"_emit_{name}", None)
        if emit is not None:
            outputs: tuple[OnnxValue, ...] = emit(inputs, attributes, count)
        elif name in _REDUCTIONS:
            outputs = self._emit_reduction(name, inputs, attributes)
        else:
            outputs = self._node(_OPERATORS[name], inputs, attributes, count)
        return outputs

    def constant(self, array: Any, dtype: str) -> OnnxValue:
        values = np.asarray(array).astype(getattr(ml_dtypes, dtype, dtype))
        digest = hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()[:12]
        label = repr(values.item()) if values.size == 1 else digest
        shape = "x".join(map(str, values.shape))
        name = f"odp/constant/{dtype}/{label}{'/' + shape if shape else ''}"
        initializers = self._graph.model.graph.initializers
        if name not in initializers:
            tensor = ir.tensor(values, name=name)
            native = ir.Value(
                name=name,
                shape=ir.Shape(values.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            initializers.add(native)
        return self._graph.value(initializers[name])

    def expression(self, expression: Expression, x: Value) -> OnnxValue:
        narrow = x.dtype if x.dtype in _NARROW else None
        inner = self.op("cast", x, dtype="float32") if narrow else _onnx(x)
        result = expression.emit(_OnnxAlgebra(self, inner.dtype or "float32"), x=inner)
        return self.op("cast", result, dtype=narrow) if narrow else result

    def _node(
        self,
        kind: str,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, Any],
        count: int = 1,
    ) -> tuple[OnnxValue, ...]:
        natives = [None if value is None else _onnx(value).native for value in inputs]
        name = self._graph.fresh_name(f"{self._prefix}/{kind}")
        native = ir.node(
            kind,
            natives,
            {key: value for key, value in attributes.items() if value is not None},
            num_outputs=count,
            name=name,
            metadata_props=dict(self._tags),
        )
        for index, output in enumerate(native.outputs):
            output.name = name if count == 1 else f"{name}:{index}"
        first = next((value for value in natives if value is not None), None)
        if first is not None and first.type is not None:
            native.outputs[0].type = first.type
        assert self._before.graph is not None
        self._before.graph.insert_before(self._before, native)
        # A pass may emit and then refuse, or not use what it emitted.
        self._graph.suspect(native)
        view = self._graph.node(native)
        view.emitted = True
        return view.outputs

    def _emit_reduction(
        self, name: str, inputs: Sequence[Value | None], attributes: Mapping[str, Any]
    ) -> tuple[OnnxValue, ...]:
        keepdims = int(attributes["keepdims"])
        if attributes["axes"] is None:
            return self._node(_REDUCTIONS[name], inputs, {"keepdims": keepdims})
        axes = list(attributes["axes"])
        as_input_since = 13 if name == "reduce_sum" else 18
        if self._graph.opset >= as_input_since:
            operands = (inputs[0], self.constant(axes, "int64"))
            outputs = self._node(_REDUCTIONS[name], operands, {"keepdims": keepdims})
        else:
            parameters = {"axes": axes, "keepdims": keepdims}
            outputs = self._node(_REDUCTIONS[name], inputs, parameters)
        source = inputs[0].shape if inputs[0] is not None else None
        if source is not None:
            rank = len(source)
            reduced = {axis % rank for axis in axes}
            kept = [1 if i in reduced else n for i, n in enumerate(source)]
            if not keepdims:
                kept = [n for i, n in enumerate(source) if i not in reduced]
            outputs[0].native.shape = ir.Shape(kept)
        return outputs

    def _emit_clip(
        self, inputs: Sequence[Value | None], attributes: Mapping[str, Any], count: int
    ) -> tuple[OnnxValue, ...]:
        """Clip to `low` and `high`, either of which may be None."""
        del count
        x, low, high = inputs[0], attributes.get("low"), attributes.get("high")
        assert x is not None
        if self._graph.opset < 11:
            bounds = {"min": low, "max": high}
            outputs = self._node("Clip", [x], {k: v for k, v in bounds.items() if v is not None})
        else:
            limits = [None if bound is None else self.number(bound, x) for bound in (low, high)]
            while limits and limits[-1] is None:
                limits.pop()
            outputs = self._node("Clip", [x, *limits], {})
        outputs[0].native.shape = _onnx(x).native.shape
        return outputs

    def _emit_cast(
        self, inputs: Sequence[Value | None], attributes: Mapping[str, Any], count: int
    ) -> tuple[OnnxValue, ...]:
        del count
        from odp.rewriter.onnx_graph import data_type

        target = data_type(attributes["dtype"])
        outputs = self._node("Cast", inputs, {"to": int(target)})
        outputs[0].native.type = ir.TensorType(target)
        if inputs[0] is not None:
            outputs[0].native.shape = _onnx(inputs[0]).native.shape
        return outputs

    def _emit_identity(
        self, inputs: Sequence[Value | None], attributes: Mapping[str, Any], count: int
    ) -> tuple[OnnxValue, ...]:
        outputs = self._node("Identity", inputs, attributes, count)
        if inputs[0] is not None:
            outputs[0].native.shape = _onnx(inputs[0]).native.shape
        return outputs

    def _emit_where(
        self, inputs: Sequence[Value | None], attributes: Mapping[str, Any], count: int
    ) -> tuple[OnnxValue, ...]:
        outputs = self._node("Where", inputs, attributes, count)
        outputs[0].native.type = inputs[1].native.type  # type: ignore[union-attr]
        return outputs

    def _emit_greater(
        self, inputs: Sequence[Value | None], attributes: Mapping[str, Any], count: int
    ) -> tuple[OnnxValue, ...]:
        outputs = self._node("Greater", inputs, attributes, count)
        outputs[0].native.type = ir.TensorType(ir.DataType.BOOL)
        return outputs

    def _emit_reshape(
        self, inputs: Sequence[Value | None], attributes: Mapping[str, Any], count: int
    ) -> tuple[OnnxValue, ...]:
        """Reshape to the static `shape`, or to the value that is the second operand."""
        del count
        if "shape" not in attributes:
            return self._node("Reshape", inputs, {})
        shape = list(attributes["shape"])
        outputs = self._node("Reshape", [inputs[0], self.constant(shape, "int64")], {})
        if all(extent > 0 for extent in shape):
            outputs[0].native.shape = ir.Shape(shape)
        return outputs

    def _emit_slice(
        self, inputs: Sequence[Value | None], attributes: Mapping[str, Any], count: int
    ) -> tuple[OnnxValue, ...]:
        """The half-open range `start:stop` of one `axis`."""
        del count
        start, stop, axis = ([attributes[key]] for key in ("start", "stop", "axis"))
        if self._graph.opset < 10:
            return self._node("Slice", inputs, {"starts": start, "ends": stop, "axes": axis})
        bounds = [self.constant(bound, "int64") for bound in (start, stop, axis)]
        return self._node("Slice", [inputs[0], *bounds], {})

    def _emit_split(
        self, inputs: Sequence[Value | None], attributes: Mapping[str, Any], count: int
    ) -> tuple[OnnxValue, ...]:
        """Pieces of the given `sizes` along `axis`."""
        axis, sizes = attributes["axis"], list(attributes["sizes"])
        if self._graph.opset >= 13:
            operands = [inputs[0], self.constant(sizes, "int64")]
            outputs = self._node("Split", operands, {"axis": axis}, count)
        else:
            outputs = self._node("Split", inputs, {"axis": axis, "split": sizes}, count)
        for output in outputs[1:]:
            output.native.type = outputs[0].native.type
        return outputs

    def _emit_squeeze(
        self, inputs: Sequence[Value | None], attributes: Mapping[str, Any], count: int
    ) -> tuple[OnnxValue, ...]:
        return self._axes_operator("Squeeze", inputs, attributes)

    def _emit_unsqueeze(
        self, inputs: Sequence[Value | None], attributes: Mapping[str, Any], count: int
    ) -> tuple[OnnxValue, ...]:
        return self._axes_operator("Unsqueeze", inputs, attributes)

    def _axes_operator(
        self, kind: str, inputs: Sequence[Value | None], attributes: Mapping[str, Any]
    ) -> tuple[OnnxValue, ...]:
        axes = list(attributes["axes"])
        if self._graph.opset >= 13:
            return self._node(kind, [inputs[0], self.constant(axes, "int64")], {})
        return self._node(kind, inputs, {"axes": axes})


class _OnnxAlgebra:
    """The arithmetic of expressions, as ONNX nodes."""

    def __init__(self, builder: OnnxBuilder, dtype: str) -> None:
        self._builder = builder
        self._dtype = dtype

    def constant(self, value: Fraction) -> OnnxValue:
        return self._builder.constant(float(value), self._dtype)

    def add(self, a: OnnxValue, b: OnnxValue) -> OnnxValue:
        return self._binary("add", a, b)

    def sub(self, a: OnnxValue, b: OnnxValue) -> OnnxValue:
        return self._binary("sub", a, b)

    def mul(self, a: OnnxValue, b: OnnxValue) -> OnnxValue:
        return self._binary("mul", a, b)

    def div(self, a: OnnxValue, b: OnnxValue) -> OnnxValue:
        return self._binary("div", a, b)

    def _binary(self, name: str, a: OnnxValue, b: OnnxValue) -> OnnxValue:
        result = self._builder.op(name, a, b)
        # Both operands have the shape of the variable, or are scalars.
        wider = b if a.shape == () else a
        result.native.shape = wider.native.shape
        return result


def _onnx(value: Value) -> OnnxValue:
    from odp.rewriter.onnx_graph import OnnxValue

    assert isinstance(value, OnnxValue)
    return value


def _inherited(node: ir.Node) -> dict[str, str]:
    """Provenance of the node that is being replaced: scopes and path of the torch module."""
    found = {k: v for k, v in node.metadata_props.items() if k.startswith("pkg.torch.")}
    path = module_path_of(node.name or "", node.metadata_props)
    return found | ({MODULE: path} if path else {})
