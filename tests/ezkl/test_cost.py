"""Predictions of what circuits cost, against EZKL's own `gen_settings`, keys and proofs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

from odp.backends.ezkl.cost import CostReport, RunArguments, predict
from odp.backends.ezkl.cost_table import render, to_json

from . import blocks, graphs

ezkl = pytest.importorskip("ezkl")

DEFAULT = RunArguments()
INTEGERS = RunArguments(
    input_scale=0, param_scale=0, decomp_legs=4, ignore_range_check_inputs_outputs=True
)
SIZES = ((2, 4, 6), (1, 9), (3, 32))
BLOCKS = ("gated_mlp", "gated_mlp_integers", "attention", "encoder_block")
SETTINGS = (
    DEFAULT,
    INTEGERS,
    RunArguments(num_inner_cols=1),
    RunArguments(num_inner_cols=4, decomp_legs=3, ignore_range_check_inputs_outputs=True),
    RunArguments(num_inner_cols=8, decomp_legs=5, decomp_base=1024),
    RunArguments(decomp_legs=1, decomp_base=2**18),
    RunArguments(decomp_legs=8, input_scale=0, param_scale=0),
    RunArguments(scale_rebase_multiplier=3),
    RunArguments(input_scale=12, param_scale=10),
    RunArguments(rebase_frac_zero_constants=True),
    RunArguments(param_visibility="private"),
    RunArguments(disable_freivalds=True),
)


def settings_of(model: onnx.ModelProto, arguments: RunArguments, folder: Path) -> dict[str, Any]:
    """What EZKL says about a model."""
    onnx.save(model, folder / "model.onnx")
    ezkl.gen_settings(
        str(folder / "model.onnx"),
        str(folder / "settings.json"),
        py_run_args=arguments.to_ezkl(),
    )
    settings: dict[str, Any] = json.loads((folder / "settings.json").read_text())
    return settings


def check(report: CostReport, settings: dict[str, Any], slack: float = 0.01) -> None:
    """Compare a prediction with EZKL's settings.

    Rows may differ by a few: with several threads EZKL races for where in a row a loop goes on.
    """
    assert not report.unknown
    rows = settings["num_rows"]
    assert abs(report.rows - rows) <= max(slack * rows, 8 if slack else 0)
    assert report.constants == settings["total_const_size"]
    assert report.einsum_cells == settings["einsum_params"]["total_einsum_col_size"]
    assert report.shuffle_cells == settings["total_shuffle_col_size"]
    assert list(report.output_labels) == settings["model_output_scales"]
    assert sorted(report.range_checks) == sorted(map(tuple, settings["required_range_checks"]))
    tables = {
        (name, tuple((key, np.float32(value)) for key, value in sorted(parameters.items())))
        for table in settings["required_lookups"]
        for name, parameters in table.items()
    }
    assert {
        (table.name, tuple((key, np.float32(value)) for key, value in table.parameters))
        for table in report.lookups
    } == tables


@pytest.mark.parametrize("name", graphs.SINGLE)
def test_single_operators_cost_what_ezkl_says(name: str, tmp_path: Path) -> None:
    for shape in SIZES:
        model = graphs.SINGLE[name](shape)
        for arguments in (DEFAULT, INTEGERS):
            check(predict(model, arguments), settings_of(model, arguments, tmp_path))


@pytest.mark.parametrize("settings", SETTINGS, ids=range(len(SETTINGS)))
@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_cost_what_ezkl_says(block: str, settings: RunArguments, tmp_path: Path) -> None:
    model = getattr(blocks, block)()
    check(predict(model, settings), settings_of(model, settings, tmp_path))


def test_rows_are_exact_where_ezkl_has_one_thread(tmp_path: Path) -> None:
    """In a process of its own: rayon reads the number of threads once."""
    environment = {**os.environ, "RAYON_NUM_THREADS": "1"}
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
import tests.ezkl.test_cost as t
for block in t.BLOCKS:
    model = getattr(t.blocks, block)(5, 32, 2 if block == "attention" else 80) \\
        if block != "encoder_block" else t.blocks.encoder_block(5, 32)
    for arguments in t.SETTINGS:
        report = t.predict(model, arguments)
        settings = t.settings_of(model, arguments, Path({str(tmp_path)!r}))
        t.check(report, settings, slack=0.0)
        assert report.assignments == settings["total_assignments"]
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def _inputs(settings: dict[str, Any], size: float) -> list[list[float]]:
    rng = np.random.default_rng(0)
    shapes = settings["model_instance_shapes"][: len(settings["model_input_scales"])]
    return [(rng.normal(size=int(np.prod(s))) * size).round(3).tolist() for s in shapes]


@pytest.mark.parametrize("block", BLOCKS)
def test_logrows_are_those_of_calibration(block: str, tmp_path: Path) -> None:
    arguments = RunArguments()
    size = 1.0
    if block == "gated_mlp_integers":
        arguments, size = RunArguments(input_scale=0, param_scale=0, decomp_legs=7), 200.0
    model = getattr(blocks, block)()
    settings = settings_of(model, arguments, tmp_path)
    (tmp_path / "input.json").write_text(json.dumps({"input_data": _inputs(settings, size)}))
    ezkl.calibrate_settings(
        str(tmp_path / "input.json"),
        str(tmp_path / "model.onnx"),
        str(tmp_path / "settings.json"),
        "resources",
        lookup_safety_margin=2.0,
        scales=[arguments.input_scale],
        scale_rebase_multiplier=[1],
        max_logrows=20,
    )
    calibrated = json.loads((tmp_path / "settings.json").read_text())
    report = predict(model, RunArguments.from_settings(calibrated))
    assert report.logrows == calibrated["run_args"]["logrows"]


def test_arguments_survive_a_settings_file(tmp_path: Path) -> None:
    arguments = RunArguments(
        input_scale=3,
        decomp_legs=5,
        lookup_range=(-10, 20),
        ignore_range_check_inputs_outputs=True,
        input_visibility="private",
        epsilon=1e-9,
    )
    settings = settings_of(graphs.SINGLE["Neg"]((1, 3)), arguments, tmp_path)
    assert RunArguments.from_settings(settings) == arguments


def _circuit(arguments: RunArguments) -> onnx.ModelProto:
    if arguments.input_scale == 0:
        return blocks.gated_mlp_integers(2, 8, 12)
    return blocks.gated_mlp(2, 8, 12)


@pytest.mark.parametrize(
    "arguments",
    [
        RunArguments(decomp_base=2048, logrows=12, lookup_range=(-1000, 1000)),
        RunArguments(decomp_base=2048, logrows=12, decomp_legs=8, input_scale=0, param_scale=0),
    ],
    ids=["tables", "integers"],
)
def test_keys_and_proofs_have_the_sizes_predicted(arguments: RunArguments, tmp_path: Path) -> None:
    model = _circuit(arguments)
    settings = settings_of(model, arguments, tmp_path)
    path = {name: str(tmp_path / name) for name in ("c", "vk", "pk", "srs", "i", "w", "p")}
    ezkl.compile_circuit(str(tmp_path / "model.onnx"), path["c"], str(tmp_path / "settings.json"))
    ezkl.gen_srs(path["srs"], arguments.logrows)
    ezkl.setup(path["c"], path["vk"], path["pk"], srs_path=path["srs"])
    size = 200.0 if arguments.input_scale == 0 else 1.0
    Path(path["i"]).write_text(json.dumps({"input_data": _inputs(settings, size)}))
    ezkl.gen_witness(path["i"], path["c"], path["w"])
    ezkl.prove(path["w"], path["c"], path["pk"], path["p"], srs_path=path["srs"])
    resources = predict(model, arguments, logrows=arguments.logrows).resources
    proof = json.loads(Path(path["p"]).read_text())["proof"]
    assert len(proof) == resources.proof
    assert Path(path["vk"]).stat().st_size == resources.verifying_key
    assert resources.proving_key == pytest.approx(Path(path["pk"]).stat().st_size, rel=1e-4)
    assert resources.proof_file == pytest.approx(Path(path["p"]).stat().st_size, rel=0.1)


def test_resources_are_near_what_was_measured() -> None:
    """The MLP of facts/ezkl.md: setup and proof in one process, hence the larger of the two."""
    model = blocks.gated_mlp(4, 64, 172)
    resources = predict(model, RunArguments(lookup_range=(-1024, 1024)), logrows=17).resources
    assert resources.proving_key == pytest.approx(1.259e9, rel=0.01)
    assert resources.peak_memory == pytest.approx(3.05e9, rel=0.25)


def test_what_is_not_known_is_named() -> None:
    g = graphs.GraphBuilder({"x": (2, 3)}, opset=20)
    g("Gelu", g("Neg", "x"))
    report = predict(g.model())
    assert [item.source.op_type for item in report.unknown] == ["Gelu"]
    assert "Gelu" in report.unknown[0].reason


def test_an_exponent_that_ezkl_misreads_is_refused() -> None:
    g = graphs.GraphBuilder({"x": (2, 3)})
    g("Pow", "x", -1.0)
    (item,) = predict(g.model()).unknown
    assert "exponent" in item.reason


def test_shared_constants_are_range_checked_when_inputs_are_not() -> None:
    """EZKL passes the flag on upside down; a scheduler must not share large constants."""
    model = graphs.SINGLE["MatMul shared weights"]((2, 4, 6))
    shared = {
        ignore: next(
            node.rows
            for node in predict(model, RunArguments(ignore_range_check_inputs_outputs=ignore)).nodes
            if node.operation == "Const" and node.rows
        )
        for ignore in (False, True)
    }
    assert shared[True] > 8 * shared[False]


def test_a_free_factor_moves_the_label_and_the_reader_is_rescaled() -> None:
    g = graphs.GraphBuilder({"x": (1, 64)})
    g("Neg", g("Mul", "x", 2.0**-8))
    factor, reader = [
        node for node in predict(g.model(), INTEGERS).nodes if node.op_type in ("Mul", "Neg")
    ]
    assert (factor.label_after, factor.rescaled_bits) == (8, 0)
    assert (reader.label_before, reader.label_after, reader.rescaled_bits) == (8, 0, 8)
    assert reader.rescale_rows == 64 * 64 / 2  # 4 legs: 64 cells an element


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_and_the_document_say_what_dominates(width: int) -> None:
    report = predict(blocks.gated_mlp())
    console = Console(width=width, record=True)
    with console.capture() as capture:
        render(report, console)
    text = capture.get()
    assert f"{report.rows:,} rows" in text
    assert "rescale" in text
    assert "Sigmoid" in text
    document = json.loads(to_json(report))
    assert document["rows"] == report.rows
    assert sum(document["rows_by_operation"].values()) == pytest.approx(report.rows, abs=1)
    assert len(document["nodes"]) == len(report.nodes)
