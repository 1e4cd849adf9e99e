"""How ATen spells the neutral vocabulary: overloads to operations, arguments to operands.

Everything that depends on a torch operator, on the way in, is in the table of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

__all__ = ["ROWS", "Arguments", "Operand", "Reading", "Row", "dtype_name"]

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Operand:
    """Where an operand of the vocabulary stands among the arguments of a torch operator.

    Attributes:
        argument: name of the argument in the operator's schema; empty for a literal.
        index: position in an argument that is a list, else None.
        literal: the number that the operator implies (the 2 of `square`), where `argument` is
            empty.
    """

    argument: str
    index: int | None = None
    literal: float | None = None


@dataclass(frozen=True)
class Reading:
    """One fx node in the neutral vocabulary: name, operands, attributes in normal form."""

    op: str
    operands: tuple[Operand, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


Row = Callable[[fx.Node, Arguments], Reading | None]
"""Reads a node; None where its arguments put it outside the vocabulary."""


def _is(op: str, *names: str, **attributes: Any) -> Row:
    """A row that renames an operator; arguments that are None are absent operands at the end."""

    def row(node: fx.Node, arguments: Arguments) -> Reading:
        del node
        present = [name for name in names if name in arguments]
        while present and arguments[present[-1]] is None:
            present.pop()
        return Reading(op, tuple(Operand(name) for name in present), dict(attributes))

    return row


def _unary(op: str, argument: str = "self", **attributes: Any) -> Row:
    return _is(op, argument, **attributes)


def _sum(op: str, first: str, second: str) -> Row:
    """`add` and `sub`, which are what they seem only without a factor `alpha`."""

    def row(node: fx.Node, arguments: Arguments) -> Reading | None:
        del node
        if arguments.get("alpha", 1) != 1:
            return None
        return Reading(op, (Operand(first), Operand(second)))

    return row


def _div(node: fx.Node, arguments: Arguments) -> Reading | None:
    del node
    if arguments.get("rounding_mode") is not None:
        return None
    return Reading("div", (Operand("self"), Operand("other")))


def _square(node: fx.Node, arguments: Arguments) -> Reading:
    del node, arguments
    return Reading("pow", (Operand("self"), Operand("", literal=2.0)))


def _clip(low: str | None, high: str | None) -> Row:
    def row(node: fx.Node, arguments: Arguments) -> Reading | None:
        del node
        bounds = {
            "low": None if low is None else arguments[low],
            "high": None if high is None else arguments[high],
        }
        if any(isinstance(bound, fx.Node) for bound in bounds.values()):
            return None
        return Reading("clip", (Operand("self"),), bounds)

    return row


def _reduction(op: str) -> Row:
    def row(node: fx.Node, arguments: Arguments) -> Reading:
        attributes = {
            "axes": _axes(node, arguments.get("dim")),
            "keepdims": bool(arguments.get("keepdim", False)),
            "identity_when_empty": False,
        }
        return Reading(op, (Operand("self"),), attributes)

    return row


def _length(node: fx.Node, arguments: Arguments) -> Reading | None:
    """`linalg_vector_norm` and the older `norm`, of order 2."""
    order = arguments.get("ord", arguments.get("p", 2))
    if order is not None and order != 2:
        return None
    return _reduction("reduce_l2")(node, arguments)


def _softmax(op: str) -> Row:
    def row(node: fx.Node, arguments: Arguments) -> Reading:
        return Reading(op, (Operand("self"),), {"axes": _axes(node, arguments["dim"])})

    return row


def _layer_norm(op: str) -> Row:
    def row(node: fx.Node, arguments: Arguments) -> Reading:
        rank = _rank(node.args[0])
        count = len(arguments["normalized_shape"])
        epsilon = arguments.get("eps")
        if epsilon is None:
            # torch.nn.functional.rms_norm: the machine epsilon of the type that it computes in,
            # which for half precision is float32.
            dtype = _value(node.args[0]).dtype
            epsilon = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
        axes = None if rank is None else tuple(range(rank - count, rank))
        names = ["input", "weight", "bias"] if op == "layer_norm" else ["input", "weight"]
        while names and arguments.get(names[-1]) is None:
            names.pop()
        operands = tuple(Operand(name) for name in names)
        return Reading(op, operands, {"axes": axes, "epsilon": float(epsilon)})

    return row


def _group_norm(node: fx.Node, arguments: Arguments) -> Reading:
    del node
    attributes = {
        "epsilon": arguments["eps"],
        "groups": arguments.get("num_groups", arguments.get("group")),
        "per_channel": True,
    }
    return Reading("group_norm", _norm_operands(arguments), attributes)


def _instance_norm(node: fx.Node, arguments: Arguments) -> Reading | None:
    del node
    if not arguments["use_input_stats"]:
        return None
    return Reading("instance_norm", _norm_operands(arguments), {"epsilon": arguments["eps"]})


def _norm_operands(arguments: Arguments) -> tuple[Operand, ...]:
    names = ["input", "weight", "bias"]
    while arguments.get(names[-1]) is None:
        names.pop()
    return tuple(Operand(name) for name in names)


def _gelu(node: fx.Node, arguments: Arguments) -> Reading:
    del node
    return Reading("gelu", (Operand("self"),), {"approximate": arguments["approximate"]})


def _softplus(node: fx.Node, arguments: Arguments) -> Reading | None:
    del node
    # Above `threshold` torch returns x itself, which is softplus(x) to 2e-9 at the usual 20.
    if arguments["beta"] != 1 or arguments["threshold"] < 16:
        return None
    return Reading("softplus", (Operand("self"),))


def _elu(node: fx.Node, arguments: Arguments) -> Reading | None:
    del node
    if arguments["scale"] != 1 or arguments["input_scale"] != 1:
        return None
    return Reading("elu", (Operand("self"),), {"alpha": arguments["alpha"]})


def _celu(node: fx.Node, arguments: Arguments) -> Reading:
    del node
    return Reading("celu", (Operand("self"),), {"alpha": arguments["alpha"]})


def _concat(node: fx.Node, arguments: Arguments) -> Reading:
    del node
    count = len(arguments["tensors"])
    operands = tuple(Operand("tensors", index) for index in range(count))
    return Reading("concat", operands, {"axis": arguments["dim"]})


def _where(node: fx.Node, arguments: Arguments) -> Reading | None:
    del node
    if "self" not in arguments:
        return None
    return Reading("where", (Operand("condition"), Operand("self"), Operand("other")))


def _masked_fill(node: fx.Node, arguments: Arguments) -> Reading:
    del node, arguments
    return Reading("where", (Operand("mask"), Operand("value"), Operand("self")))


def _to(node: fx.Node, arguments: Arguments) -> Reading:
    del arguments
    source, target = _value(node.args[0]).dtype, _value(node).dtype
    if source == target:
        return Reading("identity", (Operand("self"),))
    return Reading("cast", (Operand("self"),), {"dtype": dtype_name(target)})


def _dropout(node: fx.Node, arguments: Arguments) -> Reading | None:
    del node
    return None if arguments["train"] else Reading("identity", (Operand("input"),))


def _index_select(node: fx.Node, arguments: Arguments) -> Reading:
    rank = _rank(node.args[0])
    axis = arguments["dim"] % rank if rank else 0
    return Reading("gather", (Operand("self"), Operand("index")), {"axis": axis})


ROWS: dict[str, Row] = {
    **{
        name: _unary(name)
        for name in (
            *("exp", "log", "sqrt", "rsqrt", "reciprocal", "erf", "sin", "cos", "tan", "sinh"),
            *("cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "tanh", "sigmoid"),
            *("mish", "neg", "abs", "relu"),
        )
    },
    "add": _sum("add", "self", "other"),
    "sub": _sum("sub", "self", "other"),
    "rsub": _sum("sub", "other", "self"),
    "mul": _is("mul", "self", "other"),
    "div": _div,
    "pow": _is("pow", "self", "exponent"),
    "square": _square,
    "maximum": _is("max", "self", "other"),
    "minimum": _is("min", "self", "other"),
    "max.other": _is("max", "self", "other"),
    "min.other": _is("min", "self", "other"),
    "clamp": _clip("min", "max"),
    "clamp_min": _clip("min", None),
    "clamp_max": _clip(None, "max"),
    "hardtanh": _clip("min_val", "max_val"),
    "where": _where,
    "masked_fill": _masked_fill,
    "gt": _is("greater", "self", "other"),
    "silu": _unary("silu", alpha=1.0),
    "gelu": _gelu,
    "softplus": _softplus,
    "elu": _elu,
    "selu": _unary("selu", alpha=1.6732632423543772, gamma=1.0507009873554805),
    "celu": _celu,
    "mean": _reduction("reduce_mean"),
    "sum": _reduction("reduce_sum"),
    "amax": _reduction("reduce_max"),
    "max.dim": _reduction("reduce_max"),
    "max.default": _reduction("reduce_max"),
    "logsumexp": _reduction("reduce_log_sum_exp"),
    "linalg_vector_norm": _length,
    "norm.ScalarOpt_dim": _length,
    "norm.Scalar": _length,
    "softmax": _softmax("softmax"),
    "_softmax": _softmax("softmax"),
    "log_softmax": _softmax("log_softmax"),
    "_log_softmax": _softmax("log_softmax"),
    "layer_norm": _layer_norm("layer_norm"),
    "native_layer_norm": _layer_norm("layer_norm"),
    "rms_norm": _layer_norm("rms_norm"),
    "group_norm": _group_norm,
    "native_group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "matmul": _is("matmul", "self", "other"),
    "mm": _is("matmul", "self", "mat2"),
    "bmm": _is("matmul", "self", "mat2"),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten"), _unary("reshape")),
    **dict.fromkeys(("transpose", "permute", "t"), _unary("transpose")),
    **dict.fromkeys(("expand", "broadcast_to"), _is("expand", "self")),
    "slice": _unary("slice"),
    "cat": _concat,
    "squeeze": _unary("squeeze"),
    "unsqueeze": _unary("unsqueeze"),
    "embedding": _is("gather", "weight", "indices", axis=0),
    "index_select": _index_select,
    **dict.fromkeys(("_to_copy", "to"), _to),
    **dict.fromkeys(("alias", "clone", "contiguous", "detach"), _unary("identity")),
    "lift_fresh_copy": _unary("identity"),
    "dropout": _dropout,
    "repeat": _unary("tile"),
}
"""By name of the operator, or with its overload where the overloads differ."""


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, `bfloat16`, `int64`, ...: what numpy calls a torch element type."""
    return str(dtype).removeprefix("torch.")


def _axes(node: fx.Node, dims: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """Non-negative sorted axes; all of them for None or an empty list; None without a rank."""
    rank = _rank(node.args[0])
    if rank is None:
        return None
    if dims is None or (not isinstance(dims, int) and len(dims) == 0):
        return tuple(range(rank))
    listed = [dims] if isinstance(dims, int) else list(dims)
    return tuple(sorted(axis % rank for axis in listed)) if rank else ()


def _rank(argument: Any) -> int | None:
    value = _value(argument)
    return None if value is None else value.dim()


def _value(argument: Any) -> Any:
    """The (fake) tensor that an argument stands for, or None."""
    value = argument.meta.get("val") if isinstance(argument, fx.Node) else None
    return value if isinstance(value, torch.Tensor) else None
