"""BitNet layers as a circuit takes them: explicit ternary weights, nothing that only rounds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import odp
from odp.approximations.errors import OdpError
from odp.backends.ezkl.lint import CircuitRefused
from odp.backends.ezkl.reading import read_circuit
from odp.healing.circuit_layers import quantiser_error, without_activation_quantisers
from odp.healing.merging import QuietBitLinear, make_offline, merge_adapters
from odp.rewriter.statistics import statistics

from .tiny_bitnet import KINDS, adapted, bitnet, layer, llama, logits, relative, tokens


@pytest.fixture(autouse=True)
def not_compiled() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.compiler.set_stance("force_eager"):
        yield


def exported(module: nn.Module, x: torch.Tensor, file: Path) -> onnx.ModelProto:
    with torch.no_grad():
        torch.onnx.export(module, (x,), str(file), opset_version=12, dynamo=False)
    return onnx.load(file)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_layer_has_the_effective_weight(kind: str, bias: bool) -> None:
    holder = nn.ModuleDict({"one": layer(kind, bias=bias)})
    # The levels of 127 and 0 are exact, so the quantiser changes nothing here.
    x = torch.eye(24)
    with torch.no_grad():
        before = holder["one"](x)
        assert without_activation_quantisers(holder) == 1
        assert isinstance(holder["one"], nn.Linear)
        assert relative(holder["one"](x), before) < 1e-6


def test_norms_and_merged_weights_are_kept() -> None:
    holder = nn.ModuleDict({"one": layer("online", norm=True)})
    without_activation_quantisers(holder)
    assert isinstance(holder["one"], nn.Sequential)
    model = merge_adapters(adapted(bitnet()))
    weight = model.model.layers[0].self_attn.q_proj.weight.clone()
    assert without_activation_quantisers(model) == 14
    assert torch.equal(model.model.layers[0].self_attn.q_proj.weight, weight)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_quantisers_did_is_measured(kind: str) -> None:
    model = bitnet(kind)
    bare = copy.deepcopy(model)
    without_activation_quantisers(bare)
    difference, divergence = quantiser_error(model, bare, tokens())
    # 8 bits of a row are off by at most 1/254 of its largest; 14 layers add up.
    assert 1e-4 < difference < 0.1 and 0 < divergence < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_circuit_reads_signs_and_one_scale(kind: str, tmp_path: Path) -> None:
    holder = nn.Sequential(layer(kind))
    signs = {"online", "offline", "packed"}
    assert kind in signs
    without_activation_quantisers(holder)
    circuit = read_circuit(exported(holder, torch.randn(2, 24), tmp_path / "layer.onnx"))
    (product,) = (node for node in circuit.nodes if node.kind == "matmul")
    value = circuit.nodes[product.inputs[1]].value
    assert value is not None and set(np.unique(value)) == {-1.0, 0.0, 1.0}


def test_the_quantiser_itself_lacks_nothing_but_the_rounding(tmp_path: Path) -> None:
    """Abs, maximum, reciprocal, products and clip are circuits; Round is not, and is named."""
    holder = nn.Sequential(layer("online"))
    make_offline(holder)
    assert isinstance(holder[0], QuietBitLinear)
    model = exported(holder, torch.randn(2, 24), tmp_path / "layer.onnx")
    kinds = {node.op_type for node in model.graph.node}
    assert {"Abs", "ReduceMax", "Clip", "Round"} <= kinds
    with pytest.raises(CircuitRefused, match="Round") as refused:
        read_circuit(model)
    assert [problem.operator for problem in refused.value.problems] == ["Round"]
    assert "without_activation_quantisers" in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_surgery_takes_norms_and_leaves_the_reciprocals_of_quantisers(kind: str) -> None:
    model, ids = bitnet(kind), tokens()
    result: Any = odp.rewrite(
        model, "all", calibration={"input_ids": ids, "use_cache": False}, error=1e-6, measure=False
    )
    found = statistics(result.report)
    assert (found.norms, found.softmaxes, found.rotary_embeddings) == (9, 2, 1)
    assert not result.report.model.transcendental_after
    # An error of 1e-6 tips few activations to another level.
    assert relative(logits(result.model, ids), logits(model, ids)) < 0.05


def test_an_adapter_merges_on_a_rewritten_model() -> None:
    ids = tokens()
    result: Any = odp.rewrite(
        bitnet().double(),
        "all",
        calibration={"input_ids": ids, "use_cache": False},
        error=1e-3,
        measure=False,
    )
    model = adapted(result.model).double()
    before = logits(model, ids)
    merged = merge_adapters(model)
    assert relative(logits(merged, ids), before) < 1e-12


def test_what_is_no_bitnet_is_refused() -> None:
    with pytest.raises(OdpError, match="has no BitNet layers"):
        without_activation_quantisers(llama())
    with pytest.raises(OdpError, match="not merged; call merge_adapters"):
        without_activation_quantisers(adapted(bitnet()))
