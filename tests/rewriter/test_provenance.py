"""Every new node says which pass and site it came from, in the file that is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import odp

Texts = Callable[..., onnx.ModelProto]

TEXT = """(float[2,8] x) => (float[2,8] y) {
    [soft] p = Softmax<axis=-1>(x) [norm] n = LayerNormalization(p, scale)
    [gate] g = Gelu(n) [late] e = Exp(g) [keep] y = Mul(e, p) }"""
SCALE = {"scale": np.ones(8, np.float32)}


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def tags(node: onnx.NodeProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in node.metadata_props}


def saved(model: onnx.ModelProto, folder: Path, **options: Any) -> tuple[onnx.ModelProto, Any]:
    result = odp.rewrite(model, "all", **options)
    result.save(folder / "out.onnx")
    return onnx.load(folder / "out.onnx"), result.report


@pytest.mark.parametrize("opset", [12, None])
def test_every_new_node_names_its_pass_and_site(
    opset: int | None, onnx_text: Texts, tmp_path: Path
) -> None:
    model = onnx_text(TEXT, opset=20, initializers=SCALE)
    written, report = saved(model, tmp_path, opset=opset)
    sites = {site.id for site in report.sites}
    original = {"keep"}
    for node in all_nodes(written.graph):
        if node.name in original:
            assert "odp.pass" not in tags(node)
            continue
        assert tags(node)["odp.pass"] in {"softmax", "layer_norm", "gelu", "exp"}, node
        assert tags(node)["odp.site"].startswith(f"{tags(node)['odp.pass']}/")
    named = {tags(node)["odp.site"] for node in written.graph.node if "odp.site" in tags(node)}
    assert sites <= named
    # Beside the sites, only the matches they belong to: softmax/softmax/1 of softmax/softmax/1/exp.
    assert all(any(site == n or site.startswith(f"{n}/") for site in sites) for n in named)


def test_nodes_of_an_expression_name_the_function(onnx_text: Texts, tmp_path: Path) -> None:
    written, report = saved(onnx_text(TEXT, opset=20, initializers=SCALE), tmp_path)
    functions = {site.id: site.function for site in report.sites}
    for node in written.graph.node:
        site = tags(node).get("odp.site")
        if site in functions:
            assert tags(node)["odp.function"] == functions[site]


def test_tags_survive_what_the_legaliser_replaces(onnx_text: Texts, tmp_path: Path) -> None:
    """Opset 18 reduces over an input; opset 12 over an attribute: the node is made anew."""
    written, _ = saved(onnx_text(TEXT, opset=20, initializers=SCALE), tmp_path)
    reductions = [node for node in written.graph.node if node.op_type.startswith("Reduce")]
    assert reductions
    assert all("odp.pass" in tags(node) for node in reductions)


def test_scopes_of_torch_are_kept(onnx_text: Texts, tmp_path: Path) -> None:
    model = onnx_text(TEXT, opset=20, initializers=SCALE)
    scopes = {
        "pkg.torch.onnx.name_scopes": "['', 'encoder', 'encoder.attention', 'softmax']",
        "pkg.torch.onnx.class_hierarchy": "['Model', 'Encoder', 'Attention', 'aten.softmax']",
    }
    soft = next(node for node in model.graph.node if node.name == "soft")
    for key, value in scopes.items():
        soft.metadata_props.add(key=key, value=value)
    written, report = saved(model, tmp_path)
    (site,) = (site for site in report.sites if site.pass_name == "softmax")
    assert site.module_path == "encoder.attention"
    mine = [node for node in written.graph.node if tags(node).get("odp.pass") == "softmax"]
    assert mine
    assert all(scopes.items() <= tags(node).items() for node in mine)


def test_nodes_inside_bodies_are_tagged(onnx_text: Texts, tmp_path: Path) -> None:
    text = """(bool c, float[2] x) => (float[2] y) {
        [choice] y = If (c) <
            then_branch = t () => (float[2] a) { a = Exp(x) },
            else_branch = e () => (float[2] b) { b = Identity(x) } > }"""
    data = {"c": np.ones(1, bool), "x": np.ones((1, 2), np.float32)}
    written, report = saved(onnx_text(text), tmp_path, calibration=data)
    (site,) = report.sites
    assert site.graph == "choice/then_branch"
    inner = [node for node in all_nodes(written.graph) if node not in list(written.graph.node)]
    tagged = [node for node in inner if tags(node).get("odp.site") == site.id]
    assert {"Mul", "Add"} <= {node.op_type for node in tagged}


def test_names_are_unique(onnx_text: Texts, tmp_path: Path) -> None:
    model = onnx_text(TEXT, opset=20, initializers=SCALE)
    written, _ = saved(model, tmp_path)
    names = [node.name for node in written.graph.node]
    assert len(set(names)) == len(names) and all(names)
    outputs = [name for node in written.graph.node for name in node.output]
    assert len(set(outputs)) == len(outputs)


def test_a_model_that_was_rewritten_can_be_rewritten_again(
    onnx_text: Texts, tmp_path: Path
) -> None:
    model = onnx_text(TEXT, opset=20, initializers=SCALE)
    once = odp.rewrite(model, "softmax", opset=None)
    twice = odp.rewrite(once.model, "all")
    twice.save(tmp_path / "out.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)
    assert twice.report.model.transcendental_after == {}
    kinds = {tags(n).get("odp.pass") for n in onnx.load(tmp_path / "out.onnx").graph.node}
    assert {"softmax", "layer_norm", "gelu", "exp"} <= kinds
