"""Which operators the passes that a user typed ask for, and how their functions are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from odp.approximations.errors import OdpError
from odp.backends.triton.precision import error_of
from odp.kernels.functions import KernelFunction, kernel_function
from odp.kernels.registry import OPERATORS
from odp.rewriter.rewrite_pass import Pass

__all__ = ["FusedSite", "Requested"]

# Passes that ask for an operator: the composite, and the functions in it.
_ASKING: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("silu", "swiglu"), ("silu", "sigmoid")),
    **dict.fromkeys(("gelu", "geglu"), ("gelu", "erf")),
    **dict.fromkeys(("gelu_tanh", "geglu_tanh"), ("gelu", "tanh")),
    **dict.fromkeys(("softmax", "causal_softmax", "attention"), ("softmax", "exp")),
    **dict.fromkeys(("rms_norm", "add_rms_norm"), ("rms_norm", "rsqrt")),
    "layer_norm": ("layer_norm", "rsqrt"),
    "cross_entropy": ("log_softmax", "exp"),
    "rope": ("rope",),
}
_FUNCTIONS = {"attention": ("exp",), "rope": ()}


@dataclass(frozen=True)
class FusedSite:
    """One place where an operator of kernels stands now.

    Attributes:
        operator: its name.
        typed: name of the pass that asked for it; empty where nothing is approximated.
        module_path: of the module.
        module_type: its class.
        functions: how the open functions are computed.
    """

    operator: str
    typed: str
    module_path: str
    module_type: str
    functions: Mapping[str, KernelFunction]


@dataclass
class Requested:
    """What may be fused.

    Attributes:
        typed: the passes.
        error: of functions whose pass has none of its own.
        sites: what was fused, in order; extended.
        refused: reasons why something that a pass asked for stays as it is.
    """

    typed: Sequence[Pass]
    error: float
    sites: list[FusedSite] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def functions(self, operator: str) -> dict[str, KernelFunction] | None:
        """How the functions of an operator are computed; None if no pass asks for it."""
        rewrite = self._asking(operator)
        names = _FUNCTIONS.get(operator)
        names = OPERATORS[operator].functions if names is None else names
        if rewrite is None:
            return {} if not names and operator != "rope" else None
        if rewrite.scheme is not None or rewrite.formula is not None:
            # The expression that was asked for holds on an interval, which calibration finds.
            return None
        error = self.error if rewrite.error is None else rewrite.error
        try:
            return {name: kernel_function(name, error_of(name, error)) for name in names}
        except OdpError as refusal:
            self.refused.append(f"{operator}: {refusal}")
            return None

    def add(
        self, operator: str, path: str, kind: str, functions: Mapping[str, KernelFunction]
    ) -> None:
        """Note that an operator stands somewhere now."""
        rewrite = self._asking(operator)
        typed = "" if rewrite is None else rewrite.name
        self.sites.append(FusedSite(operator, typed, path, kind, functions))

    def _asking(self, operator: str) -> Pass | None:
        names = _ASKING.get(operator, ())
        typed = {rewrite.name: rewrite for rewrite in self.typed}
        return next((typed[name] for name in names if name in typed), None)
