"""Circuits of a few rows, written by hand: their proofs take a second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from odp.backends.ezkl.artefacts import CircuitFolder, input_json
from odp.backends.ezkl.proving import run_ezkl
from odp.backends.ezkl.run_arguments import RunArguments

__all__ = ["write_circuit", "write_parts"]


def write_circuit(
    folder: Path,
    values: Sequence[int] = (3, -1, 4, 1),
    *,
    seed: int = 0,
    names: tuple[str, str] = ("x", "y"),
    logrows: int = 6,
) -> CircuitFolder:
    """The folder of the product of a row of four integers and a matrix.

    Args:
        folder: to be made.
        values: of the row.
        seed: of the matrix.
        names: of input and output.
        logrows: log2 of the rows, which decides how long keys and proof take.
    """
    folder.mkdir(parents=True)
    weight = np.random.default_rng(seed).integers(-3, 4, (4, 4)).astype(np.float32)
    given, made = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 4)) for n in names)
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[0], "weight"], [names[1]], name="product")],
        "tiny",
        [given],
        [made],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)
    onnx.save(model, folder / "network.onnx")
    arguments = RunArguments(
        input_scale=0, param_scale=0, logrows=logrows, ignore_range_check_inputs_outputs=True
    )
    run_ezkl(
        "gen_settings", folder / "network.onnx", folder / "settings.json", py_run_args=arguments
    )
    (folder / "input.json").write_text(input_json({names[0]: np.asarray([values], object)}))
    manifest = {
        "inputs": {names[0]: {"shape": [1, 4], "scale": 0}},
        "outputs": {names[1]: {"shape": [1, 4], "scale": 0}},
        "tensors": {},
        "predicted": {"peak_memory": 10**7},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return CircuitFolder(folder)


def write_parts(folder: Path) -> list[CircuitFolder]:
    """Two such circuits of which the second takes what the first gives.

    Args:
        folder: to be made.
    """
    first = write_circuit(folder / "part-1", seed=1, names=("x", "middle"))
    middle = first.simulated(first.stored_input())["middle"].integers.ravel().tolist()
    second = write_circuit(folder / "part-2", middle, seed=2, names=("middle", "y"))
    tree = {
        "parts": [
            {"folder": "part-1", "inputs": ["x"], "outputs": ["middle"]},
            {"folder": "part-2", "inputs": ["middle"], "outputs": ["y"]},
        ],
        "links": [{"tensor": "middle", "source": 0, "target": 1}],
    }
    (folder / "links.json").write_text(json.dumps(tree))
    return [first, second]
