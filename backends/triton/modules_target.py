"""A module that keeps its class, with operators of kernels in it: a target of `odp.rewrite`."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

from odp.backends.torch.inputs import Batches, Inputs, run
from odp.backends.torch.modules_target import ModulesTarget
from odp.backends.triton.fusion import fuse_modules
from odp.backends.triton.requested import FusedSite, Requested
from odp.rewriter.calibration import Observation
from odp.rewriter.manager import Result
from odp.rewriter.rewrite_pass import Pass
from odp.rewriter.selection import Selection
from odp.rewriter.site import Request, Site

__all__ = ["FusedModulesTarget"]


class FusedModulesTarget:
    """Operators where there are some, and expressions at the sites that are left.

    Attributes:
        module: the module; it is changed from the start.
        fused: where operators stand.
        refused: why some do not that a pass asked for.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        requests: Sequence[Request],
        typed: Sequence[Pass],
        error: float,
        example: Inputs,
    ) -> None:
        """Fuse `module` for all passes.

        Raises:
            OdpError: it does not run, or hides its softmax in a kernel.
        """
        self._requests, self._typed, self._error = requests, typed, error
        self._example = example
        # Whatever is cached in its first call is in all copies then.
        run(module, example)
        self._pristine = _shared(module)
        self._before = ModulesTarget(_shared(module), requests, example).operations()
        requested = Requested(typed, error)
        self.module = module
        fuse_modules(module, requested, example)
        self.fused: list[FusedSite] = requested.sites
        self.refused = list(dict.fromkeys(requested.refused))
        self._rest = ModulesTarget(module, requests, example)

    def operations(self) -> tuple[dict[str, int], dict[str, int]]:
        """Operators that one run of the module as it came executed: all, and transcendental."""
        return self._before

    def calibrate(
        self, batches: Batches, advance: Callable[[], None]
    ) -> tuple[dict[str, Site], dict[str, Observation]]:
        """Find the sites that are left and watch them; see `ModulesTarget`."""
        return self._rest.calibrate(batches, advance)

    @contextlib.contextmanager
    def variant(
        self, selection: Selection, enabled: Collection[str] | None
    ) -> Iterator[Callable[[Inputs], Any]]:
        """The module with the operators and expressions of some passes only."""
        part = _shared(self._pristine)
        typed = [one for one in self._typed if enabled is None or one.name in enabled]
        fuse_modules(part, Requested(typed, self._error), self._example)
        with ModulesTarget(part, self._requests, self._example).variant(
            selection, enabled
        ) as run_variant:
            yield run_variant

    def finish(
        self, selection: Selection, explain: frozenset[str] = frozenset()
    ) -> tuple[torch.nn.Module, Result]:
        """Rewrite for good."""
        return self._rest.finish(selection, explain)


def _shared(module: torch.nn.Module) -> torch.nn.Module:
    """A copy that has the same parameters."""
    memo: dict[int, Any] = {id(p): p for p in module.parameters()}
    return copy.deepcopy(module, memo)
