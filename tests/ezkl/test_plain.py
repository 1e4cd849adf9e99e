"""The plain profile: a float network that EZKL takes, and a witness that is compared with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from odp.approximations import approximate
from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder
from odp.backends.ezkl.cost import RunArguments, predict
from odp.backends.ezkl.plain import PlainClaim, is_plain
from odp.backends.ezkl.plain_expressions import error_at_scale, with_even_coefficients
from odp.backends.ezkl.plain_network import plain_network
from odp.backends.ezkl.proving import run_ezkl
from odp.plain_circuits import PlainModel, compile_plain

from .blocks import attention, encoder_block, gated_mlp
from .graphs import GraphBuilder, normal
from .test_schedule import samples_of

ezkl = pytest.importorskip("ezkl")

BLOCKS = {"mlp": gated_mlp, "attention": attention, "encoder": encoder_block}
ERROR = 0.03


def stored(model: onnx.ModelProto, folder: Path) -> tuple[Path, Path]:
    """A model and random inputs as files."""
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "data.npz", **samples_of(model))
    return folder / "model.onnx", folder / "data.npz"


@pytest.fixture(scope="module", params=BLOCKS)
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PlainModel]:
    """A block, compiled and saved."""
    folder = tmp_path_factory.mktemp(request.param)
    model, data = stored(BLOCKS[request.param](), folder)
    compiled = compile_plain(model, calibration=data, error=ERROR)
    compiled.save(folder / "circuit")
    return folder / "circuit", compiled


def test_the_network_is_what_ezkl_takes(made: tuple[Path, PlainModel]) -> None:
    network = onnx.load(made[0] / "network.onnx")
    assert [(o.domain, o.version) for o in network.opset_import] == [("", 12)]
    kinds = {node.op_type for node in network.graph.node}
    assert kinds.isdisjoint({"Div", "Constant", "Exp", "Erf", "Sigmoid", "Sqrt", "Softmax"})
    assert all(node.domain == "" for node in network.graph.node)


def test_scale_and_digits_are_chosen_for_the_error(made: tuple[Path, PlainModel]) -> None:
    folder, compiled = made
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["profile"] == "plain" and manifest["tables"] == []
    assert compiled.approximation < ERROR and manifest["error"] <= ERROR
    assert manifest["scale"] in (7, 10, 12, 14)
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["run_args"]["input_scale"] == settings["run_args"]["param_scale"]
    assert settings["run_args"]["input_scale"] == manifest["scale"]
    assert manifest["predicted"]["rows"] == pytest.approx(settings["num_rows"], rel=0.01)


def test_witnesses_of_other_inputs_pass(made: tuple[Path, PlainModel]) -> None:
    folder, compiled = made
    circuit = CircuitFolder(folder)
    assert is_plain(circuit)
    network, witness = folder / "network.ezkl", folder / "witness.json"
    run_ezkl(
        *("compile_circuit", folder / "network.onnx", network, folder / "settings.json"),
        writes=network,
    )
    for inputs in (None, compiled.inputs[5]):
        claim = PlainClaim.of(circuit, inputs)
        (folder / "other.json").write_text(claim.input_json)
        run_ezkl("gen_witness", folder / "other.json", network, witness, writes=witness)
        error = claim.check(witness)
        assert 0.0 < error <= claim.allowed
    # The witness of one input is none of another.
    with pytest.raises(OdpError, match="EZKL's witness is off by"):
        PlainClaim.of(circuit, compiled.inputs[1]).check(witness)


def test_an_input_unlike_the_calibration_is_refused(made: tuple[Path, PlainModel]) -> None:
    folder, compiled = made
    larger = {name: 8.0 * array for name, array in compiled.inputs[0].items()}
    with pytest.raises(OdpError, match="unlike the calibration data: node '") as raised:
        PlainClaim.of(CircuitFolder(folder), larger)
    assert "\n" not in str(raised.value)


def test_inputs_that_do_not_fit(made: tuple[Path, PlainModel]) -> None:
    circuit = CircuitFolder(made[0])
    with pytest.raises(OdpError, match="has no 'x'"):
        PlainClaim.of(circuit, {"y": np.zeros(3)})
    with pytest.raises(OdpError, match=r"has shape \[3\]"):
        PlainClaim.of(circuit, {"x": np.zeros(3)})


def test_what_is_left_native_has_tables(tmp_path: Path) -> None:
    model, data = stored(gated_mlp(), tmp_path)
    compiled = compile_plain(model, passes="rsqrt", calibration=data, error=ERROR)
    assert compiled.manifest()["tables"] == ["Sigmoid"]
    assert compiled.settled.error <= ERROR


def test_roots_stay_where_that_is_cheaper(tmp_path: Path) -> None:
    model, data = stored(gated_mlp(), tmp_path)
    compiled = compile_plain(model, calibration=data, error=ERROR, policy="cheapest")
    policy = compiled.manifest()["policy"]
    assert set(policy["circuits"]) == {"nothing", "roots"} and compiled.settled.error <= ERROR
    least = min(policy["circuits"], key=lambda form: policy["circuits"][form]["rows"])
    assert policy["native"] == least
    kinds = {node.op_type for node in compiled.network.graph.node}
    assert ("Sqrt" in kinds) == (least == "roots") and compiled.manifest()["tables"] == []


# Scales


def test_a_typed_scale_is_kept_with_a_warning(tmp_path: Path) -> None:
    model, data = stored(gated_mlp(), tmp_path)
    compiled = compile_plain(model, calibration=data, error=0.001, scale=7)
    assert compiled.settled.arguments.input_scale == 7 and compiled.settled.error > 0.001
    assert any("at scale 7 EZKL's witness is off by" in w for w in compiled.report.warnings)


def test_an_error_that_no_scale_keeps(tmp_path: Path) -> None:
    model, data = stored(gated_mlp(), tmp_path)
    with pytest.raises(OdpError, match=r"at none of these scales.*--profile scheduled"):
        compile_plain(model, calibration=data, error=1e-6)


def test_digits_grow_with_the_integers(tmp_path: Path) -> None:
    """Two digits of 14 bits hold 2^28; values of 2^19 at scale 14 need more."""
    g = GraphBuilder({"x": (2, 64)})
    g("MatMul", g("Mul", "x", 256.0), 256.0 * normal(64, 4))
    model, data = stored(g.model(), tmp_path)
    compiled = compile_plain(model, calibration=data, error=ERROR, scale=14)
    assert compiled.settled.arguments.decomp_legs > 2
    assert compiled.settled.error <= 1e-3


# Expressions


@pytest.mark.parametrize("name", ["normal_cdf", "sigmoid", "exp"])
@pytest.mark.parametrize("scale", [7, 10, 12])
def test_coefficients_of_a_size_survive_a_scale(name: str, scale: int) -> None:
    """The form with the fewest products has a constant of 1e-5, which is 0 at any of the scales."""
    domain = (-8.0, 0.0) if name == "exp" else (-4.0, 4.0)
    fewest = approximate(name, domain, error=2e-3, scheme="minimax", target="ezkl")
    even = with_even_coefficients(fewest)
    x = np.linspace(*domain, 101)
    # Coefficients in x/8 of degree 6 are up to 500 for exp: float32 has 3e-5 of these.
    assert np.allclose(fewest(x), even(x), atol=1e-5)
    assert error_at_scale(even, scale, False) <= 2e-3 + 4.0 * 2.0**-scale
    if name != "exp":
        assert error_at_scale(fewest, scale, False) > 0.1


def test_what_survives_no_scale_stays_native(tmp_path: Path) -> None:
    g = GraphBuilder({"x": (2, 8)})
    g("Exp", "x")
    model, data = stored(g.model(), tmp_path)
    np.savez(data, x=np.linspace(-9, 9, 16, dtype=np.float32).reshape(1, 2, 8))
    compiled = compile_plain(model, calibration=data, error=ERROR, scale=7)
    assert compiled.manifest()["tables"] == ["Exp"]


# The network


def masked_softmax(masked: float) -> onnx.ModelProto:
    """Softmax of scores with a stored causal mask."""
    g = GraphBuilder({"x": (1, 4, 4)})
    mask = np.triu(np.full((4, 4), masked, np.float32), 1)[None]
    g("Softmax", g("Add", "x", mask), axis=-1)
    return g.model()


@pytest.mark.parametrize("masked", [-3.4e38, -1e4, -np.inf])
def test_masks_are_finite_without_the_softmax_pass(masked: float, tmp_path: Path) -> None:
    model, data = stored(masked_softmax(masked), tmp_path)
    compiled = compile_plain(model, passes="erf", calibration=data, error=ERROR)
    stored_values = [
        onnx.numpy_helper.to_array(t).min() for t in compiled.network.graph.initializer
    ]
    assert min(stored_values) == -64.0
    assert compiled.settled.error <= ERROR


def test_numbers_that_are_no_mask_stay() -> None:
    g = GraphBuilder({"x": (1, 4)})
    g("Add", "x", np.full((4,), -1e4, np.float32))
    network = plain_network(g.model())
    assert onnx.numpy_helper.to_array(network.graph.initializer[0]).min() == -1e4


def test_divisions_are_products() -> None:
    g = GraphBuilder({"x": (2, 4), "y": (2, 4)})
    g("Add", g("Div", "x", 3.0), g("Add", g("Div", "x", "y"), g("Div", 1.0, "y")))
    model = g.model()
    network = plain_network(model)
    kinds = [node.op_type for node in network.graph.node]
    assert "Div" not in kinds and kinds.count("Reciprocal") == 2 and kinds.count("Mul") == 2
    data = {name: array[0] + 3.0 for name, array in samples_of(model).items()}
    sessions = [onnx.reference.ReferenceEvaluator(m) for m in (model, network)]
    before, after = (session.run(None, data)[0] for session in sessions)
    assert np.allclose(before, after, rtol=1e-6)
    # The same graph to EZKL, which divides like that anyway.
    arguments = RunArguments(ignore_range_check_inputs_outputs=True)
    assert predict(network, arguments).rows == predict(model, arguments).rows


def test_whole_numbers_divide_as_they_did() -> None:
    """tract's quotient of integers is no product."""
    node = helper.make_node("Div", ["x", "y"], ["z"])
    values = [helper.make_tensor_value_info(n, TensorProto.INT64, [2]) for n in "xyz"]
    graph = helper.make_graph([node], "g", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)
    assert [n.op_type for n in plain_network(model).graph.node] == ["Div"]


def test_contrib_operators_are_named() -> None:
    nodes = [
        helper.make_node("FusedGelu", ["x"], ["y"], name="gelu", domain="com.microsoft"),
        helper.make_node("Attention", ["y"], ["z"], name="attention", domain="com.microsoft"),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xz"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 12), helper.make_opsetid("com.microsoft", 1)]
    with pytest.raises(OdpError, match=r"(?s)'gelu' is a FusedGelu.*'attention' is a Attention"):
        plain_network(helper.make_model(graph, opset_imports=opsets, ir_version=7))
