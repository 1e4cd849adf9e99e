"""What a healing leaves on the disk, and whether it may go on there.

A healing is a folder:

    heal.json        what was done to which model
    ranges.json      what calibration saw, from which the same expressions are chosen again
    surgery/         log, checkpoints and adapter of the rewritten model
    control/         the same of the original
    controls.json    all four models, on all texts
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError

if TYPE_CHECKING:
    from odp.rewriting import RewriteResult

__all__ = [
    "ADAPTER",
    "CONTROLS",
    "CONTROL_FOLDER",
    "RANGES",
    "RECORD",
    "SURGERY_FOLDER",
    "check_surgery",
    "describe_text",
    "open_folder",
    "read_record",
    "surgery_of",
    "write_record",
]

RECORD, RANGES, CONTROLS = "heal.json", "ranges.json", "controls.json"
SURGERY_FOLDER, CONTROL_FOLDER, ADAPTER = "surgery", "control", "adapter"
_BEGINNING = 1 << 20
# What is read of a record, and as what.
_NEEDED: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("passes", "guard", "target"), str),
    **dict.fromkeys(("error", "margin"), (int, float)),
    **dict.fromkeys(("settings", "surgery", "model"), dict),
    "texts": list,
}


def open_folder(
    place: Path, wanted: dict[str, Any], identity: Any, *, resume: bool, first: bool
) -> dict[str, Any] | None:
    """The record of a healing to go on with; None for a new one, whose folder is made.

    Args:
        place: the folder.
        wanted: what is asked for; a healing goes on with the same only.
        identity: of the model.
        resume: whether to go on with what is there.
        first: whether this is the process that makes the folder.

    Raises:
        OdpError: the folder is taken, missing, cannot be made, or is of another healing.
    """
    from odp.healing.identity import Identity

    exists = (place / RECORD).is_file()
    # What a kill leaves before anything is recorded.
    is_empty = place.is_dir() and all(
        file.name == RANGES or file.name.startswith(".odp-") for file in place.iterdir()
    )
    # The other processes come when the first has made the folder.
    if first and (is_empty or not resume):
        if place.exists() and not is_empty:
            raise OdpError(
                f"'{place}' exists already; "
                + (
                    "--resume goes on with the healing in it, another folder begins a new one"
                    if exists
                    else "give the name of a new folder"
                )
            )
        from odp.backends.whole_files import make_folder

        make_folder(place, parents=False)
        # Ranges without a record may be of another model.
        (place / RANGES).unlink(missing_ok=True)
        return None
    if resume and not exists:
        raise OdpError(f"there is no healing to resume in '{place}': {RECORD} is missing")
    known = read_record(place)
    Identity.from_dict(known["model"]).check(identity, f"the healing in '{place}'")
    changed = next((name for name in wanted if wanted[name] != known[name]), None)
    if changed == "settings":
        before, now = known["settings"], wanted["settings"]
        changed = next(name for name in now if before.get(name) != now[name])
        known, wanted = before, now
    if changed is not None:
        raise OdpError(
            f"the healing in '{place}' was begun with {changed} {known.get(changed)}, not "
            f"{wanted[changed]}; resume with the same options, or begin in another folder"
        )
    return known


def describe_text(path: Path) -> str:
    """A text by its name, size and beginning: the whole of it may be large."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_BEGINNING)).hexdigest()[:16]
    return f"{path.name} ({path.stat().st_size} bytes, {digest})"


def read_record(place: Path) -> dict[str, Any]:
    """What was done to which model.

    Raises:
        OdpError: there is no healing in the folder, or its record is damaged.
    """
    from odp.healing.identity import Identity

    file = place / RECORD
    if not file.is_file():
        raise OdpError(f"there is no healing in '{place}': {RECORD} is missing")
    try:
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(known, dict) or not all(
            isinstance(known.get(name), kind) for name, kind in _NEEDED.items()
        ):
            raise ValueError("it does not describe a healing")
        Identity.from_dict(known["model"])
    except (OSError, ValueError, TypeError) as error:
        raise OdpError(f"cannot read '{file}': {error}") from None
    return known


def write_record(
    place: Path,
    wanted: dict[str, Any],
    identity: Any,
    surgery: dict[str, Any],
    rewritten: RewriteResult,
) -> None:
    """Write down what was done, and what the expressions are chosen from.

    Raises:
        OdpError: a file cannot be written.
    """
    from odp.backends.whole_files import write_text

    write_text(place / RANGES, rewritten.ranges.to_json())
    tree = {
        "version": rewritten.report.version,
        **wanted,
        "surgery": surgery,
        "statistics": rewritten.report.statistics,
        "model": identity.to_dict(),
    }
    # Last, because it is what says that there is a healing.
    write_text(place / RECORD, json.dumps(tree, indent=1))


def surgery_of(passes: str, rewritten: RewriteResult) -> dict[str, Any]:
    """What was done to a model: two rewritings with the same expressions are the same."""
    report = rewritten.report
    chosen = [(site.id, site.domain, site.guard, site.approximant) for site in report.sites]
    made = [
        (a.key, a.function, a.description, a.latex, a.absolute_error) for a in report.approximants
    ]
    text = json.dumps([chosen, made], default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"passes": passes, "version": report.version, "expressions": digest}


def check_surgery(known: dict[str, Any] | None, surgery: dict[str, Any], place: Path) -> None:
    """Raise unless the expressions are those that the healing in a folder was begun with.

    Raises:
        OdpError: they are others.
    """
    if known is not None and known["surgery"] != surgery:
        raise OdpError(
            f"the healing in '{place}' is of other expressions, those of version "
            f"{known['surgery']['version']}; this version, {surgery['version']}, chooses others "
            "from the same ranges: begin in another folder"
        )
