"""Checkpoints that are whole or do not exist, and that know when they have been damaged.

A checkpoint is two files, `step-00000100.safetensors` and `step-00000100.json`, each written under
another name and renamed.  The JSON comes last and holds the digest of the tensors and of itself, so
a kill between the two leaves no checkpoint, and a flipped bit is found when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.backends.whole_files import make_folder, write_bytes, write_text

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "Checkpoints"]

_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a training was at the end of a step.

    Attributes:
        step: how many updates have been made.
        tensors: by name.
        state: everything else, as JSON knows it.
    """

    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        folder: where they are; made when the first is saved.
        kept: how many are left behind: one for the case that the last is damaged.
        damaged: what is wrong with those that could not be used, one line each.
    """

    folder: Path
    kept: int = 2
    damaged: list[str] = field(default_factory=list)

    def save(self, step: int, tensors: Mapping[str, torch.Tensor], state: dict[str, Any]) -> Path:
        """Write a checkpoint, then remove all but the last `kept`.

        Args:
            step: number of updates made.
            tensors: what to save; copied to the CPU.
            state: everything else, as JSON knows it.

        Returns:
            The path of its JSON file.

        Raises:
            OdpError: it cannot be written, for example because the disk is full; the checkpoints
                before it are untouched.
        """
        from safetensors.torch import save

        make_folder(self.folder)
        content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
        file = self._file(step)
        write_bytes(file.with_suffix(".safetensors"), content)
        tree = {
            "format": _FORMAT,
            "step": step,
            "tensors": hashlib.sha256(content).hexdigest(),
            "state": state,
        }
        write_text(file, json.dumps(tree | {"digest": _digest(tree)}, indent=1))
        for old in self.steps()[: -self.kept]:
            # The JSON first: without it there is no checkpoint.
            self._file(old).unlink(missing_ok=True)
            self._file(old).with_suffix(".safetensors").unlink(missing_ok=True)
        return file

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, damaged or not, rising."""
        names = (file.stem.removeprefix("step-") for file in self.folder.glob("step-*.json"))
        return sorted(int(name) for name in names if name.isdigit())

    def latest(self) -> Checkpoint | None:
        """The last checkpoint that is as it was written; None if none was ever written.

        What is wrong with later ones is added to `damaged`.

        Raises:
            OdpError: there are checkpoints, and all of them are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._read(step)
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                self.damaged.append(f"checkpoint '{self._file(step)}' is damaged: {reason}")
        if steps:
            raise OdpError(
                f"no checkpoint in '{self.folder}' can be used; {self.damaged[0]}; remove the "
                "folder to begin again"
            )
        return None

    def remove_leftovers(self) -> None:
        """Remove the temporary files of a run that was killed while it wrote."""
        for file in self.folder.glob(".odp-*"):
            file.unlink(missing_ok=True)

    def _file(self, step: int) -> Path:
        return self.folder / f"step-{step:08}.json"

    def _read(self, step: int) -> Checkpoint:
        from safetensors import SafetensorError
        from safetensors.torch import load

        file = self._file(step)
        tree = json.loads(file.read_text(encoding="utf-8"))
        digest = tree.pop("digest")
        if tree["format"] != _FORMAT:
            raise ValueError(f"it is of format {tree['format']}, this version reads {_FORMAT}")
        if _digest(tree) != digest:
            raise ValueError("its digest is another")
        content = file.with_suffix(".safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != tree["tensors"]:
            raise ValueError(f"the digest of {file.stem}.safetensors is another")
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise ValueError(str(error)) from None
        return Checkpoint(tree["step"], tensors, tree["state"])


def _digest(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
