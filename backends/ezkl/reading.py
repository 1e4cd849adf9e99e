"""From an ONNX graph to a circuit: every operator becomes + - * and moves, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from odp.backends.ezkl.circuit import Circuit, apply
from odp.backends.ezkl.lint import CircuitRefused, Problem, advice_for, input_problem
from odp.backends.ezkl.ternary import ternary
from odp.rewriter.module_paths import is_at_end, module_path_of

__all__ = ["read_circuit"]

_LARGEST_POWER = 16


def read_circuit(
    model: onnx.ModelProto,
    known: Sequence[Problem] = (),
    roots: bool = False,
    dense: Sequence[str] = (),
) -> Circuit:
    """The circuit of a rewritten model.

    Args:
        model: static shapes, opset 12.
        known: problems that were found before; what they left behind is not reported again.
        roots: whether the circuit may have square roots.
        dense: how paths of modules end whose ternary weights stay one matrix, for they will change.

    Raises:
        CircuitRefused: of everything in the model that no circuit has; names nodes and modules.
    """
    reader = _Reader(model, roots, dense)
    left = {problem.operator.lower() for problem in known}
    problems = [*known, *(p for p in reader.problems if p.operator.lower() not in left)]
    if problems:
        raise CircuitRefused(problems)
    return reader.circuit.without_unused()


class _Unreadable(Exception):
    """What is wrong with the node being read, and what to do."""


class _Reader:
    def __init__(self, model: onnx.ModelProto, roots: bool, dense: Sequence[str]) -> None:
        self.circuit, self.dense = Circuit(), dense
        self.rules = {k: v for k, v in _RULES.items() if roots or k != "Sqrt"}
        self.numbers: dict[str, int] = {}
        # As they are stored: indices and shapes are no numbers of the circuit.
        self.constants: dict[str, NDArray[Any]] = {}
        self.name = self.module = ""
        self.problems: list[Problem] = []
        # Values that nobody can compute; what reads them is no problem of its own.
        self.unknown: set[str] = set()
        self.opsets = list(model.opset_import)
        for initializer in model.graph.initializer:
            self.constants[initializer.name] = onnx.numpy_helper.to_array(initializer)
        for value in model.graph.input:
            if value.name not in self.constants:
                self._input(value, model.graph)
        for node in model.graph.node:
            self._read(node)
        for value in model.graph.output:
            if value.name not in self.unknown:
                self.circuit.outputs[value.name] = self.number(value.name)

    def _input(self, value: onnx.ValueInfoProto, graph: onnx.GraphProto) -> None:
        problem = input_problem(value, graph)
        if problem is not None:
            self.problems.append(problem)
            self.unknown.add(value.name)
            return
        extents = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        self.numbers[value.name] = self.circuit.input(value.name, extents)

    def _read(self, node: onnx.NodeProto) -> None:
        self.name = node.name or node.output[0]
        properties = {entry.key: entry.value for entry in node.metadata_props}
        self.module = module_path_of(node.name, properties)
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            self.constants[node.output[0]] = onnx.numpy_helper.to_array(attributes["value"])
            return
        rule = self.rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            if all(not name or name in self.constants for name in node.input):
                self._fold(node)
                return
            if rule is None:
                raise _Unreadable(advice_for(node))
            if self.unknown.isdisjoint(node.input):
                found = rule(self, node, attributes)
                results = found if isinstance(found, list) else [found]
                self.numbers.update(zip(node.output, results, strict=True))
                return
        except _Unreadable as problem:
            self.problems.append(Problem(self.where, node.op_type, str(problem)))
        self.unknown.update(node.output)

    def _fold(self, node: onnx.NodeProto) -> None:
        """Compute what depends on no input, such as the shape arithmetic that exporters leave."""
        from onnx.reference import ReferenceEvaluator

        feeds = {name: self.constants[name] for name in node.input if name}
        opsets = {entry.domain: entry.version for entry in self.opsets}
        try:
            results = ReferenceEvaluator(node, opsets=opsets).run(None, feeds)
        except Exception as error:  # onnx raises whatever its implementation of an operator raises
            raise _Unreadable(f"cannot be computed: {error}") from None
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
            raise _Unreadable(
                f"operand {index} ('{node.input[index]}') must be a constant here; store it in the "
                "model"
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
        raise _Unreadable(
            f"a circuit has powers of 1 to {_LARGEST_POWER}, not {_told(exponent)}; add pass 'pow'"
        )
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
    parts = None if is_at_end(r.module, r.dense) else ternary(r.circuit.nodes[w].value)
    if parts is None:
        return r.add("matmul", x, w)
    signs, scale = parts
    return r.add("mul", r.add("matmul", x, r.constant(signs)), r.constant(scale))


def _told(exponent: NDArray[Any] | None) -> str:
    if exponent is None:
        return "a variable"
    return f"{float(exponent.reshape(())):g}" if exponent.size == 1 else "several"


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
            raise _Unreadable("a circuit has no slices backwards; use Gather with constant indices")
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


_RULES: dict[str, Rule] = {
    "Abs": _same("abs"),
    "Add": _same("add"),
    "Cast": lambda r, node, a: r.number(node.input[0]),
    "Clip": _clip,
    "Concat": _concat,
    "Div": _div,
    "Dropout": lambda r, node, a: r.number(node.input[0]),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "Identity": lambda r, node, a: r.number(node.input[0]),
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
    "Sqrt": _same("sqrt"),
    "Squeeze": _squeeze,
    "Sub": _same("sub"),
    "Sum": _same("add"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
