"""A circuit too large for memory becomes several, linked by the integers between them.

All parts come from one schedule, so a tensor that leaves one part enters the next as the very same
integers.  These are public on both sides, and whoever verifies the parts compares them; what may
not be public can be hashed or committed to by EZKL instead (visibility `hashed`, `polycommit`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder, input_json
from odp.backends.ezkl.columns import choose_columns
from odp.backends.ezkl.network import Tensor, simulate
from odp.backends.ezkl.proving import run_ezkl
from odp.backends.ezkl.run_arguments import RunArguments
from odp.backends.whole_files import write_bytes, write_text

__all__ = ["Link", "Part", "check_links", "read_parts", "split"]

# Inputs pass through float32: with 51 bits EZKL's witness was off by 1e-8.
_BITS = 24


@dataclass(frozen=True)
class Part:
    """One circuit of several.

    Attributes:
        folder: of the circuit.
        inputs: names of the tensors that it takes, in order.
        outputs: names of the tensors that it gives, in order.
    """

    folder: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """A tensor that leaves one part and enters another.

    Attributes:
        tensor: its name.
        source: number of the part that it leaves.
        target: number of the part that it enters.
    """

    tensor: str
    source: int
    target: int


def split(
    circuit: CircuitFolder,
    target: Path,
    memory: float,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Part]:
    """Cut a circuit into parts whose proofs are predicted to need at most so much memory.

    Args:
        circuit: the whole.
        target: a folder, in which every part gets a folder of its own, and links.json.
        memory: bytes.
        progress: called as `progress("split", nodes done, nodes)`.

    Raises:
        OdpError: an operation is too large by itself, or has no cut before and after it.
    """
    network = circuit.network
    arguments = RunArguments.from_settings(circuit.settings)
    tensors = simulate(network, circuit.stored_input())
    cutter = _Cutter(network, circuit.manifest, tensors)
    segments: list[tuple[int, int]] = []
    start = 0
    while start < len(network.graph.node):
        progress("split", start, len(network.graph.node))
        stop = _furthest(cutter, start, arguments, memory)
        segments.append((start, stop))
        start = stop
    progress("split", start, start)
    target.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, (start, stop) in enumerate(segments):
        folder = target / f"part-{number + 1}"
        parts.append(_written(cutter, start, stop, folder, circuit, arguments, tensors))
    links = [
        Link(name, i, j)
        for j, part in enumerate(parts)
        for name in part.inputs
        for i, source in enumerate(parts[:j])
        if name in source.outputs
    ]
    tree = {
        "parts": [
            {"folder": part.folder.name, "inputs": part.inputs, "outputs": part.outputs}
            for part in parts
        ],
        "links": [{"tensor": k.tensor, "source": k.source, "target": k.target} for k in links],
    }
    write_text(target / "links.json", json.dumps(tree, indent=1))
    return parts


def read_parts(folder: Path) -> tuple[list[Part], list[Link]]:
    """What `split` has written.

    Raises:
        OdpError: the folder has no parts.
    """
    try:
        tree = json.loads((folder / "links.json").read_text(encoding="utf-8"))
        parts = [
            Part(folder / one["folder"], tuple(one["inputs"]), tuple(one["outputs"]))
            for one in tree["parts"]
        ]
        return parts, [Link(**one) for one in tree["links"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OdpError(f"'{folder}' has no parts of a circuit ({error})") from None


def check_links(parts: Sequence[Part], links: Sequence[Link]) -> list[Link]:
    """The links whose public values differ on their two sides; none if all is well.

    Args:
        parts: with proofs in their folders, verified one by one.
        links: between them.
    """
    public = [_public_values(part) for part in parts]
    return [
        link
        for link in links
        if public[link.source][link.tensor] != public[link.target][link.tensor]
    ]


class _Cutter:
    """Where a network can be cut, and what a piece of it is."""

    def __init__(
        self, network: onnx.ModelProto, manifest: dict[str, Any], tensors: dict[str, Tensor]
    ) -> None:
        self.network = network
        self.tensors = tensors
        self.made = {name: i for i, n in enumerate(network.graph.node) for name in n.output}
        self.last: dict[str, int] = {}
        for index, node in enumerate(network.graph.node):
            for name in node.input:
                self.last[name] = index
        self.given = [value.name for value in network.graph.input]
        self.results = [value.name for value in network.graph.output]
        self._bits = {
            name: record["largest"] + record["scale"]
            for name, record in manifest["tensors"].items()
        }

    def crossing(self, cut: int) -> list[str]:
        """Tensors that are made before a cut and read after it."""
        names = [*self.given, *self.made]
        return [
            name
            for name in names
            if self.made.get(name, -1) < cut and self.last.get(name, -1) >= cut
        ]

    def can_cut(self, cut: int) -> bool:
        """Whether all that crosses is plain integers that EZKL can read."""
        return all(
            self.tensors[name].label == 0 and self._bits.get(name, 0.0) <= _BITS
            for name in self.crossing(cut)
        )

    def piece(self, start: int, stop: int) -> tuple[onnx.ModelProto, list[str], list[str]]:
        """The network of some nodes, and the names of what goes in and comes out."""
        nodes = list(self.network.graph.node)[start:stop]
        used = {name for node in nodes for name in node.input}
        inputs = [name for name in (*self.given, *self.made) if name in used]
        inputs = [name for name in inputs if self.made.get(name, -1) < start]
        leaving = set(self.crossing(stop)) | set(self.results)
        outputs = [name for node in nodes for name in node.output if name in leaving]
        constants = [t for t in self.network.graph.initializer if t.name in used]
        graph = onnx.helper.make_graph(
            nodes,
            f"part_{start}",
            [self._value(name) for name in inputs],
            [self._value(name) for name in outputs],
            constants,
        )
        model = onnx.helper.make_model(
            graph, opset_imports=self.network.opset_import, ir_version=self.network.ir_version
        )
        return model, inputs, outputs

    def _value(self, name: str) -> onnx.ValueInfoProto:
        shape = list(self.tensors[name].integers.shape)
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _furthest(cutter: _Cutter, start: int, arguments: RunArguments, memory: float) -> int:
    """The last cut up to which a part fits into memory."""
    nodes = cutter.network.graph.node
    cuts = [
        cut for cut in range(start + 1, len(nodes) + 1) if cut == len(nodes) or cutter.can_cut(cut)
    ]
    # Only matrix products change the memory by much; between two of them the last cut is as good.
    heavy = [i for i in range(start, len(nodes)) if nodes[i].op_type == "MatMul"]
    best: int | None = None
    for bound in (*(i for i in heavy if i > start), len(nodes)):
        fitting = [cut for cut in cuts if cut <= bound]
        if not fitting or fitting[-1] == best:
            continue
        model, _, _ = cutter.piece(start, fitting[-1])
        _, report = choose_columns(model, arguments)
        if report.resources.peak_memory > memory:
            break
        best = fitting[-1]
    if best is None:
        node = nodes[start]
        raise OdpError(
            f"no part that begins with node '{node.name}' fits into {memory / 1e9:.1f} GB; give "
            "more with --memory"
        )
    return best


def _written(
    cutter: _Cutter,
    start: int,
    stop: int,
    folder: Path,
    circuit: CircuitFolder,
    arguments: RunArguments,
    tensors: dict[str, Tensor],
) -> Part:
    """Write the folder of one part."""
    folder.mkdir(parents=True, exist_ok=True)
    model, inputs, outputs = cutter.piece(start, stop)
    chosen, report = choose_columns(model, arguments)
    write_bytes(folder / "network.onnx", model.SerializeToString())
    settings = folder / "settings.json"
    run_ezkl(
        "gen_settings",
        folder / "network.onnx",
        settings,
        py_run_args=replace(chosen, input_scale=0, param_scale=0),
        writes=settings,
    )
    integers = {name: tensors[name].integers for name in inputs}
    write_text(folder / "input.json", input_json(integers))
    known = circuit.manifest
    manifest = {
        "odp": known["odp"],
        "model": known["model"],
        "inputs": {
            name: known["inputs"].get(name, {"scale": 0})
            | {"shape": list(tensors[name].integers.shape)}
            for name in inputs
        },
        "outputs": {
            name: {"shape": list(tensors[name].integers.shape), "scale": tensors[name].label}
            for name in outputs
        },
        "tensors": {
            name: record
            for name, record in known["tensors"].items()
            if start <= cutter.made.get(name, -1) < stop
        },
        "predicted": {
            "rows": report.rows,
            "logrows": chosen.logrows,
            "proving_key": report.resources.proving_key,
            "peak_memory": report.resources.peak_memory,
        },
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1))
    return Part(folder, tuple(inputs), tuple(outputs))


def _public_values(part: Part) -> dict[str, list[str]]:
    """The public values of a proof by the names of its tensors.

    Raises:
        OdpError: there is no proof, or it has another number of public values.
    """
    circuit = CircuitFolder(part.folder)
    try:
        proof = json.loads((part.folder / "proof.json").read_text(encoding="utf-8"))
        values = [value for column in proof["instances"] for value in column]
    except (OSError, ValueError, KeyError, TypeError):
        raise OdpError(f"'{part.folder}' has no proof; odp ezkl prove makes it") from None
    records = {**circuit.manifest["inputs"], **circuit.manifest["outputs"]}
    names = [*part.inputs, *part.outputs]
    sizes = [math.prod(records[name]["shape"]) for name in names]
    if sum(sizes) != len(values):
        raise OdpError(f"the proof in '{part.folder}' is one of another circuit")
    found, used = {}, 0
    for name, size in zip(names, sizes, strict=True):
        found[name] = values[used : used + size]
        used += size
    return found
