"""What keeps a model from becoming a circuit is listed at once, by node, with what to do."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from odp.backends.ezkl.lint import CircuitRefused, Problem, advice_for
from odp.backends.ezkl.reading import read_circuit

from .graphs import GraphBuilder


def refused(model: onnx.ModelProto) -> tuple[str, ...]:
    """The lines of the refusal."""
    with pytest.raises(CircuitRefused) as raised:
        read_circuit(model)
    return raised.value.lines


def model_of(*inputs: onnx.ValueInfoProto, nodes: Any = ()) -> onnx.ModelProto:
    nodes = nodes or [helper.make_node("Neg", [inputs[0].name], ["y"])]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)


def test_all_operators_are_listed_with_what_to_do() -> None:
    g = GraphBuilder({"x": (1, 4)})
    wrong = [g("Sigmoid", "x"), g("Floor", "x"), g("Pow", "x", 2.5), g("Neg", "x")]
    total = wrong[0]
    for name in wrong[1:]:
        total = g("Add", total, name)
    model = g.model()
    model.graph.node[0].metadata_props.add(key="odp.module", value="layers.3.mlp")
    lines = refused(model)
    assert lines[0].startswith("3 parts of the model cannot go into a circuit")
    assert lines[1].startswith("node 'n0' in layers.3.mlp is a Sigmoid") and "'sigmoid'" in lines[1]
    assert lines[2].startswith("node 'n1' is a Floor") and "no comparisons" in lines[2]
    assert lines[3].startswith("node 'n2' is a Pow") and "not 2.5" in lines[3]
    # What reads these is no problem of its own.
    assert len(lines) == 4


def test_one_problem_is_one_line() -> None:
    g = GraphBuilder({"x": (1, 4)})
    g("Neg", g("Erf", "x"))
    (line,) = refused(g.model())
    assert line.startswith("node 'n0' is a Erf: ")


def test_ten_are_listed_and_the_others_counted() -> None:
    g = GraphBuilder({"x": (1, 4)})
    for _ in range(14):
        g("Erf", "x")
    lines = refused(g.model())
    assert len(lines) == 12 and lines[0].startswith("14 parts") and lines[-1] == "and 4 more"


def test_dynamic_sizes_are_named_with_the_shape_to_give() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "tokens"])
    (line,) = refused(model_of(value))
    assert "input 'x' is dynamic in batch, tokens" in line and "--shape x=?,3,?" in line


def test_token_ids_become_embeddings() -> None:
    value = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 4])
    table = helper.make_tensor("table", TensorProto.FLOAT, [2, 2], [0.0, 1.0, 2.0, 3.0])
    model = model_of(value, nodes=[helper.make_node("Gather", ["table", "ids"], ["y"], "embed")])
    model.graph.initializer.append(table)
    (line,) = refused(model)
    assert "input 'ids' is int64" in line and "after the Gather 'embed'" in line


def test_masks_are_stored_or_real() -> None:
    value = helper.make_tensor_value_info("mask", TensorProto.BOOL, [1, 4])
    (line,) = refused(model_of(value))
    assert "input 'mask' is bool" in line and "0.0 and 1.0" in line


def test_operands_that_must_be_stored() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    size = helper.make_tensor_value_info("p", TensorProto.FLOAT, [1])
    (line,) = refused(model_of(x, size, nodes=[helper.make_node("Pow", ["x", "p"], ["y"], "n")]))
    assert line.startswith("node 'n' is a Pow") and "operand 1 ('p') must be a constant" in line


def test_what_passes_could_not_replace_is_said_once() -> None:
    g = GraphBuilder({"x": (1, 4)})
    g("Erf", "x")
    known = Problem("node 'n0'", "Erf", "erf: never reached by the calibration data")
    with pytest.raises(CircuitRefused) as raised:
        read_circuit(g.model(), [known])
    assert raised.value.problems == (known,)


@pytest.mark.parametrize(
    ("operator", "domain", "advice"),
    [
        ("Attention", "com.microsoft", "without fusing"),
        ("LayerNormalization", "", "pass 'layer_norm'"),
        ("Loop", "", "unrolled"),
        ("TopK", "", "outside"),
        ("RandomNormal", "", "an input"),
        ("Sin", "", "pass 'sin'"),
        ("Det", "", "export it as other operators"),
    ],
)
def test_advice(operator: str, domain: str, advice: str) -> None:
    assert advice in advice_for(helper.make_node(operator, ["x"], ["y"], domain=domain))
