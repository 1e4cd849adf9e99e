"""How ONNX spells the neutral vocabulary: operators to operations, attributes to their normal form.

Everything that depends on an ONNX operator or on the version of its operator set, on the way in, is
in the tables of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

__all__ = [
    "axes_of",
    "is_transcendental",
    "neutral_attributes",
    "neutral_op",
    "qualified_type",
]

_MICROSOFT = "com.microsoft"

_OPERATIONS: dict[str, str] = {
    **{op: op.lower() for op in ("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Relu", "Max", "Min")},
    **{
        op: op.lower() for op in ("Clip", "Where", "Exp", "Log", "Sqrt", "Reciprocal", "Pow", "Erf")
    },
    **{op: op.lower() for op in ("Sin", "Cos", "Tan", "Sinh", "Cosh", "Asin", "Acos", "Atan")},
    **{op: op.lower() for op in ("Asinh", "Acosh", "Atanh", "Tanh", "Sigmoid", "Gelu", "Softplus")},
    **{op: op.lower() for op in ("Mish", "Elu", "Selu", "Celu", "Softmax", "MatMul", "Reshape")},
    **{op: op.lower() for op in ("Transpose", "Expand", "Slice", "Concat", "Squeeze", "Unsqueeze")},
    **{op: op.lower() for op in ("Gather", "Cast", "Identity", "Split", "Tile")},
    **{op: op.lower() for op in ("LSTM", "GRU", "RNN", "Greater", "Conv")},
    "Swish": "silu",
    "LogSoftmax": "log_softmax",
    "ReduceMean": "reduce_mean",
    "ReduceSum": "reduce_sum",
    "ReduceMax": "reduce_max",
    "ReduceL2": "reduce_l2",
    "ReduceLogSum": "reduce_log_sum",
    "ReduceLogSumExp": "reduce_log_sum_exp",
    "ReduceSumSquare": "reduce_sum_square",
    "LayerNormalization": "layer_norm",
    "RMSNormalization": "rms_norm",
    # ONNX Runtime registers this one in the default domain although no ONNX version has it.
    "SimplifiedLayerNormalization": "rms_norm",
    "GroupNormalization": "group_norm",
    "InstanceNormalization": "instance_norm",
    "LpNormalization": "lp_norm",
    "LRN": "local_response_norm",
    "LpPool": "lp_pool",
    "GlobalLpPool": "global_lp_pool",
}

_CONTRIB_OPERATIONS: dict[str, str] = {
    "Gelu": "gelu",
    "FastGelu": "gelu",
    "BiasGelu": "gelu",
    "QuickGelu": "silu",
    "SimplifiedLayerNormalization": "rms_norm",
    "SkipLayerNormalization": "skip_layer_norm",
    "SkipSimplifiedLayerNormalization": "skip_rms_norm",
}

# Operators that hide a transcendental function or a square root, contrib ones included.
_TRANSCENDENTAL: frozenset[str] = frozenset(
    {
        *("Exp", "Log", "Sqrt", "Erf", "Sin", "Cos", "Tan", "Sinh", "Cosh", "Asin", "Acos", "Atan"),
        *("Asinh", "Acosh", "Atanh", "Tanh", "Sigmoid", "Swish", "Gelu", "Softplus", "Mish", "Elu"),
        *("Selu", "Celu", "Softmax", "LogSoftmax", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"),
        *("LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization"),
        *("SimplifiedLayerNormalization", "LRN", "MeanVarianceNormalization"),
        *("SoftmaxCrossEntropyLoss", "Attention", "LSTM", "GRU", "RNN"),
        *("LinearAttention", "SwiGLU", "MelWeightMatrix"),
        *("HannWindow", "HammingWindow", "BlackmanWindow"),
    }
)
_TRANSCENDENTAL_CONTRIB: frozenset[str] = frozenset(
    {
        *("Gelu", "FastGelu", "BiasGelu", "QuickGelu", "SkipLayerNormalization", "GroupNorm"),
        *("SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization", "BiasSoftmax"),
        *("EmbedLayerNormalization", "SkipGroupNorm", "DynamicQuantizeLSTM", "QAttention"),
        *("Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention"),
        *("DecoderMaskedMultiHeadAttention", "PackedMultiHeadAttention", "SparseAttention"),
        *("QLinearSigmoid", "QLinearSoftmax", "MoE", "QMoE", "GatedRelativePositionBias"),
    }
)
_TRANSCENDENTAL_ELSEWHERE: frozenset[str] = frozenset(
    {
        "ai.onnx.preview::FlexAttention",
        "ai.onnx.preview.training::Adagrad",
        "ai.onnx.preview.training::Adam",
        "ai.onnx.ml::SVMClassifier",
        "ai.onnx.ml::SVMRegressor",
    }
)


def qualified_type(node: ir.Node) -> str:
    """Operator type, prefixed with its domain unless that is the default one."""
    if node.domain in ("", "ai.onnx"):
        return node.op_type
    return f"{node.domain}::{node.op_type}"


def neutral_op(node: ir.Node) -> str:
    """Name of the operation in the neutral vocabulary, or `domain::OpType`."""
    if node.domain in ("", "ai.onnx"):
        name = _OPERATIONS.get(node.op_type)
        if name is not None:
            return name
    elif node.domain == _MICROSOFT:
        name = _CONTRIB_OPERATIONS.get(node.op_type)
        if name is not None:
            return name
    return f"{node.domain or 'ai.onnx'}::{node.op_type}"


def is_transcendental(node: ir.Node) -> bool:
    """Whether the operator is, or hides, a transcendental function or a root.

    `Pow` counts unless its exponent is a stored integer; norms with p = 1 do not count.
    """
    kind = node.op_type
    if node.domain == _MICROSOFT:
        return kind in _TRANSCENDENTAL_CONTRIB
    if node.domain not in ("", "ai.onnx"):
        # Classifiers end in a softmax or a logistic function if they are asked to.
        finish = _attribute(node, "post_transform", "NONE")
        return qualified_type(node) in _TRANSCENDENTAL_ELSEWHERE or finish not in ("NONE", 0)
    if kind == "Pow":
        exponent = constant_numbers(node.inputs[1])
        return exponent is None or not all(value.is_integer() for value in exponent)
    if kind == "LpNormalization":
        return int(_attribute(node, "p", 2)) == 2
    if kind in ("LpPool", "GlobalLpPool"):
        return int(_attribute(node, "p", 2)) != 1
    if kind == "CausalConvWithState":
        return bool(_attribute(node, "activation", "none") != "none")
    return kind in _TRANSCENDENTAL


def constant_numbers(value: ir.Value | None, limit: int = 4096) -> list[float] | None:
    """The elements of a stored constant of at most `limit` elements, or None."""
    if value is None or value.const_value is None or value.const_value.size > limit:
        return None
    return [float(number) for number in value.const_value.numpy().reshape(-1)]


def axes_of(node: ir.Node, version: int, rank: int | None) -> tuple[int, ...] | None:
    """The axes that a reduction, a softmax or a norm works on, non-negative when `rank` is known.

    Returns:
        The axes; None if they are computed at run time.
    """
    kind = node.op_type
    if kind in ("Softmax", "LogSoftmax") and node.domain != _MICROSOFT:
        if version >= 13:
            return _positive([_attribute(node, "axis", -1)], rank)
        first = int(_attribute(node, "axis", 1))
        return _positive(range(first + rank if first < 0 else first, rank), rank) if rank else None
    if kind in ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"):
        first = int(_attribute(node, "axis", -1))
        if rank is None:
            return (-1,) if first == -1 else None
        return tuple(range(first % rank, rank))
    if kind == "LpNormalization":
        return _positive([_attribute(node, "axis", -1)], rank)
    listed: Sequence[float] | None = _attribute(node, "axes", None)
    if listed is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        listed = constant_numbers(node.inputs[1])
        if listed is None:
            return None
    if not listed:
        if _attribute(node, "noop_with_empty_axes", 0):
            return None
        return tuple(range(rank)) if rank is not None else None
    return _positive([int(axis) for axis in listed], rank)


def neutral_attributes(node: ir.Node, version: int, rank: int | None) -> Mapping[str, Any]:
    """The attributes of `node` in the normal form of `odp.rewriter.graph`.

    Args:
        node: the ONNX node.
        version: version of the default operator set in force.
        rank: of the first input, or None if unknown.
    """
    name = neutral_op(node)
    normalise = _NORMALISERS.get(name)
    if normalise is not None:
        return normalise(node, version, rank)
    if name.startswith("reduce_"):
        empty_is_noop = bool(_attribute(node, "noop_with_empty_axes", 0))
        return {
            "axes": axes_of(node, version, rank),
            "keepdims": bool(_attribute(node, "keepdims", 1)),
            "identity_when_empty": empty_is_noop,
        }
    return {key: _plain(attribute) for key, attribute in node.attributes.items()}


def _softmax(node: ir.Node, version: int, rank: int | None) -> dict[str, Any]:
    return {"axes": axes_of(node, version, rank)}


def _layer_norm(node: ir.Node, version: int, rank: int | None) -> dict[str, Any]:
    return {"axes": axes_of(node, version, rank), "epsilon": _attribute(node, "epsilon", 1e-5)}


def _gelu(node: ir.Node, version: int, rank: int | None) -> dict[str, Any]:
    del version, rank
    tanh = node.op_type == "FastGelu" or _attribute(node, "approximate", "none") == "tanh"
    return {"approximate": "tanh" if tanh else "none"}


def _silu(node: ir.Node, version: int, rank: int | None) -> dict[str, Any]:
    del version, rank
    return {"alpha": _attribute(node, "alpha", 1.702 if node.op_type == "QuickGelu" else 1.0)}


def _group_norm(node: ir.Node, version: int, rank: int | None) -> dict[str, Any]:
    del rank
    return {
        "epsilon": _attribute(node, "epsilon", 1e-5),
        "groups": _attribute(node, "num_groups", 1),
        # Opset 18 has one scale per group, opset 21 corrected that to one per channel.
        "per_channel": version >= 21,
    }


def _lp_norm(node: ir.Node, version: int, rank: int | None) -> dict[str, Any]:
    return {"axes": axes_of(node, version, rank), "p": _attribute(node, "p", 2)}


def _defaults(**defaults: Any) -> Callable[[ir.Node, int, int | None], dict[str, Any]]:
    def normalise(node: ir.Node, version: int, rank: int | None) -> dict[str, Any]:
        del version, rank
        return {key: _attribute(node, key, default) for key, default in defaults.items()}

    return normalise


_NORMALISERS: dict[str, Callable[[ir.Node, int, int | None], dict[str, Any]]] = {
    "softmax": _softmax,
    "log_softmax": _softmax,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "skip_layer_norm": _defaults(epsilon=1e-12),
    "skip_rms_norm": _defaults(epsilon=1e-12),
    "gelu": _gelu,
    "silu": _silu,
    "group_norm": _group_norm,
    "instance_norm": _defaults(epsilon=1e-5),
    "lp_norm": _lp_norm,
    "local_response_norm": _defaults(alpha=1e-4, beta=0.75, bias=1.0, size=1),
    "lp_pool": _defaults(
        p=2,
        kernel_shape=(),
        strides=None,
        pads=None,
        auto_pad=None,
        dilations=None,
        ceil_mode=0,
    ),
    "global_lp_pool": _defaults(p=2),
    **dict.fromkeys(
        ("lstm", "gru", "rnn"),
        _defaults(
            direction="forward",
            layout=0,
            clip=0.0,
            activations=(),
            activation_alpha=(),
            activation_beta=(),
            input_forget=0,
            linear_before_reset=0,
        ),
    ),
    "elu": _defaults(alpha=1.0),
    "selu": _defaults(alpha=1.67326319217681884765625, gamma=1.05070102214813232421875),
    "celu": _defaults(alpha=1.0),
}


def _attribute(node: ir.Node, name: str, default: Any) -> Any:
    attribute = node.attributes.get(name)
    return default if attribute is None else _plain(attribute)


def _plain(attribute: ir.Attr) -> Any:
    value = attribute.value
    return value.decode() if isinstance(value, bytes) else value


def _positive(axes: Sequence[float], rank: int | None) -> tuple[int, ...]:
    whole = [int(axis) for axis in axes]
    if rank is not None:
        whole = [axis % rank for axis in whole]
    return tuple(sorted(whole))
