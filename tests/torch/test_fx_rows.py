"""Every row of the table that reads ATen operators: the reading computes what the operator does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from odp.rewriter.fx_node import FxLiteral, FxNode, FxValue
from odp.rewriter.fx_rows import ROWS
from odp.rewriter.graph import VOCABULARY

from .neutral_reference import MOVES, REFERENCE
from .small_graphs import aten, call_of

X = torch.linspace(-2.0, 2.0, 24).reshape(2, 3, 4)
Y = torch.linspace(1.5, -1.5, 24).reshape(2, 3, 4) + 0.0625
POSITIVE = X.abs() + 0.25
BELOW_ONE = X / 4.0
WEIGHT, BIAS = torch.tensor([0.5, 1.0, 1.5]), torch.tensor([-0.5, 0.0, 0.5])
LAST_WEIGHT, LAST_BIAS = torch.tensor([0.5, 1.0, 1.5, 2.0]), torch.tensor([-1.0, -0.5, 0.5, 1.0])
SIGN = X > 0.1
INDICES = torch.tensor([1, 0, 1])

Call = tuple[Any, ...]
"""An operator and its arguments; keyword arguments in a dict at the end."""

_DOMAINS = {
    **dict.fromkeys(("log", "sqrt", "rsqrt", "reciprocal"), POSITIVE),
    **dict.fromkeys(("asin", "acos", "atanh"), BELOW_ONE),
    "acosh": POSITIVE + 1.0,
}
_UNARY = (
    *("exp", "log", "sqrt", "rsqrt", "reciprocal", "erf", "sin", "cos", "tan", "sinh", "cosh"),
    *("asin", "acos", "atan", "asinh", "acosh", "atanh", "tanh", "sigmoid", "mish", "neg", "abs"),
    *("relu", "silu", "selu", "square"),
)

CALLS: dict[str, list[Call]] = {
    **{name: [(getattr(aten, name).default, _DOMAINS.get(name, X))] for name in _UNARY},
    "add": [(aten.add.Tensor, X, Y), (aten.add.Tensor, X, 0.75), (aten.add.Scalar, X, 2)],
    "sub": [(aten.sub.Tensor, X, Y), (aten.sub.Tensor, X, 0.75)],
    "rsub": [(aten.rsub.Scalar, X, 0.75), (aten.rsub.Tensor, X, Y)],
    "mul": [(aten.mul.Tensor, X, Y), (aten.mul.Tensor, X, -1.5)],
    "div": [(aten.div.Tensor, X, Y), (aten.div.Tensor, X, 3.0)],
    "pow": [
        (aten.pow.Tensor_Scalar, POSITIVE, 0.3),
        (aten.pow.Tensor_Tensor, POSITIVE, Y),
        (aten.pow.Scalar, 1.5, X),
    ],
    "maximum": [(aten.maximum.default, X, Y)],
    "minimum": [(aten.minimum.default, X, Y)],
    "max.other": [(aten.max.other, X, Y)],
    "min.other": [(aten.min.other, X, Y)],
    "clamp": [
        (aten.clamp.default, X, -0.5, 1.0),
        (aten.clamp.default, X, None, 1.0),
        (aten.clamp.default, X, -0.5),
    ],
    "clamp_min": [(aten.clamp_min.default, X, 0.25)],
    "clamp_max": [(aten.clamp_max.default, X, 0.25)],
    "hardtanh": [(aten.hardtanh.default, X), (aten.hardtanh.default, X, -0.25, 0.5)],
    "where": [
        (aten.where.self, SIGN, X, Y),
        (aten.where.ScalarOther, SIGN, X, 0.5),
        (aten.where.ScalarSelf, SIGN, 0.5, X),
    ],
    "masked_fill": [
        (aten.masked_fill.Scalar, X, SIGN, -1.25),
        (aten.masked_fill.Tensor, X, SIGN, torch.tensor(0.5)),
    ],
    "gt": [(aten.gt.Tensor, X, Y), (aten.gt.Scalar, X, 0.5)],
    "gelu": [(aten.gelu.default, X), (aten.gelu.default, X, {"approximate": "tanh"})],
    "softplus": [(aten.softplus.default, X), (aten.softplus.default, X, 1, 50)],
    "elu": [(aten.elu.default, X), (aten.elu.default, X, 0.75)],
    "celu": [(aten.celu.default, X), (aten.celu.default, X, 1.5)],
    "mean": [
        (aten.mean.dim, X, [-1], True),
        (aten.mean.dim, X, [0, -1]),
        (aten.mean.dim, X, None),
        (aten.mean.default, X),
    ],
    "sum": [
        (aten.sum.dim_IntList, X, [1]),
        (aten.sum.dim_IntList, X, [], True),
        (aten.sum.default, X),
    ],
    "amax": [(aten.amax.default, X, [-1], True), (aten.amax.default, X)],
    "max.dim": [(aten.max.dim, X, -1, True), (aten.max.dim, X, 0)],
    "max.default": [(aten.max.default, X)],
    "logsumexp": [(aten.logsumexp.default, X, [-1]), (aten.logsumexp.default, X, [0, 2], True)],
    "linalg_vector_norm": [
        (aten.linalg_vector_norm.default, X),
        (aten.linalg_vector_norm.default, X, 2, [-1], True),
    ],
    "norm.ScalarOpt_dim": [
        (aten.norm.ScalarOpt_dim, X, 2, [1]),
        (aten.norm.ScalarOpt_dim, X, None, [1], True),
    ],
    "norm.Scalar": [(aten.norm.Scalar, X)],
    "softmax": [(aten.softmax.int, X, -1), (aten.softmax.int, X, 0)],
    "_softmax": [(aten._softmax.default, X, 1, False)],
    "log_softmax": [(aten.log_softmax.int, X, -2)],
    "_log_softmax": [(aten._log_softmax.default, X, 2, False)],
    "layer_norm": [
        (aten.layer_norm.default, X, [4], LAST_WEIGHT, LAST_BIAS, 1e-3),
        (aten.layer_norm.default, X, [3, 4]),
        (aten.layer_norm.default, X, [4], LAST_WEIGHT),
    ],
    "native_layer_norm": [(aten.native_layer_norm.default, X, [4], LAST_WEIGHT, LAST_BIAS, 1e-3)],
    "rms_norm": [
        (aten.rms_norm.default, X, [4], LAST_WEIGHT, 1e-3),
        (aten.rms_norm.default, X / 64.0, [3, 4]),
    ],
    "group_norm": [
        (aten.group_norm.default, X, 3, WEIGHT, BIAS, 1e-3),
        (aten.group_norm.default, X, 1),
    ],
    "native_group_norm": [
        (aten.native_group_norm.default, X, WEIGHT, BIAS, 2, 3, 4, 1, 1e-3),
        (aten.native_group_norm.default, X, None, None, 2, 3, 4, 3, 1e-3),
    ],
    "instance_norm": [
        (aten.instance_norm.default, X, WEIGHT, BIAS, None, None, True, 0.1, 1e-3, False),
        (aten.instance_norm.default, X, None, None, None, None, True, 0.1, 1e-3, False),
    ],
    "matmul": [(aten.matmul.default, X, Y.mT), (aten.matmul.default, X, LAST_WEIGHT)],
    "mm": [(aten.mm.default, X[0], Y[0].mT)],
    "bmm": [(aten.bmm.default, X, Y.mT)],
    "view": [(aten.view.default, X, [6, 4])],
    "reshape": [(aten.reshape.default, X, [-1])],
    "_unsafe_view": [(aten._unsafe_view.default, X, [6, 4])],
    "flatten": [(aten.flatten.using_ints, X, 1)],
    "transpose": [(aten.transpose.int, X, 0, -1)],
    "permute": [(aten.permute.default, X, [2, 0, 1])],
    "t": [(aten.t.default, X[0])],
    "expand": [(aten.expand.default, X[:1], [5, 3, 4])],
    "broadcast_to": [(aten.broadcast_to.default, X[:1], [5, 3, 4])],
    "slice": [(aten.slice.Tensor, X, 1, 0, 2)],
    "cat": [(aten.cat.default, [X, Y], 1), (aten.cat.default, [X, Y, X], -1)],
    "squeeze": [(aten.squeeze.dim, X[:1], 0), (aten.squeeze.dims, X[:1], [0, 1])],
    "unsqueeze": [(aten.unsqueeze.default, X, -1)],
    "embedding": [(aten.embedding.default, X[0], INDICES)],
    "index_select": [
        (aten.index_select.default, X, 0, INDICES),
        (aten.index_select.default, X, -1, INDICES),
    ],
    "_to_copy": [
        (aten._to_copy.default, X, {"dtype": torch.float64}),
        (aten._to_copy.default, X, {"dtype": torch.float16}),
    ],
    "to": [(aten.to.dtype, X, torch.float64)],
    "alias": [(aten.alias.default, X)],
    "clone": [(aten.clone.default, X)],
    "contiguous": [(aten.contiguous.default, X)],
    "detach": [(aten.detach.default, X)],
    "lift_fresh_copy": [(aten.lift_fresh_copy.default, X)],
    "dropout": [(aten.dropout.default, X, 0.5, False)],
    "repeat": [(aten.repeat.default, X, [2, 1, 1])],
}

# Arguments that put an operator outside of the vocabulary.
OUTSIDE: list[Call] = [
    (aten.add.Tensor, X, Y, {"alpha": 2}),
    (aten.sub.Tensor, X, Y, {"alpha": 2}),
    (aten.rsub.Scalar, X, 1.0, 2.0),
    (aten.div.Tensor_mode, X, Y, {"rounding_mode": "floor"}),
    (aten.clamp.Tensor, X, Y),
    (aten.softplus.default, X, 2.0),
    (aten.softplus.default, X, 1.0, 4.0),
    (aten.elu.default, X, 1.0, 1.5),
    (aten.elu.default, X, 1.0, 1.0, 0.5),
    (aten.linalg_vector_norm.default, X, 3),
    (aten.norm.Scalar, X, 1),
    (aten.norm.ScalarOpt_dim, X, 4, [1]),
    (aten.dropout.default, X, 0.5, True),
    (aten.instance_norm.default, X, None, None, BIAS, WEIGHT, False, 0.1, 1e-3, False),
    (aten.exp.default, torch.complex(X, Y)),
    (aten.mul.Tensor, torch.complex(X, Y), X),
    (aten.cumsum.default, X, 1),
    (aten.atan2.default, X, Y),
]


def node_of(call: Call, dtype: torch.dtype | None = None) -> tuple[FxNode, list[torch.Tensor]]:
    """The view of a call, and its tensors in the order of the inputs of its graph."""
    target, *rest = call
    kwargs = rest.pop() if isinstance(rest[-1], dict) else {}
    tensors: list[torch.Tensor] = []

    def prepared(value: Any) -> Any:
        if isinstance(value, list):
            return [prepared(item) for item in value]
        if isinstance(value, torch.Tensor):
            floating = value.is_floating_point() and dtype is not None
            tensors.append(value.to(dtype) if floating else value)
            return tensors[-1]
        return value

    return call_of(target, *(prepared(value) for value in rest), **kwargs), tensors


def test_every_row_is_tried() -> None:
    assert set(CALLS) == set(ROWS)


def test_every_row_speaks_the_vocabulary() -> None:
    operations = {node_of(call)[0].op for calls in CALLS.values() for call in calls}
    assert operations <= VOCABULARY
    assert operations <= set(REFERENCE) | MOVES


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "index"), [(name, i) for name, calls in CALLS.items() for i in range(len(calls))]
)
def test_a_reading_computes_what_the_operator_does(
    name: str, index: int, dtype: torch.dtype
) -> None:
    node, tensors = node_of(CALLS[name][index], dtype)
    names = [native.name for native in node.native.all_input_nodes]
    by_name = dict(zip(names, tensors, strict=True))
    operands = [_number(value, by_name) for value in node.inputs]
    result = node.graph.module(*tensors)[0]
    result = result[0] if isinstance(result, tuple) else result
    assert node.output.dtype == str(result.dtype).removeprefix("torch.")
    assert node.output.shape == result.shape
    if node.op in MOVES:
        assert [value.name for value in node.inputs if value is not None] == names
        assert set(result.flatten().tolist()) <= set(tensors[0].flatten().tolist())
        return
    expected = REFERENCE[node.op](*operands, **node.attributes)
    assert result.shape == expected.shape
    if result.dtype == torch.bool:
        # A number that is not in the type of the tensor is compared after rounding to it.
        assert torch.equal(result, expected)
        return
    # The functions of torch are good to a few units in the last place of their type.
    size = float(expected.abs().max().clamp(min=1.0))
    unit = max(torch.finfo(dtype).eps, torch.finfo(result.dtype).eps)
    assert (result.double() - expected.double()).abs().max() <= 8 * unit * size


def _number(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if value is None:
        return None
    if isinstance(value, FxLiteral):
        return torch.tensor(value.number, dtype=torch.float64)
    assert isinstance(value, FxValue)
    tensor = tensors[value.name]
    return tensor.double() if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("index", range(len(OUTSIDE)))
def test_outside_of_the_vocabulary_an_operator_keeps_its_name(index: int) -> None:
    node, tensors = node_of(OUTSIDE[index])
    assert node.op == node.native_type
    assert node.op.startswith("aten::")
    assert [value.name for value in node.inputs if value is not None] == [
        native.name for native in node.native.all_input_nodes
    ]
    assert len(node.inputs) == len(tensors)


def test_axes_are_sorted_and_not_negative() -> None:
    node, _ = node_of((aten.mean.dim, X, [-1, 0], True))
    assert node.attributes == {"axes": (0, 2), "keepdims": True, "identity_when_empty": False}


def test_a_scalar_has_no_axes() -> None:
    node, _ = node_of((aten.softmax.int, torch.tensor(1.0), -1))
    assert node.attributes["axes"] == ()


def test_operators_of_other_libraries_keep_their_names() -> None:
    node, _ = node_of((torch.ops.prims.exp.default, X))
    assert node.op == "prims::exp"
    assert [value.name for value in node.inputs if value is not None] == ["x0"]
