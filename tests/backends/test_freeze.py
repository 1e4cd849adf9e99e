"""Static shapes, folding, and what folding leaves alone."""

from __future__ import annotations

import time

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from odp.backends.onnx.check import check_model
from odp.backends.onnx.errors import OnnxError
from odp.backends.onnx.freeze import (
    freeze_shapes,
    require_static_inputs,
    run_shape_inference,
    simplify,
    undetermined_inputs,
)
from odp.rewriter.onnx_vocabulary import is_transcendental

_RESHAPED = """agraph (float[batch, T, 4] x, float[batch, 4] z) => (float[m, n] y) {
    shape = Shape(x)
    i = Constant<value = int64 {0}>()
    b = Gather(shape, i)
    axes = Constant<value = int64[1] {0}>()
    b1 = Unsqueeze(b, axes)
    minus = Constant<value = int64[1] {-1}>()
    target = Concat<axis = 0>(b1, minus)
    same = Identity(x)
    r = Reshape(same, target)
    y = Sigmoid(r)
}"""


def test_undetermined_inputs_and_the_options_to_add(parse_model) -> None:
    model = ir.from_proto(parse_model(_RESHAPED, 18))
    assert undetermined_inputs(model) == {"x": ("batch", "T", 4), "z": ("batch", 4)}
    with pytest.raises(OnnxError) as caught:
        require_static_inputs(model)
    assert "--shape x=?,?,4 --shape z=?,4" in str(caught.value)
    freeze_shapes(model, {"x": [2, 3, 4]})
    assert undetermined_inputs(model) == {}
    assert model.graph.inputs[1].shape == ir.Shape([2, 4])
    require_static_inputs(model)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"xx": [1]}, "did you mean 'x'"),
        ({"something": [1]}, "inputs are x, z"),
        ({"x": [1, 2]}, "has 3 dimensions"),
        ({"x": [1, 2, 5]}, "5 cannot replace 4"),
        ({"x": [0, 2, 4]}, "at least 1"),
        ({"x": [2, 3, 4], "z": [3, 4]}, "'batch' is 3 here but 2"),
    ],
)
def test_shapes_that_do_not_fit(parse_model, shapes, reason) -> None:
    model = ir.from_proto(parse_model(_RESHAPED, 18))
    with pytest.raises(OnnxError) as caught:
        freeze_shapes(model, shapes)
    assert reason in str(caught.value)


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_shape_arithmetic_disappears(parse_model, run_model, opset) -> None:
    proto = parse_model(_RESHAPED, opset)
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    feeds = {"x": x, "z": np.zeros((2, 4), np.float32)}
    (expected,) = run_model(proto, feeds)
    model = simplify(freeze_shapes(ir.from_proto(proto), {"x": [2, 3, 4]}))
    assert [node.op_type for node in model.graph] == ["Reshape", "Sigmoid"]
    assert model.graph.outputs[0].shape == ir.Shape([2, 12])
    np.testing.assert_array_equal(run_model(model, feeds)[0], expected)


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12])
def test_old_opsets_are_simplified(run_model, opset) -> None:
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Constant", [], ["i"], value=numpy_helper.from_array(np.array(0), "i")),
        node("Gather", ["s", "i"], ["b"]),
        node("Unsqueeze", ["b"], ["b1"], axes=[0]),
        node("Constant", [], ["m"], value=numpy_helper.from_array(np.array([-1]), "m")),
        node("Concat", ["b1", "m"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["r"]),
        node("Tanh", ["r"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", 1, ["N", 2, 3])], [info("y", 1, None)], [])
    opsets = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=4)
    x = np.ones((4, 2, 3), np.float32)
    model = simplify(freeze_shapes(ir.from_proto(proto), {"x": [4, 2, 3]}))
    assert [n.op_type for n in model.graph] == ["Reshape", "Tanh"]
    np.testing.assert_array_equal(run_model(model, {"x": x})[0], run_model(proto, {"x": x})[0])


def test_sines_of_constants_stay_for_the_rope_pass_and_everything_else_goes(parse_model) -> None:
    text = """agraph (float[2] x) => (float[2] y) {
        a = Constant<value = float[2] {1.0, 2.0}>()
        sum = Add(a, a)
        root = Sqrt(sum)
        table = Sin(root)
        t = Mul(root, table)
        y = Mul(t, x)
    }"""
    model = simplify(ir.from_proto(parse_model(text, 18)))
    assert [n.op_type for n in model.graph] == ["Sin", "Mul", "Mul"]
    everything = simplify(ir.from_proto(parse_model(text, 18)), keep=lambda node: False)
    assert [n.op_type for n in everything.graph] == ["Mul"]


def test_pow_is_transcendental_unless_the_exponent_is_whole(parse_model) -> None:
    text = """agraph (float[2] x) => (float[2] y, float[2] z, float[2] w)
        <float two = {2.0}, float half = {0.5}> {
        y = Pow(x, two)
        z = Pow(x, half)
        w = Pow(x, x)
    }"""
    model = ir.from_proto(parse_model(text, 18))
    assert [is_transcendental(n) for n in model.graph] == [False, True, True]


def test_provenance_and_weights_are_kept(parse_model) -> None:
    proto = parse_model(_RESHAPED, 18)
    proto.graph.node[-1].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['act']")
    model = simplify(freeze_shapes(ir.from_proto(proto), {"x": [2, 3, 4]}))
    assert list(model.graph)[-1].metadata_props["pkg.torch.onnx.name_scopes"] == "['act']"

    weight = np.ones((512, 512), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["w"], ["t"]),
            helper.make_node("MatMul", ["x", "t"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 512])],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    value = ir.Value(name="w", const_value=ir.tensor(weight, name="w"))
    for node in model.graph:
        if node.op_type == "Transpose":
            node.replace_input_with(0, value)
    model.graph.register_initializer(value)
    tensor = value.const_value
    simplify(model)
    assert [n.op_type for n in model.graph] == ["Transpose", "MatMul"]
    assert model.graph.initializers["w"].const_value is tensor


def test_weights_listed_as_inputs_become_plain_weights(parse_model) -> None:
    proto = parse_model(
        """agraph (float[2] x, float[2] w) => (float[2] y)
            <float[2] w = {1.0, 2.0}> { y = Mul(x, w) }""",
        9,
    )
    model = simplify(ir.from_proto(proto))
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert undetermined_inputs(model) == {}


def test_a_wrong_rank_of_an_output_is_not_believed(parse_model) -> None:
    proto = parse_model(_RESHAPED, 18)
    proto.graph.output[0].type.tensor_type.shape.dim.add(dim_param="one_too_many")
    model = simplify(freeze_shapes(ir.from_proto(proto), {"x": [2, 3, 4]}))
    assert model.graph.outputs[0].shape == ir.Shape([2, 12])
    check_model(model)


def test_sequences_keep_their_type(parse_model) -> None:
    model = ir.from_proto(
        parse_model(
            """agraph (float[2] x) => (float[2] y) {
                s = SequenceConstruct(x, x)
                i = Constant<value = int64 {0}>()
                y = SequenceAt(s, i)
            }""",
            18,
        )
    )
    run_shape_inference(model)
    assert isinstance(next(iter(model.graph)).outputs[0].type, ir.SequenceType)


def _chain(blocks: int) -> ir.Model:
    nodes = []
    current = "x"
    for i in range(blocks):
        nodes += [
            helper.make_node("Shape", [current], [f"s{i}"]),
            helper.make_node("Reshape", [current, f"s{i}"], [f"r{i}"]),
            helper.make_node("Sigmoid", [f"r{i}"], [f"y{i}"]),
        ]
        current = f"y{i}"
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", 1, [2])], [info(current, 1, [2])])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def test_cost_is_linear_in_nodes() -> None:
    def seconds(blocks: int) -> float:
        model = _chain(blocks)
        start = time.process_time()
        simplify(model)
        return time.process_time() - start

    seconds(10)  # imports
    small = min(seconds(300) for _ in range(2))
    # Ten times the nodes: linear is 10, quadratic 100.  30 leaves room for a busy machine.
    assert seconds(3000) / small < 30
