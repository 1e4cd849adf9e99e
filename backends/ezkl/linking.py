"""Parts of a circuit and the tensors between them: what a verifier compares beside the proofs.

A tensor that leaves one part enters the next as the very same integers.  They are public in both
proofs, or both proofs commit to them (KZG, visibility `polycommit`), and whoever verifies the parts
compares the values or the commitments.  Those of a proof are its first points, inputs before
outputs.  They are not blinded: whoever guesses a tensor can check the guess.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder
from odp.backends.ezkl.cost_columns import commitment_columns
from odp.backends.ezkl.run_arguments import RunArguments

__all__ = ["Link", "Part", "check_links", "links_between", "read_parts"]

_POINT = 64
"""Bytes of a point in a proof: both coordinates, most significant byte first."""


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
    """A tensor that two parts share.

    Attributes:
        tensor: its name.
        source: number of the part that it leaves, or that takes it first.
        target: number of the part that it enters.
    """

    tensor: str
    source: int
    target: int


def links_between(parts: Sequence[Part]) -> list[Link]:
    """Where tensors of one part are those of another: all of it that a verifier has to compare."""
    first: dict[str, int] = {}
    links = []
    for number, part in enumerate(parts):
        for name in part.inputs:
            if name in first:
                links.append(Link(name, first[name], number))
            first.setdefault(name, number)
        for name in part.outputs:
            first[name] = number
    return links


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


def check_links(
    parts: Sequence[Part], links: Sequence[Link], srs: Path | None = None
) -> list[Link]:
    """The links whose two sides differ; none if all is well.

    Args:
        parts: with proofs in their folders, verified one by one.
        links: between them.
        srs: the reference string of the proofs, for tensors that are public in one part and
            committed to in another.

    Raises:
        OdpError: a proof is missing, or is one of another circuit.
    """
    seen = [_exposed(part) for part in parts]

    def differs(link: Link) -> bool:
        source, target = seen[link.source][link.tensor], seen[link.target][link.tensor]
        if source.committed == target.committed:
            return source.words != target.words
        values, commitment, part = (
            (source, target, parts[link.target])
            if target.committed
            else (target, source, parts[link.source])
        )
        return _commitment(values.words, part, srs) != commitment.words

    return [link for link in links if differs(link)]


@dataclass(frozen=True)
class _Exposed:
    """What a proof shows of a tensor: field elements, or points."""

    words: list[str]
    committed: bool


def _exposed(part: Part) -> dict[str, _Exposed]:
    """What the proof of a part shows of its inputs and outputs, by name."""
    circuit = CircuitFolder(part.folder)
    values, proof = _proof(part.folder)
    arguments = RunArguments.from_settings(circuit.settings)
    records = {**circuit.manifest["inputs"], **circuit.manifest["outputs"]}
    found, value, point = {}, 0, 0
    for names, visibility in (
        (part.inputs, arguments.input_visibility),
        (part.outputs, arguments.output_visibility),
    ):
        committed = visibility == "polycommit"
        for name in names:
            size = math.prod(records[name]["shape"])
            if committed:
                count = commitment_columns(size, circuit.logrows)
                points = [
                    proof[_POINT * i : _POINT * (i + 1)].hex() for i in range(point, point + count)
                ]
                found[name] = _Exposed(points, True)
                point += count
            else:
                found[name] = _Exposed(values[value : value + size], False)
                value += size
    if value != len(values):
        raise OdpError(f"the proof in '{part.folder}' is one of another circuit")
    return found


def _proof(folder: Path) -> tuple[list[str], bytes]:
    """Public values and bytes of the proof in a folder."""
    try:
        tree = json.loads((folder / "proof.json").read_text(encoding="utf-8"))
        return [value for column in tree["instances"] for value in column], bytes(tree["proof"])
    except (OSError, ValueError, KeyError, TypeError):
        raise OdpError(f"'{folder}' has no proof; odp ezkl prove makes it") from None


def _commitment(values: Sequence[str], part: Part, srs: Path | None) -> list[str]:
    """The points by which a part would commit to field elements."""
    import ezkl

    if srs is None:
        raise OdpError(
            f"'{part.folder}' commits to what another part shows; give the reference string, --srs"
        )
    key, settings = part.folder / "vk.key", part.folder / "settings.json"
    try:
        points: Any = ezkl.kzg_commit(list(values), str(key), str(settings), str(srs))
    except (RuntimeError, OSError) as error:
        raise OdpError(f"cannot commit to public values with '{srs}': {error}") from None
    return [(bytes.fromhex(p.x)[::-1] + bytes.fromhex(p.y)[::-1]).hex() for p in points]
