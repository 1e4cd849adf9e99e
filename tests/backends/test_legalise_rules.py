"""Each rule of the legaliser on the smallest model that needs it, against the original model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from odp.backends.onnx.check import check_model
from odp.backends.onnx.errors import LegalisationError
from odp.backends.onnx.legalise import legalise
from odp.backends.onnx.legalise_emitter import RULES

F, H, D, I = (  # noqa: E741
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.INT64,
)

# Both sides compute in float32, in another order: a handful of roundings of 6e-8 each, on values
# below about 30.  float16 has 11 bits: 1e-3.
_TOLERANCE = {F: 2e-6, H: 2e-3, D: 1e-12, I: 0}

# One row: operator, opset, inputs (dtype and shape, or a constant array), attributes, outputs.
_CASES: list[tuple[str, str, int, list[object], dict[str, object], int]] = [
    ("reduce mean", "ReduceMean", 18, [(F, [2, 3, 4]), np.array([-1, 0])], {"keepdims": 0}, 1),
    ("reduce all", "ReduceL2", 18, [(F, [2, 3])], {}, 1),
    ("reduce nothing", "ReduceMax", 18, [(F, [2, 3])], {"noop_with_empty_axes": 1}, 1),
    ("reduce sum", "ReduceSum", 13, [(F, [2, 3]), np.array([1])], {"keepdims": 1}, 1),
    ("reduce bool", "ReduceMax", 20, [(9, [2, 3]), np.array([1])], {}, 1),
    ("reduce float16", "ReduceSumSquare", 18, [(H, [2, 3]), np.array([1])], {}, 1),
    ("squeeze", "Squeeze", 13, [(F, [1, 3, 1]), np.array([-1])], {}, 1),
    ("squeeze all", "Squeeze", 13, [(F, [1, 3, 1])], {}, 1),
    ("unsqueeze", "Unsqueeze", 13, [(F, [3]), np.array([0, 2])], {}, 1),
    ("split sizes", "Split", 13, [(F, [2, 5]), np.array([2, 3])], {"axis": 1}, 2),
    ("split uneven", "Split", 18, [(F, [2, 5])], {"axis": 1, "num_outputs": 2}, 2),
    ("split even", "Split", 13, [(F, [2, 6])], {"axis": -1}, 3),
    ("softmax default axis", "Softmax", 13, [(F, [2, 3, 4])], {}, 1),
    ("softmax last", "Softmax", 13, [(F, [2, 3, 4])], {"axis": 2}, 1),
    ("softmax middle", "Softmax", 13, [(F, [2, 3, 4])], {"axis": 1}, 1),
    ("log softmax first", "LogSoftmax", 13, [(F, [2, 3, 4])], {"axis": -3}, 1),
    ("hardmax middle", "Hardmax", 13, [(F, [2, 3, 4])], {"axis": 1}, 1),
    ("softmax of opset 11", "Softmax", 11, [(F, [2, 3, 4])], {"axis": 1}, 1),
    ("layer norm", "LayerNormalization", 17, [(F, [2, 3, 8]), (F, [8]), (F, [8])], {}, 1),
    ("layer norm no bias", "LayerNormalization", 17, [(F, [2, 8]), (F, [8])], {"axis": 1}, 1),
    ("layer norm 3 outputs", "LayerNormalization", 17, [(F, [2, 8]), (F, [8])], {}, 3),
    ("layer norm 2 axes", "LayerNormalization", 17, [(F, [2, 3, 4]), (F, [3, 4])], {"axis": 1}, 1),
    ("layer norm half", "LayerNormalization", 17, [(H, [2, 8]), (H, [8]), (H, [8])], {}, 1),
    ("layer norm double", "LayerNormalization", 17, [(D, [2, 8]), (D, [8]), (D, [8])], {}, 1),
    ("rms norm", "RMSNormalization", 23, [(F, [2, 3, 8]), (F, [8])], {"epsilon": 1e-6}, 1),
    (
        "group norm 18",
        "GroupNormalization",
        18,
        [(F, [2, 4, 3, 3]), (F, [2]), (F, [2])],
        {"num_groups": 2},
        1,
    ),
    (
        "group norm 21",
        "GroupNormalization",
        21,
        [(F, [2, 4, 3]), (F, [4]), (F, [4])],
        {"num_groups": 2},
        1,
    ),
    (
        "batch norm",
        "BatchNormalization",
        15,
        [(F, [2, 3, 4]), (F, [3]), (F, [3]), (F, [3]), np.array([1, 2, 3], dtype=np.float32)],
        {},
        1,
    ),
    (
        "batch norm training",
        "BatchNormalization",
        15,
        [(F, [2, 3, 4]), (F, [3]), (F, [3]), (F, [3]), np.array([1, 2, 3], dtype=np.float32)],
        {"training_mode": 1},
        3,
    ),
    (
        "batch norm of opset 7",
        "BatchNormalization",
        7,
        [(F, [2, 3, 4]), (F, [3]), (F, [3]), (F, [3]), np.array([1, 2, 3], dtype=np.float32)],
        {"spatial": 1},
        1,
    ),
    ("gelu", "Gelu", 20, [(F, [2, 8])], {}, 1),
    ("gelu tanh", "Gelu", 20, [(F, [2, 8])], {"approximate": "tanh"}, 1),
    ("gelu half", "Gelu", 20, [(H, [2, 8])], {}, 1),
    ("mish", "Mish", 18, [(F, [2, 8])], {}, 1),
    ("swish", "Swish", 24, [(F, [2, 8])], {"alpha": 1.5}, 1),
    ("hard swish", "HardSwish", 14, [(F, [2, 8])], {}, 1),
    ("relu of integers", "Relu", 14, [(onnx.TensorProto.INT32, [2, 3])], {}, 1),
    ("reshape zero", "Reshape", 14, [(F, [2, 6]), np.array([3, -1])], {"allowzero": 1}, 1),
    ("shape slice", "Shape", 15, [(F, [2, 3, 4])], {"start": -2, "end": 3}, 1),
    ("cast like", "CastLike", 15, [(F, [2, 3]), (I, [1])], {}, 1),
    ("cast", "Cast", 19, [(F, [2, 3])], {"to": H, "saturate": 1}, 1),
    ("trilu upper", "Trilu", 14, [(F, [2, 4, 4]), np.array(1)], {}, 1),
    ("trilu lower", "Trilu", 14, [(I, [3, 4])], {"upper": 0}, 1),
    ("pad axes", "Pad", 18, [(F, [2, 3]), np.array([1, 2]), np.float32(7), np.array([1])], {}, 1),
    ("pad wrap", "Pad", 19, [(F, [2, 3]), np.array([1, 2, 0, 1])], {"mode": "wrap"}, 1),
    ("scatter", "ScatterND", 16, [(F, [4]), np.array([[1]]), (F, [1])], {"reduction": "none"}, 1),
    (
        "add of bytes",
        "Add",
        14,
        [(onnx.TensorProto.INT8, [3]), (onnx.TensorProto.INT8, [3])],
        {},
        1,
    ),
    ("cumsum half", "CumSum", 14, [(H, [2, 3]), np.array(1)], {}, 1),
    ("average pool", "AveragePool", 19, [(F, [1, 1, 4])], {"kernel_shape": [2]}, 1),
    (
        "max pool window in padding",
        "MaxPool",
        22,
        [(F, [1, 1, 2, 2])],
        {"kernel_shape": [1, 1], "strides": [2, 2], "ceil_mode": 1},
        1,
    ),
    ("clip of opset 6", "Clip", 7, [(F, [2, 3])], {"min": -0.5, "max": 0.5}, 1),
    ("clip lower", "Clip", 10, [(F, [2, 3])], {"min": 0.0}, 1),
    ("slice of opset 1", "Slice", 9, [(F, [4, 5])], {"starts": [1], "ends": [-1], "axes": [1]}, 1),
    ("top k of opset 1", "TopK", 9, [(F, [2, 5])], {"k": 2}, 2),
    ("pad of opset 2", "Pad", 10, [(F, [2, 3])], {"pads": [0, 1, 0, 2], "value": 3.0}, 1),
    (
        "pad reflect of opset 2",
        "Pad",
        10,
        [(F, [2, 3])],
        {"pads": [0, 1, 0, 1], "mode": "reflect"},
        1,
    ),
    ("dropout of opset 7", "Dropout", 7, [(F, [2, 3])], {"ratio": 0.3}, 1),
    ("dropout of opset 10", "Dropout", 10, [(F, [2, 3])], {"ratio": 0.3}, 1),
    (
        "one hot of opset 9",
        "OneHot",
        9,
        [(I, [3]), np.array(3), np.array([0, 1], dtype=np.float32)],
        {},
        1,
    ),
    ("scatter of opset 9", "Scatter", 9, [(F, [3]), np.array([1]), (F, [1])], {"axis": 0}, 1),
    (
        "upsample of opset 7",
        "Upsample",
        7,
        [(F, [1, 1, 2, 3])],
        {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 2.0]},
        1,
    ),
    (
        "upsample of opset 9",
        "Upsample",
        9,
        [(F, [1, 1, 2, 3]), np.array([1, 1, 2, 2], dtype=np.float32)],
        {"mode": "linear"},
        1,
    ),
    (
        "resize of opset 10",
        "Resize",
        10,
        [(F, [1, 1, 4, 6]), np.array([1, 1, 0.5, 1.5], dtype=np.float32)],
        {"mode": "nearest"},
        1,
    ),
    (
        "resize by sizes",
        "Resize",
        13,
        [(F, [1, 1, 2, 3]), None, None, np.array([1, 1, 4, 5])],
        {"mode": "linear"},
        1,
    ),
    (
        "resize of axes",
        "Resize",
        18,
        [(F, [1, 1, 2, 3]), None, np.array([2, 2], dtype=np.float32)],
        {"axes": [2, 3], "mode": "cubic"},
        1,
    ),
    (
        "lstm batch first",
        "LSTM",
        14,
        [(F, [2, 5, 3]), (F, [1, 16, 3]), (F, [1, 16, 4]), (F, [1, 32])],
        {"hidden_size": 4, "layout": 0},
        3,
    ),
    (
        "dequantize per axis",
        "DequantizeLinear",
        13,
        [
            (onnx.TensorProto.UINT8, [2, 3]),
            np.array([0.5, 1, 2], dtype=np.float32),
            np.array([1, 2, 3], dtype=np.uint8),
        ],
        {"axis": 1},
        1,
    ),
    (
        "quantize per axis",
        "QuantizeLinear",
        13,
        [
            (F, [2, 3]),
            np.array([0.5, 0.1, 2], dtype=np.float32),
            np.array([1, -2, 3], dtype=np.int8),
        ],
        {"axis": 1},
        1,
    ),
    (
        "quantize",
        "QuantizeLinear",
        13,
        [(F, [2, 3]), np.float32(0.1), np.array(128, dtype=np.uint8)],
        {},
        1,
    ),
    ("attention", "Attention", 23, [(F, [1, 2, 3, 4])] * 3, {"is_causal": 1}, 1),
    (
        "rotary embedding",
        "RotaryEmbedding",
        23,
        [(F, [1, 2, 3, 4]), (F, [1, 3, 2]), (F, [1, 3, 2])],
        {},
        1,
    ),
]


def _model(
    op_type: str, opset: int, inputs: list[object], attributes: dict[str, object], outputs: int
) -> onnx.ModelProto:
    infos, initializers, names = [], [], []
    for index, value in enumerate(inputs):
        name = f"in{index}"
        names.append("" if value is None else name)
        if isinstance(value, tuple):
            infos.append(helper.make_tensor_value_info(name, *value))
        elif value is not None:
            initializers.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    output_names = [f"out{index}" for index in range(outputs)]
    node = helper.make_node(op_type, names, output_names, name="the_node", **attributes)
    node.metadata_props.add(key="origin", value="test")
    graph = helper.make_graph([node], "test", infos, [], initializers)
    opsets = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    found = onnx.shape_inference.infer_shapes(proto).graph.value_info
    types = {info.name: info.type for info in found}
    for name in output_names:
        # Inference does not know GroupNormalization 18, which is deprecated; it keeps its type.
        proto.graph.output.append(
            onnx.ValueInfoProto(name=name, type=types.get(name, proto.graph.input[0].type))
        )
    return proto


@pytest.mark.parametrize(
    ("op_type", "opset", "inputs", "attributes", "outputs"),
    [case[1:] for case in _CASES],
    ids=[case[0] for case in _CASES],
)
def test_rule_computes_the_same(
    op_type, opset, inputs, attributes, outputs, run_model, random_feeds
) -> None:
    proto = _model(op_type, opset, inputs, attributes, outputs)
    feeds = random_feeds(proto)
    expected = run_model(proto, feeds)

    model = legalise(ir.from_proto(proto))

    check_model(model)
    assert (model.opset_imports, model.ir_version) == ({"": 12}, 7)
    assert all(node.metadata_props.get("origin") == "test" for node in model.graph.all_nodes())
    actual = run_model(model, feeds)
    half = any(isinstance(value, tuple) and value[0] == H for value in inputs)
    double = any(isinstance(value, tuple) and value[0] == D for value in inputs)
    tolerance = _TOLERANCE[H if half else D if double else F]
    for got, want in zip(actual, expected, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_every_rule_has_a_case() -> None:
    tested = {case[1] for case in _CASES}
    siblings = {op for op in RULES if op.startswith("Reduce")} | {"RNN", "GRU", "LpPool", "Range"}
    elsewhere = {"Scan", "RoiAlign", "SpaceToDepth", "ScatterElements"}  # refused, or node tests
    assert set(RULES) - tested - siblings - elsewhere == set()


@pytest.mark.parametrize(
    ("op_type", "opset", "inputs", "attributes", "reason"),
    [
        ("ReduceMean", 18, [(F, [2, 3]), (I, [1])], {}, "axes are computed at run time"),
        ("GridSample", 16, [(F, [1, 1, 2, 2]), (F, [1, 2, 2, 2])], {}, "no operator GridSample"),
        ("BitwiseAnd", 18, [(I, [2]), (I, [2])], {}, "no operator BitwiseAnd"),
        ("Add", 13, [(16, [2]), (16, [2])], {}, "bfloat16"),
        (
            "Resize",
            18,
            [(F, [1, 1, 4, 4]), None, np.float32([1, 1, 0.5, 0.5])],
            {"antialias": 1, "mode": "linear"},
            "antialias",
        ),
        ("ScatterND", 16, [(F, [4]), np.array([[1]]), (F, [1])], {"reduction": "add"}, "'add'"),
    ],
)
def test_inexpressible_is_refused_with_node_and_reason(
    op_type, opset, inputs, attributes, reason
) -> None:
    proto = _model(op_type, opset, inputs, attributes, 1)
    with pytest.raises(LegalisationError, match=reason) as caught:
        legalise(ir.from_proto(proto))
    assert "the_node" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_hot_of_opset_9_gives_no_row_for_a_negative_index(parse_model, run_model) -> None:
    proto = parse_model(
        """agraph (int64[2] i) => (float[2,3] y) {
            depth = Constant<value = int64[1] {3}>()
            values = Constant<value = float[2] {0.0, 1.0}>()
            y = OneHot(i, depth, values)
        }""",
        9,
    )
    model = legalise(ir.from_proto(proto))
    check_model(model)
    (got,) = run_model(model, {"i": np.array([-1, 2])})
    np.testing.assert_array_equal(got, [[0, 0, 0], [0, 0, 1]])


def test_all_offenders_are_listed_together(parse_model) -> None:
    proto = parse_model(
        """agraph (int64[2] x, int64[2] y) => (int64[2] z) {
            a = BitwiseAnd(x, y)
            b = BitwiseOr(a, y)
            z = Add(a, b)
        }""",
        18,
    )
    with pytest.raises(LegalisationError) as caught:
        legalise(ir.from_proto(proto))
    assert len(caught.value.offenders) == 2


def test_bodies_of_control_flow_are_legalised(parse_model, run_model) -> None:
    proto = parse_model(
        """agraph (bool c, float[2,3] x) => (float[2] y) {
            axes = Constant<value_ints = [1]>()
            y = If (c) <
                then_branch = t () => (float[2] u) { u = ReduceMean<keepdims = 0>(x, axes) },
                else_branch = e () => (float[2] v) { w = Gelu(x)
                                                     v = ReduceSum<keepdims = 0>(w, axes) }
            >
        }""",
        20,
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3) - 3
    wanted = [run_model(proto, {"c": np.array(c), "x": x})[0] for c in (True, False)]
    model = legalise(ir.from_proto(proto))
    check_model(model)
    for c, want in zip((True, False), wanted, strict=True):
        (got,) = run_model(model, {"c": np.array(c), "x": x})
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


def test_contrib_operators_are_refused(parse_model) -> None:
    proto = parse_model(
        """agraph (float[2] x) => (float[2] y) { y = com.microsoft.FastGelu(x) }""",
        17,
        ["com.microsoft"],
    )
    with pytest.raises(LegalisationError, match=r"com\.microsoft"):
        legalise(ir.from_proto(proto))


def test_opset_that_is_neither_12_nor_the_models_own_is_refused(parse_model) -> None:
    proto = parse_model("agraph (float[2] x) => (float[2] y) { y = Relu(x) }", 18)
    with pytest.raises(LegalisationError, match="cannot lower opset 18 to 15"):
        legalise(ir.from_proto(proto), opset=15)
    assert legalise(ir.from_proto(proto), opset=18).opset_imports == {"": 18}


def test_too_old_a_model_is_refused(parse_model) -> None:
    proto = parse_model("agraph (float[2] x, float[2] z) => (float[2] y) { y = Add(x, z) }", 6)
    with pytest.raises(LegalisationError, match="opset 6 is too old"):
        legalise(ir.from_proto(proto))
