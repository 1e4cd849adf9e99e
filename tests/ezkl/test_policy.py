"""Roots and reciprocals of EZKL: its witness is our integers, and the cheaper form is kept."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import input_json, witness_integers
from odp.backends.ezkl.columns import price
from odp.backends.ezkl.compiler import Compiled
from odp.backends.ezkl.compiler import compile_circuit as schedule
from odp.backends.ezkl.network import simulate
from odp.backends.ezkl.policy import Native
from odp.backends.ezkl.proving import run_ezkl
from odp.backends.ezkl.reference_string import unsafe_srs
from odp.backends.ezkl.roots import RECIPROCAL_LABEL, ROOT_BITS, reciprocals, roots
from odp.backends.ezkl.run_arguments import RunArguments
from odp.circuit_rewriting import Rewritten, Wishes, balanced
from odp.circuits import compile_circuit

from .blocks import attention, encoder_block, gated_mlp
from .test_schedule import samples_of

ezkl = pytest.importorskip("ezkl")

BLOCKS = {"mlp": gated_mlp, "attention": attention, "encoder": encoder_block}
NATIVE = Native(roots=True, divisions=True)
ERROR = 0.03


def stored(model: onnx.ModelProto, folder: Path) -> tuple[Path, Path]:
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "data.npz", **samples_of(model))
    return folder / "model.onnx", folder / "data.npz"


@dataclass(frozen=True)
class Made:
    """A block with EZKL's own roots and reciprocals, as files of EZKL."""

    folder: Path
    found: Rewritten
    compiled: Compiled

    @property
    def settings(self) -> dict[str, Any]:
        tree: dict[str, Any] = json.loads((self.folder / "settings.json").read_text())
        return tree


@pytest.fixture(scope="module", params=BLOCKS)
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    return scheduled(*stored(BLOCKS[request.param](), folder), folder)


def scheduled(model: Path, data: Path, folder: Path) -> Made:
    """Compile a model so that roots and divisions are EZKL's, whatever they cost."""
    wishes = Wishes(model, "all", str(data), None, 0.25, None, 0, NATIVE, lambda *stage: None)
    found = balanced(wishes, ERROR)
    arguments = RunArguments(ignore_range_check_inputs_outputs=True)
    compiled = schedule(
        found.circuit, found.inputs, found.outputs, error=ERROR, arguments=arguments
    )
    network, settings = folder / "network.onnx", folder / "settings.json"
    onnx.save(compiled.program.to_onnx(), network)
    run_ezkl("gen_settings", network, settings, py_run_args=compiled.arguments, writes=settings)
    run_ezkl("compile_circuit", network, folder / "network.ezkl", settings)
    return Made(folder, found, compiled)


def test_roots_and_reciprocals_stay(made: Made) -> None:
    kinds = {node.op_type for node in onnx.load(made.folder / "network.onnx").graph.node}
    assert "Reciprocal" in kinds and made.settings["required_lookups"] == []
    assert all(division.approximant is None for division in made.found.divisions)


def test_predicted_rows_are_those_of_ezkl(made: Made) -> None:
    rows = made.settings["num_rows"]
    assert abs(rows - made.compiled.cost.rows) <= 0.01 * rows


def test_the_witness_is_our_integers_and_is_accepted(made: Made) -> None:
    program, folder = made.compiled.program, made.folder
    network = onnx.load(folder / "network.onnx")
    for inputs, reference in zip(made.found.inputs, made.found.outputs, strict=True):
        integers = program.quantise(inputs)
        values, overflows = program.simulate(integers)
        assert not overflows
        (folder / "input.json").write_text(input_json(integers))
        witness = folder / "witness.json"
        run_ezkl("gen_witness", folder / "input.json", folder / "network.ezkl", witness)
        tensors = simulate(network, integers)
        for name, found in zip(reference, witness_integers(witness), strict=True):
            assert np.array_equal(found, tensors[name].integers.ravel())
            assert np.array_equal(tensors[name].real, program.outputs(values)[name])
            error = np.linalg.norm(tensors[name].real - reference[name])
            assert error <= 2 * ERROR * np.linalg.norm(reference[name])
    # The constraints, too: a claim that is off by one makes a witness, and no proof.
    assert run_ezkl("mock", folder / "witness.json", folder / "network.ezkl").result


