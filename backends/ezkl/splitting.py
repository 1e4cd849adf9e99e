"""A circuit too large for memory becomes several, linked by the integers between them.

All parts come from one schedule, so a tensor that leaves one part enters the next as the very same
integers; `linking.py` says how a verifier sees that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder, input_json
from odp.backends.ezkl.cutting import Cutter, Piece, cheapest_pieces
from odp.backends.ezkl.linking import Part, links_between
from odp.backends.ezkl.network import simulate
from odp.backends.ezkl.plain import is_plain
from odp.backends.ezkl.proving import run_ezkl
from odp.backends.ezkl.run_arguments import RunArguments
from odp.backends.whole_files import write_bytes, write_text

__all__ = ["Links", "split"]

Links = Literal["committed", "public"]
"""How the tensors between parts are shown: as commitments, or as they are."""


def split(
    circuit: CircuitFolder,
    target: Path,
    memory: float,
    *,
    links: Links = "committed",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Part]:
    """Cut a circuit into parts whose proofs are predicted to need at most so much memory.

    Args:
        circuit: the whole.
        target: a folder, in which every part gets a folder of its own, and links.json.
        memory: bytes.
        links: how tensors between parts are shown.
        progress: called as `progress("split", row counts tried, row counts)`.

    Raises:
        OdpError: an operation is too large by itself, or EZKL chose the scales.
    """
    if is_plain(circuit):
        raise OdpError(
            f"'{circuit.path}' has the profile plain, whose integers only EZKL knows: "
            "split a circuit with the profile scheduled"
        )
    arguments = RunArguments.from_settings(circuit.settings)
    tensors = simulate(circuit.network, circuit.stored_input())
    cutter = Cutter(circuit.network, tensors, links == "committed")
    pieces = cheapest_pieces(cutter, arguments, memory, progress)
    target.mkdir(parents=True, exist_ok=True)
    parts = [
        _written(cutter, piece, target / f"part-{number}", circuit)
        for number, piece in enumerate(pieces, 1)
    ]
    tree = {
        "parts": [
            {"folder": part.folder.name, "inputs": part.inputs, "outputs": part.outputs}
            for part in parts
        ],
        "links": [asdict(link) for link in links_between(parts)],
    }
    write_text(target / "links.json", json.dumps(tree, indent=1))
    return parts


def _written(cutter: Cutter, piece: Piece, folder: Path, circuit: CircuitFolder) -> Part:
    """Write the folder of one part."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "network.onnx", piece.model.SerializeToString())
    settings = folder / "settings.json"
    run_ezkl(
        "gen_settings",
        folder / "network.onnx",
        settings,
        py_run_args=replace(piece.cost.arguments, input_scale=0, param_scale=0),
        writes=settings,
    )
    tensors = cutter.tensors
    write_text(
        folder / "input.json", input_json({name: tensors[name].integers for name in piece.inputs})
    )
    known = circuit.manifest
    manifest = {
        "odp": known["odp"],
        "model": known["model"],
        "inputs": {
            name: known["inputs"].get(name, {"scale": 0})
            | {"shape": list(tensors[name].integers.shape)}
            for name in piece.inputs
        },
        "outputs": {
            name: {"shape": list(tensors[name].integers.shape), "scale": tensors[name].label}
            for name in piece.outputs
        },
        "tensors": {
            name: record
            for name, record in known["tensors"].items()
            if piece.start <= cutter.made.get(name, -1) < piece.stop
        },
        "predicted": piece.cost.summary(),
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1))
    return Part(folder, piece.inputs, piece.outputs)
