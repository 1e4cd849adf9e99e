"""From an ONNX graph to a circuit: every operator becomes + - * and moves, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.ezkl.circuit import Circuit, apply

__all__ = ["read_circuit"]

_MODULE_KEYS = ("odp.module", "pkg.torch.onnx.name_scopes", "namespace")
_LARGEST_POWER = 16


def read_circuit(model: onnx.ModelProto) -> Circuit:
    """The circuit of a rewritten model.

    Args:
        model: static shapes, opset 12.

    Raises:
        OdpError: an operator is none of a circuit; names the node and its module.
    """
    reader = _Reader(model)
    return reader.circuit.without_unused()


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.circuit = Circuit()
        self.numbers: dict[str, int] = {}
        # As they are stored: indices and shapes are no numbers of the circuit.
        self.constants: dict[str, NDArray[Any]] = {}
        self.name = self.module = ""
        self.opsets = list(model.opset_import)
        for initializer in model.graph.initializer:
            self.constants[initializer.name] = onnx.numpy_helper.to_array(initializer)
        for value in model.graph.input:
            if value.name not in self.constants:
                self._input(value)
        for node in model.graph.node:
            self._read(node)
        for value in model.graph.output:
            self.circuit.outputs[value.name] = self.number(value.name)

    def _input(self, value: onnx.ValueInfoProto) -> None:
        tensor = value.type.tensor_type
        extents = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
        if 0 in extents:
            raise OdpError(
                f"input '{value.name}' has a dynamic shape; a circuit needs static ones "
                f"(--shape {value.name}=...)"
            )
        if tensor.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
            kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
            raise OdpError(
                f"input '{value.name}' is {kind}; a circuit takes real numbers: give it the "
                "embeddings instead of token ids"
            )
        self.numbers[value.name] = self.circuit.input(value.name, extents)

    def _read(self, node: onnx.NodeProto) -> None:
        self.name = node.name or node.output[0]
        properties = {entry.key: entry.value for entry in node.metadata_props}
        self.module = next((properties[k] for k in _MODULE_KEYS if k in properties), "")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            self.constants[node.output[0]] = onnx.numpy_helper.to_array(attributes["value"])
            return
        if all(not name or name in self.constants for name in node.input):
            self._fold(node)
            return
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise OdpError(
                f"{self.where} is a {node.op_type}, which no circuit of + - * can compute; "
                "rewrite it with a pass, or take it out of the model"
            )
        found = rule(self, node, attributes)
        results = found if isinstance(found, list) else [found]
        for name, number in zip(node.output, results, strict=True):
            self.numbers[name] = number

    def _fold(self, node: onnx.NodeProto) -> None:
        """Compute what depends on no input, such as the shape arithmetic that exporters leave."""
        from onnx.reference import ReferenceEvaluator

        feeds = {name: self.constants[name] for name in node.input if name}
        opsets = {entry.domain: entry.version for entry in self.opsets}
        try:
            results = ReferenceEvaluator(node, opsets=opsets).run(None, feeds)
        except Exception as error:  # onnx raises whatever its implementation of an operator raises
            raise OdpError(f"{self.where}: cannot compute this {node.op_type}: {error}") from None
        self.constants.update(zip(node.output, map(np.asarray, results), strict=True))

    @property
    def where(self) -> str:
        return f"node '{self.name}'" + (f" in {self.module}" if self.module else "")

    def number(self, name: str) -> int:
        """The node of a value; a constant becomes one when it is asked for."""
        if name not in self.numbers:
            value = self.constants[name]
            self.numbers[name] = self.circuit.constant(value, name)
        return self.numbers[name]

    def known(self, node: onnx.NodeProto, index: int) -> NDArray[Any] | None:
        """The value of an operand that is a constant, as it is stored; None if there is none."""
        if index >= len(node.input) or not node.input[index]:
            return None
        if node.input[index] not in self.constants:
            raise OdpError(
                f"{self.where}: operand {index} of {node.op_type} must be a constant here"
            )
        return self.constants[node.input[index]]

    def add(self, kind: str, *inputs: int, **attributes: Any) -> int:
        """Append a node that came from the one being read; one of constants is computed."""
        operands = [self.circuit.nodes[i] for i in inputs]
        if operands and all(node.value is not None for node in operands):
            values = [node.value for node in operands if node.value is not None]
            return self.circuit.constant(apply(kind, values, attributes), self.name, self.module)
        return self.circuit.add(kind, *inputs, name=self.name, module=self.module, **attributes)

    def constant(self, value: Any) -> int:
        return self.circuit.constant(value, self.name, self.module)

    def shape(self, number: int) -> tuple[int, ...]:
        return self.circuit.nodes[number].shape


Rule = Callable[[_Reader, onnx.NodeProto, dict[str, Any]], Any]


def _same(kind: str) -> Rule:
    def rule(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        numbers = [r.number(name) for name in node.input]
        result = numbers[0] if len(numbers) > 1 else r.add(kind, numbers[0])
        for number in numbers[1:]:
            result = r.add(kind, result, number)
        return result

    return rule


def _div(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x, y = r.number(node.input[0]), r.number(node.input[1])
    value = r.circuit.nodes[y].value
    if value is not None:
        return r.add("mul", x, r.constant(1.0 / value))
    return r.add("div", x, y)


def _reciprocal(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    return r.add("div", r.constant(1.0), r.number(node.input[0]))


def _pow(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    exponent = r.known(node, 1)
    value = None if exponent is None or exponent.size != 1 else float(exponent.reshape(()))
    if value is None or not (value.is_integer() and 1 <= value <= _LARGEST_POWER):
        raise OdpError(f"{r.where}: a circuit has powers of 1 to {_LARGEST_POWER}, not {exponent}")
    x, power = r.number(node.input[0]), int(value)
    result: int | None = None
    while power:
        if power & 1:
            result = x if result is None else r.add("mul", result, x)
        power >>= 1
        if power:
            x = r.add("mul", x, x)
    assert result is not None
    return result


def _matmul(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    return _product(r, r.number(node.input[0]), r.number(node.input[1]))


def _product(r: _Reader, x: int, w: int) -> int:
    """A matrix product; ternary weights (BitNet) stay -1, 0 and 1, which cost no bits."""
    weights = r.circuit.nodes[w].value
    scale = None if weights is None else _ternary_scale(weights)
    if weights is None or scale is None or scale == 1.0:
        return r.add("matmul", x, w)
    result = r.add("matmul", x, r.constant(np.sign(weights)))
    return r.add("mul", result, r.constant(scale))


def _ternary_scale(weights: NDArray[np.float64]) -> float | None:
    """The s of weights that are all -s, 0 or s."""
    sizes = np.abs(weights)
    scale = float(sizes.max(initial=0.0))
    return scale if scale > 0.0 and bool(((sizes == 0.0) | (sizes == scale)).all()) else None


def _gemm(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x, w = r.number(node.input[0]), r.number(node.input[1])
    x = r.add("transpose", x, order=(1, 0)) if a.get("transA") else x
    w = r.add("transpose", w, order=(1, 0)) if a.get("transB") else w
    result = _product(r, x, w)
    if a.get("alpha", 1.0) != 1.0:
        result = r.add("mul", result, r.constant(a["alpha"]))
    if len(node.input) > 2 and node.input[2]:
        bias = r.number(node.input[2])
        if a.get("beta", 1.0) != 1.0:
            bias = r.add("mul", bias, r.constant(a["beta"]))
        result = r.add("add", result, bias)
    return result


def _reduce(kind: str) -> Rule:
    def rule(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
        x = r.number(node.input[0])
        given = a.get("axes") if len(node.input) < 2 else r.known(node, 1)
        rank = len(r.shape(x))
        axes = tuple(sorted(int(axis) % rank for axis in (range(rank) if given is None else given)))
        result = r.add("reduce_max" if kind == "reduce_max" else "sum", x, axes=axes)
        if kind == "mean":
            count = int(np.prod([r.shape(x)[axis] for axis in axes]))
            result = r.add("mul", result, r.constant(1.0 / count))
        if a.get("keepdims", 1):
            return result
        kept = tuple(n for axis, n in enumerate(r.shape(x)) if axis not in axes)
        return r.add("reshape", result, shape=kept)

    return rule


def _reshape(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x = r.number(node.input[0])
    wanted = r.known(node, 1)
    assert wanted is not None
    old = r.shape(x)
    shape = [old[i] if n == 0 else int(n) for i, n in enumerate(wanted)]
    return _moved(r, x, np.broadcast_to(0.0, old).reshape(shape).shape)


def _squeeze(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x = r.number(node.input[0])
    given = a.get("axes") if len(node.input) < 2 else r.known(node, 1)
    old = r.shape(x)
    axes = [i for i, n in enumerate(old) if n == 1] if given is None else given
    gone = {int(axis) % len(old) for axis in axes}
    return _moved(r, x, tuple(n for i, n in enumerate(old) if i not in gone))


def _unsqueeze(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x = r.number(node.input[0])
    given: Any = a.get("axes") if len(node.input) < 2 else r.known(node, 1)
    return _moved(r, x, np.expand_dims(np.broadcast_to(0.0, r.shape(x)), tuple(given)).shape)


def _flatten(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x = r.number(node.input[0])
    old, axis = r.shape(x), int(a.get("axis", 1))
    axis = axis + len(old) if axis < 0 else axis
    return _moved(r, x, (int(np.prod(old[:axis])), int(np.prod(old[axis:]))))


def _moved(r: _Reader, x: int, shape: Sequence[int]) -> int:
    return x if tuple(shape) == r.shape(x) else r.add("reshape", x, shape=tuple(shape))


def _transpose(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x = r.number(node.input[0])
    order = a.get("perm") or tuple(reversed(range(len(r.shape(x)))))
    return r.add("transpose", x, order=tuple(order))


def _slice(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x = r.number(node.input[0])
    shape = r.shape(x)
    starts, stops, axes, steps = (r.known(node, index) for index in (1, 2, 3, 4))
    assert starts is not None and stops is not None
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    parts = []
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        if step < 1:
            raise OdpError(f"{r.where}: a circuit has no slices backwards")
        low, high, _ = slice(int(start), int(stop)).indices(shape[int(axis)])
        parts.append((int(axis) % len(shape), low, high, int(step)))
    return r.add("slice", x, parts=tuple(parts))


def _split(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> list[int]:
    x = r.number(node.input[0])
    axis = int(a.get("axis", 0)) % len(r.shape(x))
    count = r.shape(x)[axis]
    sizes = a.get("split") or [count // len(node.output)] * len(node.output)
    ends = np.cumsum(sizes)
    starts = ends - np.asarray(sizes)
    return [
        r.add("slice", x, parts=((axis, int(start), int(end), 1),))
        for start, end in zip(starts, ends, strict=True)
    ]


def _concat(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    numbers = [r.number(name) for name in node.input]
    return r.add("concat", *numbers, axis=int(a["axis"]))


def _gather(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    indices = r.known(node, 1)
    assert indices is not None
    x, axis = r.number(node.input[0]), int(a.get("axis", 0))
    if indices.ndim == 0:
        index = int(indices) % r.shape(x)[axis]
        part = r.add("slice", x, parts=((axis % len(r.shape(x)), index, index + 1, 1),))
        kept = list(r.shape(part))
        del kept[axis % len(kept)]
        return r.add("reshape", part, shape=tuple(kept))
    return r.add("gather", x, indices=indices.astype(np.int64), axis=axis)


def _clip(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x = r.number(node.input[0])
    for kind, index in (("max", 1), ("min", 2)):
        bound = r.known(node, index)
        if bound is not None:
            x = r.add(kind, x, r.constant(bound.astype(np.float64)))
    return x


def _expand(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    x, wanted = r.number(node.input[0]), r.known(node, 1)
    assert wanted is not None
    shape = np.broadcast_shapes(r.shape(x), tuple(int(n) for n in wanted))
    return x if shape == r.shape(x) else r.add("broadcast", x, shape=shape)


def _where(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    condition = r.known(node, 0)
    assert condition is not None
    chosen = condition.astype(np.float64)
    first, second = r.number(node.input[1]), r.number(node.input[2])
    one = r.add("mul", first, r.constant(chosen))
    return r.add("add", one, r.add("mul", second, r.constant(1.0 - chosen)))


def _identity(r: _Reader, node: onnx.NodeProto, a: dict[str, Any]) -> int:
    return r.number(node.input[0])


_RULES: dict[str, Rule] = {
    "Abs": _same("abs"),
    "Add": _same("add"),
    "Cast": _identity,
    "Clip": _clip,
    "Concat": _concat,
    "Div": _div,
    "Dropout": _identity,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "Identity": _identity,
    "MatMul": _matmul,
    "Max": _same("max"),
    "Min": _same("min"),
    "Mul": _same("mul"),
    "Neg": _same("neg"),
    "Pow": _pow,
    "Reciprocal": _reciprocal,
    "ReduceMax": _reduce("reduce_max"),
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "Relu": _same("relu"),
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _same("sub"),
    "Sum": _same("add"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
