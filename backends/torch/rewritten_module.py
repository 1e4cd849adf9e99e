"""A module whose forward runs a rewritten graph, and which is otherwise what it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from odp.approximations.errors import OdpError
from odp.backends.torch.call_signature import defaults_of, forward_like
from odp.backends.torch.graph_call import call_graph
from odp.backends.torch.program import Program, ProgramSignature
from odp.backends.torch.rational_class import Rational, become

__all__ = ["Retrace", "RewrittenGraph", "attribute", "rewritten"]

Retrace = Callable[[torch.nn.Module], Program]
"""Traces and rewrites a module again, with the expressions that were chosen before."""


@dataclass(frozen=True)
class _Call:
    """What a rewritten module needs to run its graph.

    Attributes:
        signature: of the program.
        defaults: values of parameters that the example inputs left out.
        retrace: how to trace again for another type or device; None if that is impossible.
    """

    signature: ProgramSignature
    defaults: Mapping[str, Any]
    retrace: Retrace | None


class RewrittenGraph(Rational):
    """What `odp.rewrite` makes of a module: the same parameters, a graph without transcendentals.

    Parameters, buffers, submodules and attributes are those of the original class, and a state_dict
    loads both ways; only `forward` is another.  Types and devices are baked into a graph, so moving
    the module traces it again.
    """

    odp_graph: fx.GraphModule
    odp_call: _Call

    @classmethod
    def odp_forward(cls, original: Callable[..., Any]) -> Callable[..., Any]:
        return forward_like(original)

    def odp_run(self, arguments: Mapping[str, Any]) -> Any:
        """Run the graph on inputs by name.

        Raises:
            OdpError: an input differs from the example inputs in what the graph relies on.
        """
        call, signature = self.odp_call, self.odp_call.signature
        for name, value in arguments.items():
            if name not in signature.arguments and not _is_default(value, name, call.defaults):
                raise OdpError(
                    f"forward was exported without '{name}'; rewrite the module again with "
                    f"'{name}' in example_inputs"
                )
        missing = [name for name in signature.arguments if name not in arguments]
        if missing:
            raise OdpError(f"forward was exported with '{missing[0]}', which is missing here")
        leaves = signature.flatten([arguments[name] for name in signature.arguments])
        tensors = [attribute(self, name) for name in signature.tensors]
        results = call_graph(self.odp_graph, [*tensors, *leaves])
        for name, new in zip(signature.written, results, strict=False):
            # A buffer that remembers how it was computed would keep the graph of every batch.
            attribute(self, name).copy_(new.detach())
        return pytree.tree_unflatten(list(results[len(signature.written) :]), signature.output_spec)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = _types(self)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if _types(self) != before and self.odp_call.retrace is not None:
            self.odp_install(self.odp_call.retrace(self))
        elif {t for t, _ in _types(self)} != {t for t, _ in before}:
            raise OdpError(
                "a module that came as a graph has its types baked in; rewrite the module that it "
                "was traced from, and it can be moved to other types"
            )
        return self

    def odp_install(self, program: Program) -> None:
        """Let forward run `program`."""
        program.graph.recompile()
        self.odp_graph = program.graph.module
        self.odp_call = _Call(program.signature, self.odp_call.defaults, self.odp_call.retrace)


def rewritten(
    module: torch.nn.Module, program: Program, retrace: Retrace | None
) -> torch.nn.Module:
    """Let `module` run `program` from now on.

    Args:
        module: the module that was traced; it is changed, so pass a copy.
        program: the rewritten program.
        retrace: see `Retrace`.

    Returns:
        `module`, now of a subclass of its class.
    """
    defaults = defaults_of(module.forward)
    become(module, RewrittenGraph)
    assert isinstance(module, RewrittenGraph)
    module.odp_call = _Call(program.signature, defaults, retrace)
    module.odp_install(program)
    return module


def _is_default(value: Any, name: str, defaults: Mapping[str, Any]) -> bool:
    if isinstance(value, torch.Tensor) or name not in defaults:
        return False
    default = defaults[name]
    return value is default or (type(value) is type(default) and bool(value == default))


def attribute(module: torch.nn.Module, name: str) -> torch.Tensor:
    """The parameter or buffer of a dotted name.

    Raises:
        OdpError: there is none any more.
    """
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, torch.Tensor):
        raise OdpError(
            f"the module has lost '{name}', which its graph needs: a graph does not see submodules "
            "that are replaced (by LoRA, for example); rewrite with structure='modules' for that"
        )
    return found


def _types(module: torch.nn.Module) -> set[tuple[torch.dtype, torch.device]]:
    """Floating-point types and devices of the parameters and buffers."""
    tensors = (*module.parameters(), *module.buffers())
    return {(t.dtype, t.device) for t in tensors if t.is_floating_point()}
