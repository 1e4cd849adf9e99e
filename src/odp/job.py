"""What a rewrite is asked to do, whatever the model is written in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odp.rewriter.calibration import Observation
    from odp.rewriter.rewrite_pass import Pass
    from odp.rewriter.selection import Defaults, Selection
    from odp.rewriter.site import Site

__all__ = ["Job", "Selector", "Stage"]

Selector = Callable[["Mapping[str, Site]", "Mapping[str, Observation]", "Defaults"], "Selection"]
Stage = Callable[[str, int, int], None]
"""Called as `stage(what, done, total)` whenever there is progress."""


@dataclass(frozen=True)
class Job:
    """The arguments of `odp.rewrite` that mean the same for ONNX and for torch.

    Attributes:
        typed: the passes with the options that the user gave them.
        named: names of the passes that the user named (`all` names none).
        available: every pass of the registry by name.
        defaults: error, margin and guard.
        calibration: as the user gave it.
        samples: number of inputs to use, or None.
        seed: of generated inputs.
        measure: whether to measure the error of every pass at the outputs.
        explain: names of passes whose near misses are wanted.
        progress: called when a stage advances.
        selector: chooses the expressions, from sites, what they saw, and defaults.
    """

    typed: Sequence[Pass]
    named: Collection[str]
    available: Mapping[str, type[Pass]]
    defaults: Defaults
    calibration: Any
    samples: int | None
    seed: int
    measure: bool
    explain: Collection[str]
    progress: Stage
    selector: Selector

    def counted(self, what: str, total: int) -> Callable[[], None]:
        """A function that reports one more of `total`, or of as many as there turn out to be."""
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            self.progress(what, done, max(total, done))

        self.progress(what, 0, total)
        return advance
