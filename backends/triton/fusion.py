"""A module in which operators stand for norms, gated layers, attention and torch functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from odp.backends.torch.discovery import Discovery
from odp.backends.torch.inputs import Inputs, run
from odp.backends.torch.rational_calls import Calls, RationalCalls, intercept
from odp.backends.torch.rational_class import original_class
from odp.backends.triton.fused_attention import AttentionOperatorCall, RotatingCalls, rotates
from odp.backends.triton.fused_gates import fuse_gates
from odp.backends.triton.fused_norms import fuse_norms
from odp.backends.triton.operator_calls import ADAPTERS, OperatorCall
from odp.backends.triton.requested import Requested

__all__ = ["fuse_modules"]

_ATTENTION = torch.nn.functional.scaled_dot_product_attention


def fuse_modules(module: torch.nn.Module, requested: Requested, example: Inputs) -> None:
    """Put operators into a module, in place; what is left over stays for the ordinary passes.

    Args:
        module: to be changed.
        requested: which operators are asked for; learns what was fused.
        example: inputs of one call.

    Raises:
        OdpError: the module does not run on the example.
    """
    fuse_norms(module, requested)
    fuse_gates(module, requested)
    discovery = Discovery(module)
    with discovery.watching():
        run(module, example)
    paths = {m: path for path, m in module.named_modules(remove_duplicate=False)}
    for owner, functions in discovery.found.items():
        _take(owner, list(functions), paths[owner], requested)


def _take(
    owner: torch.nn.Module,
    functions: list[Callable[..., Any]],
    path: str,
    requested: Requested,
) -> None:
    kind = original_class(owner).__name__
    calls: Calls = {}
    for function in functions:
        name = "attention" if function is _ATTENTION else ADAPTERS.get(function, ("",))[0]
        given = requested.functions(name) if name else None
        if given is None:
            continue
        made: Any = (
            AttentionOperatorCall(given)
            if name == "attention"
            else OperatorCall(function, name, given)
        )
        calls[function] = made
        requested.add(name, path, kind, given)
    rotating = requested.functions("rope") is not None and rotates(owner)
    if rotating:
        requested.add("rope", path, kind, {})
    if calls or rotating:
        intercept(owner, calls, RotatingCalls if rotating else RationalCalls)
