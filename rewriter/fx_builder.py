"""Emission of the neutral vocabulary, and of expressions, as nodes of ATen operators."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx

from odp.approximations.expression import Expression
from odp.rewriter.fx_node import FxLiteral, FxValue
from odp.rewriter.graph import Builder, Value

if TYPE_CHECKING:
    from odp.rewriter.fx_graph import FxGraph

__all__ = ["FxBuilder"]

aten = torch.ops.aten

_OPERATORS: dict[str, Any] = {
    **{
        name: getattr(aten, name).default
        for name in (
            *("neg", "abs", "relu", "exp", "log", "sqrt", "rsqrt", "reciprocal", "erf", "sin"),
            *("cos", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh"),
            *("tanh", "sigmoid", "softplus", "matmul"),
        )
    },
    "add": aten.add.Tensor,
    "sub": aten.sub.Tensor,
    "mul": aten.mul.Tensor,
    "identity": aten.alias.default,
}
_NARROW = frozenset({"float16", "bfloat16"})
_NO_SUMMAND = 2.0**-84
"""Smaller ones are not saved from an exporter: scaled by more than 2^64, large inputs overflow."""


class FxBuilder(Builder):
    """Inserts ATen nodes in front of one node, in the graph or body that holds it."""

    def __init__(self, graph: FxGraph, before: fx.Node, tags: Mapping[str, str]) -> None:
        self._graph = graph
        self._before = before
        self._tags = dict(tags)

    def op(self, name: str, *inputs: Value | None, **attributes: Any) -> FxValue:
        operands = [_native(value) for value in inputs]
        emit = getattr(self, f"_emit_{name}", None)
        if emit is not None:
            result: FxValue = emit(*operands, **attributes)
            return result
        return self.call(_OPERATORS[name], *operands)

    def op_with_outputs(
        self, name: str, count: int, *inputs: Value | None, **attributes: Any
    ) -> tuple[FxValue, ...]:
        # Only recurrent layers emit operations with several results, and torch unrolls those.
        assert count == 1, name
        return (self.op(name, *inputs, **attributes),)

    def constant(self, array: Any, dtype: str) -> Value:
        values = np.asarray(array)
        if values.size == 1 and values.ndim == 0:
            return self._graph.literal(float(values))
        tensor = torch.from_numpy(np.ascontiguousarray(values, _numpy_type(dtype)))
        return self._stored(tensor.to(getattr(torch, dtype)))

    def expression(self, expression: Expression, x: Value) -> FxValue:
        narrow = x.dtype if x.dtype in _NARROW else None
        inner = self.op("cast", x, dtype="float32") if narrow else _fx(x)
        result = expression.emit(_FxAlgebra(self), x=inner)
        if not isinstance(_native(result), fx.Node):
            # A constant stands in for the function; it still has a value for each element.
            zeros = self.call(aten.mul.Tensor, inner.native, 0.0)
            result = self.call(aten.add.Tensor, zeros.native, _native(result))
        return self.op("cast", result, dtype=narrow) if narrow else _fx(result)

    def _stored(self, tensor: torch.Tensor) -> FxValue:
        """A constant tensor as a buffer that no state_dict mentions."""
        owner = self._graph.owner(self._before)
        device = _device_of(self._before)
        number = sum(1 for name in owner._buffers if name.startswith("odp_constant_"))
        name = f"odp_constant_{number}"
        owner.register_buffer(name, tensor.to(device), persistent=False)
        with self._before.graph.inserting_before(self._before):
            native = self._before.graph.get_attr(name)
        mode = _fake_mode(self._before)
        native.meta["val"] = tensor if mode is None else mode.from_tensor(tensor.to(device))
        return self._graph.value(native)

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> FxValue:
        """Emit a call of any operator of torch; operands are fx nodes, numbers and options."""
        with self._before.graph.inserting_before(self._before):
            native = self._before.graph.call_function(target, args, kwargs)
        values = fx.map_arg((args, kwargs), lambda node: node.meta["val"])
        mode = _fake_mode(self._before)
        with torch.no_grad(), mode or contextlib.nullcontext():
            native.meta["val"] = target(*values[0], **values[1])
        for key in ("nn_module_stack", "stack_trace"):
            if key in self._before.meta:
                native.meta[key] = self._before.meta[key]
        if any(node.meta.get("odp.any_shape") for node in native.all_input_nodes):
            native.meta["odp.any_shape"] = True
        # What is under `custom` survives torch.export, if the graph runs node by node under it.
        native.meta["custom"] = {**self._before.meta.get("custom", {}), **self._tags}
        native.meta["odp.emitted"] = True
        # A pass may emit and then refuse, or not use what it emitted.
        self._graph.suspect(native)
        view = self._graph.node(native)
        view.emitted = True
        return self._graph.value(native)

    def _emit_sub(self, a: Any, b: Any) -> FxValue:
        if isinstance(a, fx.Node):
            return self.call(aten.sub.Tensor, a, b)
        return self.call(aten.rsub.Scalar, b, a)

    def _emit_add(self, a: Any, b: Any) -> FxValue:
        return self.call(aten.add.Tensor, *_tensor_first(a, b))

    def _emit_mul(self, a: Any, b: Any) -> FxValue:
        return self.call(aten.mul.Tensor, *_tensor_first(a, b))

    def _emit_div(self, a: Any, b: Any) -> FxValue:
        if isinstance(a, fx.Node):
            return self.call(aten.div.Tensor, a, b)
        inverse = self.call(aten.reciprocal.default, b)
        return inverse if a == 1.0 else self.call(aten.mul.Tensor, inverse.native, a)

    def _emit_pow(self, x: Any, exponent: Any) -> FxValue:
        if not isinstance(x, fx.Node):
            return self.call(aten.pow.Scalar, x, exponent)
        if isinstance(exponent, fx.Node):
            return self.call(aten.pow.Tensor_Tensor, x, exponent)
        return self.call(aten.pow.Tensor_Scalar, x, exponent)

    def _emit_max(self, a: Any, b: Any) -> FxValue:
        first, second = _tensor_first(a, b)
        if isinstance(second, fx.Node):
            return self.call(aten.maximum.default, first, second)
        return self.call(aten.clamp_min.default, first, second)

    def _emit_min(self, a: Any, b: Any) -> FxValue:
        first, second = _tensor_first(a, b)
        if isinstance(second, fx.Node):
            return self.call(aten.minimum.default, first, second)
        return self.call(aten.clamp_max.default, first, second)

    def _emit_clip(self, x: Any, low: float | None = None, high: float | None = None) -> FxValue:
        """Clip to `low` and `high`, either of which may be None."""
        return self.call(aten.clamp.default, x, low, high)

    def _emit_cast(self, x: Any, dtype: str) -> FxValue:
        return self.call(aten._to_copy.default, x, dtype=getattr(torch, dtype))

    def _emit_where(self, condition: Any, a: Any, b: Any) -> FxValue:
        overloads = {
            (True, True): aten.where.self,
            (True, False): aten.where.ScalarOther,
            (False, True): aten.where.ScalarSelf,
            (False, False): aten.where.Scalar,
        }
        kinds = (isinstance(a, fx.Node), isinstance(b, fx.Node))
        return self.call(overloads[kinds], condition, a, b)

    def _emit_greater(self, a: Any, b: Any) -> FxValue:
        overload = aten.gt.Tensor if isinstance(b, fx.Node) else aten.gt.Scalar
        return self.call(overload, a, b)

    def _emit_reduce_mean(self, x: Any, axes: Sequence[int], keepdims: bool) -> FxValue:
        return self.call(aten.mean.dim, x, list(axes), keepdims)

    def _emit_reduce_sum(self, x: Any, axes: Sequence[int], keepdims: bool) -> FxValue:
        return self.call(aten.sum.dim_IntList, x, list(axes), keepdims)

    def _emit_reduce_max(self, x: Any, axes: Sequence[int], keepdims: bool) -> FxValue:
        return self.call(aten.amax.default, x, list(axes), keepdims)

    def _emit_reshape(self, x: Any, shape: Sequence[int]) -> FxValue:
        return self.call(aten.reshape.default, x, list(shape))

    def _emit_unsqueeze(self, x: Any, axes: Sequence[int]) -> FxValue:
        result = x
        for axis in sorted(axes):
            result = self.call(aten.unsqueeze.default, result, axis).native
        return self._graph.value(result)

    def _emit_squeeze(self, x: Any, axes: Sequence[int]) -> FxValue:
        return self.call(aten.squeeze.dims, x, list(axes))

    def _emit_gather(self, table: Any, indices: Any) -> FxValue:
        """Rows of `table` along its first axis, by an index tensor of any shape."""
        return self.call(aten.embedding.default, table, indices)


class _FxAlgebra:
    """The arithmetic of expressions, as ATen nodes; constants stay numbers among the arguments."""

    def __init__(self, builder: FxBuilder) -> None:
        self._builder = builder

    def constant(self, value: Fraction) -> FxLiteral:
        return self._builder._graph.literal(float(value))

    def add(self, a: Value, b: Value) -> FxValue:
        if isinstance(a, FxLiteral):
            a, b = b, a
        return self._scaled_sum("add", a, b) or self._builder.op("add", a, b)

    def sub(self, a: Value, b: Value) -> FxValue:
        return self._scaled_sum("sub", a, b) or self._builder.op("sub", a, b)

    def mul(self, a: Value, b: Value) -> FxValue:
        if isinstance(a, FxLiteral):
            a, b = b, a
        if isinstance(b, FxLiteral) and _passes_for(1.0, b.number):
            doubled = self._builder.op("mul", a, self._number(2.0 * b.number))
            return self._builder.op("mul", doubled, self._number(0.5))
        return self._builder.op("mul", a, b)

    def div(self, a: Value, b: Value) -> FxValue:
        if isinstance(b, FxLiteral) and _passes_for(1.0, b.number):
            halved = self._builder.op("div", a, self._number(2.0 * b.number))
            return self._builder.op("mul", halved, self._number(2.0))
        return self._builder.op("div", a, b)

    def _scaled_sum(self, name: str, a: Value, b: Value) -> FxValue | None:
        """The sum with a tiny number `b`, in units in which it is not tiny; None otherwise."""
        if isinstance(a, FxLiteral) or not isinstance(b, FxLiteral):
            return None
        if not _passes_for(0.0, b.number) or abs(b.number) < _NO_SUMMAND:
            return None
        # A power of two scales without rounding.  This one makes about 1e-6 of `b`, which is no
        # more than needed, so that a large `a` does not overflow.
        scale = 2.0 ** -(math.frexp(b.number)[1] + 20)
        scaled = self._builder.op("mul", a, self._number(scale))
        total = self._builder.op(name, scaled, self._number(b.number * scale))
        return self._builder.op("mul", total, self._number(1.0 / scale))

    def _number(self, number: float) -> FxLiteral:
        return self._builder._graph.literal(number)


def _passes_for(neutral: float, number: float) -> bool:
    """Whether torch.onnx.export takes a number for 0 or 1 and drops the operation with it.

    The optimiser of onnxscript 0.7, which the exporter runs, compares with a relative tolerance of
    1e-5 and an absolute one of 1e-8.  Where inputs are 1e-5, the coefficients of a rational
    expression are smaller than that, and its values would be off by percents.
    """
    return number != neutral and math.isclose(number, neutral, rel_tol=2e-5, abs_tol=2e-8)


def _fx(value: Value) -> FxValue:
    assert isinstance(value, FxValue)
    return value


def _native(value: Value | None) -> Any:
    """The fx node of a value, or the number that it is."""
    if value is None:
        return None
    return value.number if isinstance(value, FxLiteral) else _fx(value).native


def _tensor_first(a: Any, b: Any) -> tuple[Any, Any]:
    return (a, b) if isinstance(a, fx.Node) else (b, a)


def _fake_mode(node: fx.Node) -> Any:
    """The fake tensor mode of the graph, in which results get their shapes and types."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else (value,)
    return next((v.fake_mode for v in values if hasattr(v, "fake_mode")), None)


def _device_of(node: fx.Node) -> torch.device:
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else (value,)
    return next((v.device for v in values if isinstance(v, torch.Tensor)), torch.device("cpu"))


def _numpy_type(dtype: str) -> str:
    return "float32" if dtype in _NARROW else dtype
