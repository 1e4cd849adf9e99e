"""What a search for fewer rows leaves on the disk.

rows.json            what was asked of which model
result.json          rungs, front and verdict
error-0.05/          one rung
    rung.json        what it found; there when the rung is done
    training/        log and checkpoint of the training
    layer-0.circuit  for `odp ezkl prove`, if circuits are wanted
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError

if TYPE_CHECKING:
    from odp.circuits import CompiledModel
    from odp.healing.rows_record import Rung

__all__ = ["RowsFolder", "RungFolder", "open_rows_folder"]

RECORD, RESULT, RUNG = "rows.json", "result.json", "rung.json"


@dataclass(frozen=True)
class RungFolder:
    """Where one rung is kept.

    Attributes:
        path: of the folder, which may not be there yet.
    """

    path: Path

    def read(self) -> Rung | None:
        """What the rung found, if it is done.

        Raises:
            OdpError: the file is damaged.
        """
        from odp.healing.rows_record import Rung

        file = self.path / RUNG
        if not file.is_file():
            return None
        try:
            return Rung.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise OdpError(
                f"cannot read '{file}': {error}; remove it to run the rung again"
            ) from None

    def write(self, rung: Rung) -> None:
        """Keep what the rung found; with this file it is done."""
        from odp.backends.whole_files import make_folder, write_text

        make_folder(self.path)
        write_text(self.path / RUNG, json.dumps(rung.to_dict(), indent=1, allow_nan=False))

    def training(self) -> Path:
        """A new folder for the training.

        What a stopped one left is removed: schedules are searched within a time, so that of its
        circuits may have been another.
        """
        from odp.backends.whole_files import make_folder

        folder = self.path / "training"
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        return folder

    def save_circuits(self, layers: Sequence[CompiledModel]) -> None:
        """Write the circuits.

        Raises:
            OdpError: a file cannot be written, or EZKL refuses a network.
        """
        for number, layer in enumerate(layers):
            layer.save(self.path / f"layer-{number}.circuit")


@dataclass(frozen=True)
class RowsFolder:
    """Where a search is kept.

    Attributes:
        path: of the folder.
    """

    path: Path

    def rung(self, error: float) -> RungFolder:
        """Where the rung of an error is kept."""
        return RungFolder(self.path / f"error-{error:g}")

    def write_result(self, text: str) -> None:
        """Keep the result of all rungs."""
        from odp.backends.whole_files import write_text

        write_text(self.path / RESULT, text)


def open_rows_folder(
    path: Path, model: Any, tokenizer: Any, wanted: dict[str, Any], *, resume: bool
) -> RowsFolder:
    """Make the folder of a search, or go on in one.

    Args:
        path: of the folder.
        model: that is searched.
        tokenizer: of the model.
        wanted: everything else that decides a rung, as plain values.
        resume: whether to go on with what is there.

    Raises:
        OdpError: the folder is taken, or is of another model or another search.
    """
    from odp.backends.whole_files import make_folder, write_text
    from odp.healing.identity import Identity

    identity = Identity.of(model, tokenizer)
    file = path / RECORD
    if resume and file.is_file():
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            before = Identity.from_dict(known.pop("model"))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise OdpError(f"cannot read '{file}': {error}") from None
        before.check(identity, f"the search in '{path}'")
        for name, value in wanted.items():
            if known.get(name) != value:
                raise OdpError(
                    f"'{path}' was begun with {name} {known.get(name)}, and now it is {value}; "
                    "resume with the same options, or begin in another folder"
                )
        return RowsFolder(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        advice = (
            "--resume goes on with the search in it"
            if file.is_file()
            else "give the name of a new folder"
        )
        raise OdpError(f"'{path}' exists already; {advice}")
    make_folder(path)
    write_text(file, json.dumps(wanted | {"model": identity.to_dict()}, indent=1))
    return RowsFolder(path)
