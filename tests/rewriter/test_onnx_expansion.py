"""Operators that the standard defines by others."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from odp.rewriter.onnx_expansion import EXPANDABLE, expand_schema_functions, kinds_that_hide
from odp.rewriter.onnx_graph import OnnxGraph


def parsed(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


SWIGLU = """<ir_version: 10, opset_import: ["" : 28]>
g (float[2, 4] a, float[2, 4] b) => (float[2, 4] y) { y = SwiGLU(a, b) }"""
ATTENTION = """<ir_version: 10, opset_import: ["" : 24]>
g (float[1, 2, 3, 4] q, float[1, 2, 3, 4] k, float[1, 2, 3, 4] v, int64[1] lengths)
  => (float[1, 2, 3, 4] y) { y = Attention(q, k, v, "", "", "", lengths) }"""


def test_only_the_named_kinds_are_expanded() -> None:
    model = parsed(SWIGLU)
    assert not expand_schema_functions(model, {("", "Attention")})
    assert OnnxGraph(model).operations() == {"SwiGLU": 1}
    assert expand_schema_functions(model, {("", "SwiGLU")})
    assert OnnxGraph(model).operations() == {"Swish": 1, "Mul": 1}


def test_an_optional_input_in_the_middle_may_be_left_out() -> None:
    # onnx.inliner fails on this one.
    model = parsed(ATTENTION)
    assert expand_schema_functions(model)
    assert OnnxGraph(model).operations()["Softmax"] == 1
    onnx.checker.check_model(ir.to_proto(model))


def test_constants_of_the_model_are_not_copied() -> None:
    model = parsed(SWIGLU)
    weight = ir.tensor(np.ones((2, 4), np.float32), name="b")
    (value,) = [value for value in model.graph.inputs if value.name == "b"]
    model.graph.inputs.remove(value)
    value.const_value = weight
    model.graph.initializers.add(value)
    expand_schema_functions(model)
    assert model.graph.initializers["b"].const_value is weight


def test_the_body_inherits_the_name_and_the_provenance() -> None:
    model = parsed(SWIGLU)
    (node,) = model.graph
    node.name, node.metadata_props["pkg.torch.onnx.name_scopes"] = "gate", "['', 'mlp', 'y']"
    expand_schema_functions(model)
    for inner in model.graph:
        assert (inner.name or "").startswith("gate/SwiGLU/")
        assert inner.metadata_props["pkg.torch.onnx.name_scopes"] == "['', 'mlp', 'y']"
    assert [output.name for output in model.graph.outputs] == ["y"]


def test_operators_in_bodies_are_expanded() -> None:
    model = parsed(
        """<ir_version: 10, opset_import: ["" : 28]>
        g (bool c, float[2, 4] a, float[2, 4] b) => (float[2, 4] y) {
          y = If(c) <then_branch = t () => (float[2, 4] u) { u = SwiGLU(a, b) },
                     else_branch = e () => (float[2, 4] w) { w = SwiGLU(b, a) }> }"""
    )
    assert expand_schema_functions(model)
    assert OnnxGraph(model).operations() == {"If": 1, "Swish": 2, "Mul": 2}
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_node_of_unknown_type_stays() -> None:
    model = parsed(ATTENTION)
    for value in model.graph.inputs:
        value.type = None
    assert not expand_schema_functions(model)
    assert OnnxGraph(model).transcendental() == {"Attention": 1}


@pytest.mark.parametrize("passes", [["softmax"], ["exp"], ["tanh"]])
def test_attention_is_expanded_for_its_parts(passes: list[str]) -> None:
    assert ("", "Attention") in kinds_that_hide(passes)


def test_every_part_is_a_pass() -> None:
    from odp.passes import registry

    assert {part for parts in EXPANDABLE.values() for part in parts} <= set(registry())
