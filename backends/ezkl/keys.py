"""The keys in the folder of a circuit: what they were made for, and whether they are unharmed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from odp.approximations.errors import OdpError
from odp.backends.ezkl.artefacts import CircuitFolder
from odp.backends.ezkl.reference_string import fitting
from odp.backends.whole_files import write_text

__all__ = ["KEY_FILES", "check_origin", "forget_keys", "keys_are_good", "record_keys"]

KEY_FILES = ("network.ezkl", "pk.key", "vk.key")
_RECORD = "keys.json"


def keys_are_good(circuit: CircuitFolder, ceremony: str) -> bool:
    """Whether the keys in a folder were made for this circuit and string, and are unharmed.

    Args:
        circuit: the folder.
        ceremony: of the reference string.
    """
    record = _record(circuit.path)
    if record.get("circuit") != circuit.digest or record.get("ceremony") != ceremony:
        return False
    files = record.get("files")
    if not isinstance(files, dict):
        return False
    return all(files.get(name) == _digest(circuit.path / name) for name in KEY_FILES)


def record_keys(circuit: CircuitFolder, ceremony: str) -> None:
    """Write down what the keys in a folder were made for, and what they are.

    Args:
        circuit: the folder.
        ceremony: of the reference string.
    """
    files = {name: _digest(circuit.path / name) for name in KEY_FILES}
    tree = {"circuit": circuit.digest, "ceremony": ceremony, "files": files}
    write_text(circuit.path / _RECORD, json.dumps(tree, indent=1))


def forget_keys(folder: Path) -> None:
    """Keys that are about to be made anew are not good until all of them are there."""
    (folder / _RECORD).unlink(missing_ok=True)


def check_origin(circuit: CircuitFolder, srs: Path) -> None:
    """Refuse keys of an earlier circuit, and a reference string that is not that of the keys.

    Keys whose origin is not written down, as those that somebody has sent, may be of any.

    Args:
        circuit: the folder.
        srs: a reference string.

    Raises:
        OdpError: the keys are of something else, or as for `fitting`.
    """
    ceremony = fitting(srs, circuit.logrows).ceremony
    record = _record(circuit.path)
    if record.get("circuit", digest := circuit.digest) != digest:
        raise OdpError(
            f"the keys in '{circuit.path}' were made before its network or settings changed; odp "
            "ezkl prove makes them anew"
        )
    if record.get("ceremony", ceremony) != ceremony:
        raise OdpError(
            f"the keys in '{circuit.path}' were made with another reference string than '{srs}': "
            "give theirs with --srs"
        )


def _record(folder: Path) -> dict[str, object]:
    try:
        tree = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _digest(path: Path) -> str | None:
    """Of a whole file: a second for a gigabyte, and a proof with that key takes half a minute."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