def test_a_proof_verifies(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    model, data = stored(gated_mlp(2, 8, 12), tmp_path)
    made = scheduled(model, data, tmp_path)
    integers = made.compiled.program.quantise(made.found.inputs[0])
    (tmp_path / "input.json").write_text(input_json(integers))
    network, settings, witness, key, checking, proof = (
        tmp_path / name
        for name in ("network.ezkl", "settings.json", "witness.json", "pk", "vk", "proof.json")
    )
    srs = unsafe_srs(made.compiled.arguments.logrows, tmp_path_factory.mktemp("srs"))
    run_ezkl("gen_witness", tmp_path / "input.json", network, witness)
    run_ezkl("setup", network, checking, key, srs_path=srs)
    run_ezkl("prove", witness, network, key, proof, srs_path=srs)
    assert run_ezkl("verify", proof, settings, checking, srs_path=srs).result


def test_the_cheapest_costs_no_more(tmp_path: Path) -> None:
    model, data = stored(gated_mlp(2, 8, 12), tmp_path)
    options: dict[str, Any] = {"calibration": data, "error": ERROR}
    rational = compile_circuit(model, **options)
    cheapest = compile_circuit(model, policy="cheapest", **options)
    assert price(cheapest.compiled.cost) <= 1.02 * price(rational.compiled.cost)
    policy = cheapest.manifest()["policy"]
    assert policy["name"] == "cheapest" and set(policy["circuits"]) >= {"nothing", "roots"}
    prices = [one["gigabyte_seconds"] for one in policy["circuits"].values() if "rows" in one]
    assert policy["circuits"][policy["native"]]["gigabyte_seconds"] == min(prices)
    (site,) = policy["sites"]
    assert site["function"] == "rsqrt" and set(site["rows"]) == set(policy["circuits"])
    assert rational.manifest()["policy"] == {"name": "rational", "native": "nothing"}


def test_a_policy_that_does_not_exist(tmp_path: Path) -> None:
    model, data = stored(gated_mlp(2, 8, 12), tmp_path)
    with pytest.raises(OdpError, match="policy is rational or cheapest, not 'fastest'"):
        compile_circuit(model, calibration=data, policy="fastest")  # type: ignore[arg-type]


# Claims


def hardest_roots(bits: int) -> list[int]:
    """Numbers on both sides of where the nearest root changes, y^2 + y and y^2 + y + 1."""
    generator = np.random.default_rng(0)
    found = [int(y) for y in generator.integers(1, 2**bits - 1, 200)] + [1, 2**bits - 2]
    return [y * y + y + more for y in found for more in (0, 1)]


def test_claimed_roots_are_nearest_and_those_of_float64() -> None:
    hard = hardest_roots(ROOT_BITS)
    claimed = roots(np.array(hard, object), 0)
    for x, y in zip(hard, claimed, strict=True):
        assert abs(y * y - x) <= abs((y + 1) ** 2 - x) and abs(y * y - x) < abs((y - 1) ** 2 - x)
        assert y == math.floor(math.sqrt(float(x)) + 0.5)


def test_claimed_roots_of_more_bits_would_not_be() -> None:
    """Why there is a limit: beyond it float64 claims what the circuit does not accept."""
    hard = hardest_roots(ROOT_BITS + 4)
    claimed = roots(np.array(hard, object), 0)
    other = [math.floor(math.sqrt(float(x)) + 0.5) for x in hard]
    assert any(y != z for y, z in zip(claimed, other, strict=True))


@pytest.mark.parametrize("label", [8, 20, RECIPROCAL_LABEL])
def test_claimed_reciprocals_are_nearest_and_those_of_float64(label: int) -> None:
    generator = np.random.default_rng(0)
    numbers = [int(x) for x in generator.integers(1, 2**label, 500)] + [1, 2, 3, 2**label]
    numbers += [-x for x in numbers[:50]]
    claimed = reciprocals(np.array(numbers, object), label)
    for x, y in zip(numbers, claimed, strict=True):
        target = 4**label
        distances = [abs((y + step) * x - target) for step in (-1, 0, 1)]
        assert distances[1] <= distances[2] and distances[1] < distances[0]
        real = 2.0**label * (1.0 / (x / 2.0**label))
        assert y == int(math.copysign(math.floor(abs(real) + 0.5), real))
