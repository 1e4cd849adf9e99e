"""Small ONNX graphs for EZKL: single operators, and blocks of transformers in two regimes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Operand = str | float | NDArray[Any]


@dataclass
class GraphBuilder:
    """A graph, written node by node; numbers and arrays become constants of float32."""

    inputs: dict[str, tuple[int, ...]]
    opset: int = 13
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def constant(self, value: float | NDArray[Any]) -> str:
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def __call__(
        self, op_type: str, *operands: Operand, outputs: int = 1, **attributes: Any
    ) -> str:
        names = [o if isinstance(o, str) else self.constant(o) for o in operands]
        name = f"n{len(self.nodes)}"
        results = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, names, results, name=name, **attributes))
        return results[0]

    def model(self, *outputs: str) -> onnx.ModelProto:
        names = outputs or (self.nodes[-1].output[0],)
        graph = helper.make_graph(
            self.nodes,
            "g",
            [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
                for n, s in self.inputs.items()
            ],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names],
            [numpy_helper.from_array(v, n) for n, v in self.constants.items()],
        )
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _one(op_type: str, *operands: Operand, **attributes: Any) -> Callable[..., onnx.ModelProto]:
    def build(shape: tuple[int, ...]) -> onnx.ModelProto:
        g = GraphBuilder({"x": shape})
        g(op_type, "x", *operands, **attributes)
        return g.model()

    return build


def _first(op_type: str, operand: Operand) -> Callable[..., onnx.ModelProto]:
    def build(shape: tuple[int, ...]) -> onnx.ModelProto:
        g = GraphBuilder({"x": shape})
        g(op_type, operand, "x")
        return g.model()

    return build


def _pair(op_type: str) -> Callable[..., onnx.ModelProto]:
    def build(shape: tuple[int, ...]) -> onnx.ModelProto:
        g = GraphBuilder({"x": shape, "y": shape})
        g(op_type, "x", "y")
        return g.model()

    return build


def _matmul(columns: int, shared: bool = False) -> Callable[..., onnx.ModelProto]:
    def build(shape: tuple[int, ...]) -> onnx.ModelProto:
        g = GraphBuilder({"x": shape})
        weight = g.constant(normal(shape[-1], columns))
        product = g("MatMul", "x", weight)
        if shared:
            g("Add", product, g("MatMul", g("Neg", "x"), weight))
        return g.model()

    return build


def _self_product(shape: tuple[int, ...]) -> onnx.ModelProto:
    g = GraphBuilder({"x": shape})
    order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    g("MatMul", "x", g("Transpose", g("Neg", "x"), perm=order))
    return g.model()


def _gemm(shape: tuple[int, ...]) -> onnx.ModelProto:
    g = GraphBuilder({"x": shape})
    flat = g("Reshape", "x", np.asarray([-1, shape[-1]]))
    g("Gemm", flat, normal(6, shape[-1]), normal(6, seed=1), transB=1)
    return g.model()


def _rotate(shape: tuple[int, ...]) -> onnx.ModelProto:
    g = GraphBuilder({"x": shape})
    half = shape[-1] // 2
    a = g("Slice", "x", np.asarray([0]), np.asarray([half]), np.asarray([-1]))
    b = g("Slice", "x", np.asarray([half]), np.asarray([2 * half]), np.asarray([-1]))
    g("Concat", g("Neg", b), a, axis=-1)
    return g.model()


def _fused_gate(shape: tuple[int, ...]) -> onnx.ModelProto:
    """A product whose halves are read apart: tract slices the weights instead."""
    g = GraphBuilder({"x": shape})
    product = g("MatMul", "x", normal(shape[-1], 8))
    a = g("Split", product, outputs=2, axis=-1)
    g("Mul", g("Sigmoid", a), a.replace("_0", "_1"))
    return g.model()


def _where(shape: tuple[int, ...]) -> onnx.ModelProto:
    g = GraphBuilder({"x": shape})
    mask = np.arange(math.prod(shape)).reshape(shape) % 3 == 0
    g("Where", mask, "x", -4.0)
    return g.model()


def _expand(shape: tuple[int, ...]) -> onnx.ModelProto:
    g = GraphBuilder({"x": shape})
    g("Expand", g("Unsqueeze", "x", np.asarray([0])), np.asarray([3, *shape]))
    return g.model()


def _gather(shape: tuple[int, ...]) -> onnx.ModelProto:
    g = GraphBuilder({"x": shape})
    g("Neg", g("Gather", "x", np.asarray([2, 0, 1]), axis=-1))
    return g.model()


def _index(shape: tuple[int, ...]) -> onnx.ModelProto:
    g = GraphBuilder({"x": shape})
    g("Neg", g("Gather", "x", np.asarray([1]), axis=-1))
    return g.model()


def _free_factor(kind: str) -> Callable[..., onnx.ModelProto]:
    """One operand multiplied by 2 ** -3 first, which is free, and what it does to a reader."""

    def build(shape: tuple[int, ...]) -> onnx.ModelProto:
        g = GraphBuilder({"x": shape})
        small = g("Mul", "x", 0.125)
        if kind == "Square":
            g("Mul", small, small)
        elif kind == "MatMul":
            g("MatMul", small, np.round(normal(shape[-1], 4) * 8))
        elif kind in ("Neg", "Relu"):
            g(kind, small)
        elif kind == "Reshape":
            g("Reshape", small, np.asarray([-1]))
        elif kind == "ReduceSum":
            g("ReduceSum", small, np.asarray([-1]))
        elif kind == "AddConstant":
            g("Add", small, 3.0)
        elif kind == "AddOther":
            g("Add", small, "x")
        elif kind == "MulConstant":
            g("Mul", small, 5.0)
        elif kind == "Identity":
            pass
        else:
            g(kind, small, "x")
        return g.model()

    return build


def _layer_norm_op(shape: tuple[int, ...]) -> onnx.ModelProto:
    g = GraphBuilder({"x": shape}, opset=17)
    g("LayerNormalization", "x", normal(shape[-1]), normal(shape[-1], seed=1))
    return g.model()


def _clip_squares(shape: tuple[int, ...]) -> onnx.ModelProto:
    """What tract fuses: a mean of squares, the reciprocal of a root."""
    g = GraphBuilder({"x": shape})
    mean = g("ReduceMean", g("Pow", "x", 2.0), axes=[-1], keepdims=1)
    root = g("Sqrt", g("Add", mean, 1e-2))
    g("Mul", "x", g("Div", 1.0, root))
    return g.model()


def _square(shape: tuple[int, ...]) -> onnx.ModelProto:
    g = GraphBuilder({"x": shape})
    g("Mul", "x", "x")
    return g.model()


def _concatenated_product(shape: tuple[int, ...]) -> onnx.ModelProto:
    """[x, -x] W: tract makes two products of it, and EZKL rescales both."""
    g = GraphBuilder({"x": shape})
    g("MatMul", g("Concat", "x", g("Neg", "x"), axis=-1), normal(2 * shape[-1], 3))
    return g.model()


def _equal_constants(shape: tuple[int, ...]) -> onnx.ModelProto:
    """Two constants of one value are one with two readers, laid out on its own."""
    g = GraphBuilder({"x": shape})
    g("Add", g("Mul", "x", normal(*shape)), normal(*shape))
    return g.model()


def _sliced_output(shape: tuple[int, ...]) -> onnx.ModelProto:
    g = GraphBuilder({"x": shape})
    total = g("Add", "x", 0.7)
    part = g("Slice", total, np.asarray([0]), np.asarray([2]), np.asarray([-1]))
    return g.model(total, part)


def _table_after_reshape(shape: tuple[int, ...]) -> onnx.ModelProto:
    """Element-wise operations move in front of a reshape, and take its rescale."""
    g = GraphBuilder({"x": shape})
    g("Sigmoid", g("Reshape", g("Mul", "x", 0.25), np.asarray([-1, 1, shape[-1]])))
    return g.model()


def _nothing_left(shape: tuple[int, ...]) -> onnx.ModelProto:
    """The input is laid out all the same."""
    g = GraphBuilder({"x": shape})
    g("Mul", "x", 0.0)
    return g.model()


SINGLE: dict[str, Callable[[tuple[int, ...]], onnx.ModelProto]] = {
    **{
        op: _one(op)
        for op in (
            "Sigmoid", "Tanh", "Exp", "Erf", "Log", "Sin", "Cos", "Relu", "Abs", "Neg", "Sqrt",
            "Reciprocal", "HardSigmoid", "Softplus", "Elu", "Sign", "Identity", "Floor",
            "HardSwish", "Softsign",
        )
    },
    "LeakyRelu": _one("LeakyRelu", alpha=0.1),
    "Clip": _one("Clip", -4.0, 4.0),
    **{f"{op} x y": _pair(op) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min")},
    "x + c": _one("Add", 0.3),
    "x + 0": _one("Add", 0.0),
    "c - x": _first("Sub", 2.0),
    "x * c": _one("Mul", 0.3),
    "x * 1/2": _one("Mul", 0.5),
    "x * 1": _one("Mul", 1.0),
    "x * 4": _one("Mul", 4.0),
    "x / 3": _one("Div", 3.0),
    "x / 8": _one("Div", 8.0),
    "c / x": _first("Div", 2.0),
    "Max c": _one("Max", 0.7),
    **{f"x ^ {e:g}": _one("Pow", e) for e in (2.0, 3.0, 5.0, 0.5, 1.5)},
    "x * x": _square,
    "MatMul weights": _matmul(7),
    "MatMul shared weights": _matmul(4, shared=True),
    "MatMul x x'": _self_product,
    "Gemm": _gemm,
    "ReduceSum": _one("ReduceSum", np.asarray([-1])),
    "ReduceMean": _one("ReduceMean", axes=[-1]),
    "ReduceMean no axis": _one("ReduceMean", axes=[-1], keepdims=0),
    "ReduceMax": _one("ReduceMax", axes=[-1]),
    "ReduceMin": _one("ReduceMin", axes=[0]),
    "ReduceL2": _one("ReduceL2", axes=[-1]),
    "Softmax": _one("Softmax", axis=-1),
    "Rotate half": _rotate,
    "Fused gate": _fused_gate,
    "Where": _where,
    "Expand": _expand,
    "Gather": _gather,
    "Gather one": _index,
    "MatMul of Concat": _concatenated_product,
    "Equal constants": _equal_constants,
    "Sliced output": _sliced_output,
    "Table after Reshape": _table_after_reshape,
    "x * 0": _nothing_left,
    "LayerNormalization": _layer_norm_op,
    "RMS": _clip_squares,
    **{
        f"2^-3 then {kind}": _free_factor(kind)
        for kind in (
            "Identity", "Neg", "Relu", "Reshape", "ReduceSum", "Square", "Mul", "MatMul",
            "AddConstant", "AddOther", "MulConstant", "Sub", "Max",
        )
    },
}  # fmt: skip
